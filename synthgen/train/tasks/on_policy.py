"""The whole way of an on-policy student: prompts in, a checkpoint out.

TRL trains; a killed training starts again, since its generations are nobody's to keep.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import torch

from synthgen.dataset import write_bytes
from synthgen.errors import UsageError
from synthgen.train.base import load_base, require_base
from synthgen.train.checkpoints import find_checkpoint
from synthgen.train.config import Loaded, StudentConfig
from synthgen.train.metrics import MetricsFile, Progress
from synthgen.train.on_policy import on_policy_trainer, require_trl
from synthgen.train.plot import loss_svg
from synthgen.train.reading import read_dataset
from synthgen.train.student_folder import allowed, report_of, request_of
from synthgen.train.tasks.config import OnPolicyStudent
from synthgen.train.tasks.folder import TaskReport, publish
from synthgen.types import Message

__all__ = ["train_on_policy"]


def train_on_policy(
    loaded: Loaded[OnPolicyStudent],
    dataset: Path,
    out: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> TaskReport:
    """Train the student of a file on the questions of a dataset; its answers are not read.

    Raises:
        UsageError: teacher, server and student do not fit together.
        SourceError: data, teacher or base cannot be read.
        PolicyError: the data may not be used so, or the student's name breaks a duty.
        StorageError: the disk refuses.
    """
    require_trl()
    config = loaded.config
    require_base(loaded)
    data = read_dataset(dataset)
    request = request_of(loaded, data.digest)
    if (there := report_of(out, request, TaskReport)) is not None:
        return there
    allowed(loaded, data)
    prompts = _prompts([one.messages for one in data.conversations])
    shared = config.model_dump(include={"name", "base", "revision", "seed"})
    written = Loaded(
        StudentConfig.model_validate(shared), loaded.document, loaded.folder, loaded.text, loaded.digest
    )
    base = load_base(written)
    settings = config.on_policy.model_copy(
        update={
            "teacher": find_checkpoint(config.on_policy.teacher, loaded.path),
            "cpu": config.on_policy.cpu or not torch.cuda.is_available(),
            "seed": config.seed,
        }
    )
    with TemporaryDirectory(prefix="synthgen-on-policy-") as work:
        metrics = MetricsFile(Path(work) / "metrics.jsonl", 0, settings.max_steps, progress, first=True)
        with warnings.catch_warnings():
            for kind in (DeprecationWarning, FutureWarning):
                # What the libraries will rename is not the user's to mend.
                warnings.simplefilter("ignore", kind)
            trainer = on_policy_trainer(
                base.model, base.tokenizer, prompts, settings, Path(work), callbacks=[metrics]
            )
            result = trainer.train()
        lines = (Path(work) / "metrics.jsonl").read_bytes()
    numbers = {"steps": float(result.global_step), "loss": float(result.training_loss)}
    report = TaskReport(out, config.task, True, len(prompts), 0, {}, numbers, allowed(loaded, data))

    def write(folder: Path) -> None:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        write_bytes(folder / "metrics.jsonl", lines)
        curve = loss_svg(map(orjson.loads, lines.splitlines()), title=config.name)
        write_bytes(folder / "loss.svg", curve.encode())

    return publish(report, loaded, data, request, write, pipeline="text-generation")


def _prompts(conversations: list[tuple[Message, ...]]) -> list[tuple[Message, ...]]:
    """What was said before each last answer, each once."""
    found = []
    for messages in conversations:
        answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
        found.append(messages[: answers[-1]] if answers else messages)
    prompts = [prompt for prompt in dict.fromkeys(found) if prompt]
    if not prompts:
        raise UsageError("no conversation asks anything")
    return prompts
