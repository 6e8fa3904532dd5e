"""The engine: TRL's `SFTTrainer`, told what to compute.

In: a model, its tokenizer, sequences of examples that were masked before, an `Objective`. Out: the trained model, and
checkpoints and metrics in a working folder. Guarantees: the loss of an optimiser step is divided by all its targets, so
that accumulation and the number of devices change nothing; nothing is tokenised, cut or masked here; a checkpoint counts
once its marker is written, and training goes on from the newest that has one, with the same rows and random numbers.

Three places where this differs from `SFTTrainer`: the loss (`compute_loss`), its mean over the validation share (over
targets, not over batches), and that a checkpoint gets a marker instead of a model card.
"""

import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson
import torch
from datasets.arrow_dataset import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.train.arguments import adapters_of, trainer_arguments
from synthgen.train.batch import collate, collate_packed
from synthgen.train.config import StudentConfig
from synthgen.train.examples import IGNORED, Example
from synthgen.train.metrics import MetricsFile, Progress
from synthgen.train.objective import Objective
from synthgen.train.step import batch_loss, can_narrow
from synthgen.train.trackers import tensorboard_callback

__all__ = ["Engine", "Trained", "newest_checkpoint", "train_model"]

_MARKER = "complete.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """The model as it is saved. `resumed_from`: the step training went on from; `state`: its weights, where they were
    sharded over devices and are not in it."""

    model: PreTrainedModel
    steps: int
    planned_steps: int
    resumed_from: int
    loss: float | None
    validation_loss: float | None
    seconds: float
    state: Mapping[str, Tensor] | None = None

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss ended it."""
        return self.steps < self.planned_steps


class Engine(SFTTrainer):  # type: ignore[misc]  # the libraries are not followed by mypy
    """`SFTTrainer` with the loss of `objective`."""

    loss_is_scaled_for_ga = True  # divided by the targets of the whole step

    def __init__(self, objective: Objective, **arguments: object) -> None:
        super().__init__(**arguments)
        self.objective = objective
        self.model_accepts_loss_kwargs = True  # so that the targets of a step are counted, whatever the model
        self._loss_shifts_labels = True
        self._parts: dict[str, Tensor] = {}
        self._tokens = self._logged_steps = 0
        self._narrow = can_narrow(self.model)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The objective's loss of a micro-batch; the sum over a step is the step's loss."""
        assert num_items_in_batch is not None
        assert not return_outputs
        loss = batch_loss(model, self.objective, inputs, num_items_in_batch, narrow=self._narrow)
        for name, part in loss.parts.items():
            self._parts[name] = self._parts.get(name, torch.zeros_like(part)) + part
        self._tokens += _tokens(inputs)
        # Gradients are averaged over processes, and the targets are those of all of them.
        return loss.value * self.accelerator.num_processes

    def evaluation_loop(
        self,
        dataloader: torch.utils.data.DataLoader[dict[str, Tensor]],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean over all targets of the validation share, whatever batch they are in."""
        self.model.eval()
        sums: dict[str, Tensor] = {}
        count = torch.zeros((), device=self.args.device)
        rows = 0
        for batch in dataloader:
            inputs = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = batch_loss(self.model_wrapped, self.objective, inputs, 1, narrow=self._narrow)
            for name, value in {"loss": loss.value, **loss.parts}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            count += (inputs["labels"][:, 1:] != IGNORED).sum()
            rows += len(inputs["labels"])
        count = self.accelerator.reduce(count, "sum")
        metrics = {
            f"{metric_key_prefix}_{name}": float(self.accelerator.reduce(value, "sum") / count)
            for name, value in sums.items()
        }
        self.model.train()
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=rows)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The parts of the loss and the tokens since the last line, beside what the trainer logs."""
        if "loss" in logs:
            steps = max(self.state.global_step - self._logged_steps, 1)
            for name, part in self._parts.items():
                logs[name] = float(self.accelerator.reduce(part, "sum")) / steps
            logs["tokens"] = float(self._tokens) * self.accelerator.num_processes
            self._parts, self._tokens, self._logged_steps = {}, 0, self.state.global_step
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        super(SFTTrainer, self)._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            write_bytes(folder / _MARKER, orjson.dumps({"step": self.state.global_step}))


def train_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    training: Sequence[Sequence[Example]],
    validation: Sequence[Sequence[Example]],
    objective: Objective,
    config: StudentConfig,
    work: Path,
    *,
    pad_id: int,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train `model` on sequences; checkpoints and `metrics.jsonl` are in `work`, from which the same call goes on.

    Raises:
        UsageError: batch sizes do not divide, or something the file asks for is not installed.
    """
    sequences = [*training, *validation]

    def batch(rows: Sequence[Mapping[str, int]]) -> dict[str, Tensor]:
        groups = [sequences[row["index"]] for row in rows]
        if config.data.packing:
            return collate_packed(groups, pad_id)
        return collate([example for group in groups for example in group], pad_id)

    arguments, steps = trainer_arguments(config, work, len(training), bool(validation))
    resumed = newest_checkpoint(work)
    step = int(resumed.name.rpartition("-")[2]) if resumed is not None else 0
    journal = MetricsFile(work / "metrics.jsonl", step, steps, progress, first=arguments.process_index == 0)
    callbacks: list[TrainerCallback] = [journal]
    if config.evaluation.patience is not None:
        callbacks.append(EarlyStoppingCallback(config.evaluation.patience))
    if "tensorboard" in config.trackers:
        callbacks.append(tensorboard_callback(config.name))
    held_out = list(range(len(training), len(sequences)))
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # what the libraries will rename is not the user's to mend
        engine = Engine(
            objective,
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"index": list(range(len(training)))}),
            eval_dataset=Dataset.from_dict({"index": held_out}) if held_out else None,
            processing_class=tokenizer,
            data_collator=batch,
            callbacks=callbacks,
            peft_config=adapters_of(config),
        )
        engine.remove_callback(PrinterCallback)  # it writes to stdout
        result = engine.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    best = engine.state.best_metric if config.evaluation.patience is not None else journal.validation_loss
    sharded = (
        engine.is_fsdp_enabled or engine.is_deepspeed_enabled
    )  # by the file, or by accelerate's launcher
    state = engine.accelerator.get_state_dict(engine.model_wrapped) if sharded else None
    trained = engine.accelerator.unwrap_model(engine.model)
    if isinstance(trained, PeftModel) and config.lora.merge and config.method != "qlora":
        trained = trained.merge_and_unload()
    return Trained(
        trained,
        steps=result.global_step,
        planned_steps=steps,
        resumed_from=step,
        loss=journal.loss,
        validation_loss=best,
        seconds=time.monotonic() - started,
        state=state,
    )


def newest_checkpoint(work: Path) -> Path | None:
    """The last whole checkpoint; what a killed process left half-written is removed."""
    whole: list[tuple[int, Path]] = []
    for folder in sorted(work.glob("checkpoint-*")):
        if (folder / _MARKER).is_file():
            whole.append((int(folder.name.rpartition("-")[2]), folder))
        else:
            shutil.rmtree(folder, ignore_errors=True)  # each process of a distributed training does
    return max(whole)[1] if whole else None


def _tokens(inputs: Mapping[str, Tensor]) -> int:
    mask = inputs.get("attention_mask")
    return int(inputs["input_ids"].numel() if mask is None else mask.sum())
