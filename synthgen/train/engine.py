"""The engine: TRL's `SFTTrainer`, told what to compute.

In: a model, its tokenizer, sequences of examples that were masked before, an `Objective`. Out: the trained model, and
checkpoints and metrics in a working folder. Guarantees: the loss of an optimiser step is divided by all its targets, so
that accumulation and the number of devices change nothing; nothing is tokenised, cut or masked here; a checkpoint counts
once its marker is written, and training goes on from the newest that has one, with the same rows and random numbers.

Three places where this differs from `SFTTrainer`: the loss (`compute_loss`), its mean over the validation share (over
targets, not over batches), and that a checkpoint gets a marker instead of a model card.
"""

import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import orjson
import torch
from datasets.arrow_dataset import Dataset
from peft import LoraConfig as PeftLora
from peft import PeftModel
from torch import Tensor
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from synthgen.dataset import write_bytes
from synthgen.errors import UsageError
from synthgen.train.batch import collate, collate_packed
from synthgen.train.config import StudentConfig
from synthgen.train.examples import IGNORED, Example
from synthgen.train.launch import LAUNCH, launch_path
from synthgen.train.objective import Objective
from synthgen.train.step import batch_loss, can_narrow
from synthgen.train.trackers import tensorboard_callback
from synthgen.types import JSONValue

__all__ = ["Engine", "Progress", "Trained", "newest_checkpoint", "precision_of", "train_model"]

_MARKER = "complete.json"
_EVALUATIONS = 10  # of a training, where `evaluation.every` is not given
_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "sgd": "sgd",
    "adafactor": "adafactor",
    "adamw_8bit": "adamw_bnb_8bit",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands; `tokens_per_s` counts every token the model reads, padding not."""

    step: int
    steps: int
    epoch: float
    loss: float | None
    validation_loss: float | None
    tokens_per_s: float
    remaining_s: float


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

    arguments, steps = _arguments(config, work, len(training), bool(validation))
    resumed = newest_checkpoint(work)
    step = int(resumed.name.rpartition("-")[2]) if resumed is not None else 0
    journal = _Journal(work / "metrics.jsonl", step, steps, progress, first=arguments.process_index == 0)
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
            peft_config=None if config.method == "full" else _adapters(config),
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


def precision_of(config: StudentConfig) -> torch.dtype:
    """What is computed in: bf16 where the device has it and nothing else is asked for.

    Raises:
        UsageError: there is no such device.
    """
    cuda = torch.cuda.is_available()
    if config.hardware.device == "cuda" and not cuda:
        raise UsageError(
            "hardware.device: cuda, but torch sees none: install a CUDA build of torch, or set cpu"
        )
    if config.hardware.precision != "auto":
        return torch.float32 if config.hardware.precision == "fp32" else torch.bfloat16
    on_gpu = cuda and config.hardware.device != "cpu"
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32


def _arguments(config: StudentConfig, work: Path, sequences: int, evaluates: bool) -> tuple[SFTConfig, int]:
    cpu = config.hardware.device == "cpu" or not torch.cuda.is_available()
    processes = TrainingArguments(output_dir=str(work), use_cpu=cpu, report_to="none", bf16=False).world_size
    batch = config.steps.batch_size
    micro = config.steps.micro_batch or max(batch // processes, 1)
    if batch % (micro * processes):
        raise UsageError(
            f"steps.batch_size {batch} is not divisible by {processes} processes of steps.micro_batch {micro} rows"
        )
    steps = config.steps.max_steps or math.ceil(config.steps.epochs * math.ceil(sequences / batch))
    every = config.evaluation.every or max(steps // _EVALUATIONS, 1)
    keeps_best = config.evaluation.patience is not None
    arguments = SFTConfig(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=batch // (micro * processes),
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.steps.schedule,
        warmup_steps=config.warmup_steps(steps),
        weight_decay=config.steps.weight_decay,
        max_grad_norm=config.steps.max_grad_norm,
        optim=_optimizer(config),
        bf16=precision_of(config) == torch.bfloat16 and config.hardware.precision != "pure-bf16",
        activation_checkpointing=config.hardware.checkpointing,
        use_liger_kernel=_liger(config, cpu),
        fsdp=True if config.hardware.fsdp else None,
        deepspeed=_deepspeed(config),
        use_cpu=cpu,
        logging_steps=1,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=max(config.evaluation.keep_checkpoints, 2),  # one stays while the next is written
        load_best_model_at_end=keeps_best,
        metric_for_best_model="eval_loss" if keeps_best else None,
        greater_is_better=False if keeps_best else None,
        restore_callback_states_from_checkpoint=True,
        seed=config.seed,
        data_seed=config.seed,
        report_to=[name for name in config.trackers if name != "tensorboard"] or "none",
        run_name=config.name,
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=not cpu,
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return arguments, steps


def _optimizer(config: StudentConfig) -> str:
    if config.steps.optimizer == "adamw_8bit" and find_spec("bitsandbytes") is None:
        raise UsageError(
            "steps.optimizer: adamw_8bit needs the package bitsandbytes: pip install bitsandbytes"
        )
    return _OPTIMIZERS[config.steps.optimizer]


def _liger(config: StudentConfig, cpu: bool) -> bool:
    wanted = config.hardware.liger
    missing = [name for name in ("liger_kernel", "triton") if find_spec(name) is None]
    if wanted is True and cpu:
        raise UsageError(
            "hardware.liger: its Triton kernels run on GPUs alone, and torch uses none: set auto or false"
        )
    if wanted is True and missing:
        raise UsageError(
            f"hardware.liger: {' and '.join(missing)} cannot be found: pip install liger-kernel, or set auto or false"
        )
    return wanted is not False and not missing and not cpu


def _deepspeed(config: StudentConfig) -> str | None:
    named = config.hardware.deepspeed
    if named is None:
        return None
    if find_spec("deepspeed") is None:
        raise UsageError(
            "hardware.deepspeed needs the package deepspeed: pip install deepspeed, or set hardware.fsdp: true"
        )
    return str(launch_path(named)) if named in LAUNCH else named


def _adapters(config: StudentConfig) -> PeftLora:
    lora = config.lora
    return PeftLora(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )


class _Journal(TrainerCallback):  # type: ignore[misc]  # as above
    """`metrics.jsonl`, a line for each step and evaluation, and the caller's progress."""

    def __init__(
        self,
        path: Path,
        step: int,
        steps: int,
        progress: Callable[[Progress], None] | None,
        *,
        first: bool,
    ) -> None:
        self._path, self._first, self._steps, self._progress = path, step, steps, progress
        self._tokens = 0.0
        self._started: float | None = None
        self.loss: float | None = None
        self.validation_loss: float | None = None
        lines = path.read_bytes().splitlines() if path.is_file() else []
        kept = [line for line in lines if _step(line) <= step]
        for line in kept:
            self._note(orjson.loads(line))
        if first:
            write_bytes(path, b"".join(line + b"\n" for line in kept))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, JSONValue] | None = None,
        **rest: object,
    ) -> None:
        """Write the line, tell the caller."""
        if not logs or not state.is_world_process_zero or "train_runtime" in logs:
            return
        self._note(logs)
        with self._path.open("ab") as file:
            file.write(orjson.dumps({"step": state.global_step, **logs}) + b"\n")
        tokens = logs.get("tokens")
        self._tokens += float(tokens) if isinstance(tokens, int | float) else 0.0
        if self._progress is not None and self._started is not None:
            elapsed = max(time.monotonic() - self._started, 1e-9)
            done = max(state.global_step - self._first, 1)
            self._progress(
                Progress(
                    state.global_step,
                    self._steps,
                    float(state.epoch or 0),
                    self.loss,
                    self.validation_loss,
                    self._tokens / elapsed,
                    elapsed / done * (self._steps - state.global_step),
                )
            )

    def _note(self, logs: Mapping[str, JSONValue]) -> None:
        loss, validation = logs.get("loss"), logs.get("eval_loss")
        self.loss = float(loss) if isinstance(loss, int | float) else self.loss
        self.validation_loss = (
            float(validation) if isinstance(validation, int | float) else self.validation_loss
        )


def _step(line: bytes) -> float:
    """Of a line of metrics; a torn last line counts as the future."""
    try:
        return float(orjson.loads(line)["step"])
    except (orjson.JSONDecodeError, KeyError):
        return math.inf


def _tokens(inputs: Mapping[str, Tensor]) -> int:
    mask = inputs.get("attention_mask")
    return int(inputs["input_ids"].numel() if mask is None else mask.sum())
