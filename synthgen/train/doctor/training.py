"""What the engine must satisfy on a device: accumulation, resuming, kernels that change nothing, and learning.

In: a device. Out: measures. Every training is one of `train_model`, as a student's file would start it, in a temporary
folder that is removed.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import torch
from torch import Tensor

from synthgen.train.config import Method, StudentConfig
from synthgen.train.doctor.checks import Measured, Skip
from synthgen.train.doctor.facts import is_installed
from synthgen.train.doctor.model import PAD, TINY, Size, random_examples, random_model, random_tokenizer
from synthgen.train.engine import Trained, train_model
from synthgen.train.examples import Example
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.metrics import Progress
from synthgen.types import JSONValue

__all__ = ["accumulation_error", "learning", "liger_error", "resume_error", "train_random"]

_SMALL = Size(width=128, layers=2, heads=4, vocabulary=512)
_LARGE = Size(width=1024, layers=12, heads=16, vocabulary=32_000)


def accumulation_error(*, device: str) -> float:
    """Largest difference of weights between one batch of 8 rows and 4 of 2 added up, relative to the largest update.

    With plain gradient descent: an optimiser that divides by the gradient's size turns rounding into steps.
    """
    before = _weights(random_model(device="cpu"))
    whole, parts = (
        _trained(
            device,
            steps={
                "max_steps": 3,
                "batch_size": 8,
                "micro_batch": micro,
                "optimizer": "sgd",
                "learning_rate": 0.1,
            },
        )
        for micro in (8, 2)
    )
    return _difference(whole, parts) / _difference(whole, before)


def resume_error(*, device: str) -> Measured:
    """Largest difference of weights between a training gone on with and a whole one.

    The bound is what two whole ones differ by: nothing on a CPU; on a GPU, sums whose order the device does not fix.
    """
    settings: dict[str, JSONValue] = {"max_steps": 6, "batch_size": 4, "learning_rate": 1e-2}
    whole, again = (_trained(device, steps=settings, every=3) for _ in range(2))
    with _folder() as work:
        with suppress(_StoppedError):
            _trained(device, steps=settings, every=3, work=work, progress=_stopped_at(5))
        resumed = _trained(device, steps=settings, every=3, work=work)
    return Measured(_difference(whole, resumed), bound=_difference(whole, again))


def liger_error(*, device: str) -> float:
    """How much the loss of 2 steps changes with Liger's kernels, relative to it.

    Raises:
        Skip: they are not installed, or not for this device.
    """
    if device != "cuda":
        raise Skip("not run on a CPU: Liger's kernels are written in Triton and need a CUDA device")
    if not is_installed("liger_kernel"):
        raise Skip("liger-kernel is not installed")
    losses = [
        _trained_result(device, steps={"max_steps": 2, "batch_size": 8}, hardware={"liger": liger}).loss
        for liger in (False, True)
    ]
    off, on = (float("nan") if loss is None else loss for loss in losses)
    return abs(on - off) / off


def learning(*, device: str) -> Measured:
    """Loss of the last step, as a share of the first's; tokens a second and peak memory beside it.

    On a GPU 150 M parameters and packed sequences of 1,024 tokens, on a CPU a model that takes seconds.
    """
    size, steps, longest, rate = (_LARGE, 60, 256, 1e-3) if device == "cuda" else (_SMALL, 30, 48, 5e-3)
    rows = random_examples(64, vocabulary=size.vocabulary, shortest=longest // 2, longest=longest)
    packed = [rows[at : at + 4] for at in range(0, len(rows), 4)]
    told: list[Progress] = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    with _folder() as work:
        train_random(
            random_model(size, device="cpu"),
            packed,
            size,
            device,
            work,
            told.append,
            steps={"max_steps": steps, "batch_size": 8, "learning_rate": rate},
            hardware={"precision": "auto"},
            data={"packing": True, "max_length": 4 * longest},
        )
        lines = [orjson.loads(line) for line in (work / "metrics.jsonl").read_bytes().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident_bytes()
    details = {
        "tokens_per_s": told[-1].tokens_per_s,
        "peak_memory_bytes": float(peak),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds": time.monotonic() - started,
    }
    return Measured(losses[-1] / losses[0], details=details)


class _StoppedError(Exception):
    """Our own interruption."""


def _stopped_at(step: int) -> Callable[[Progress], None]:
    def stop(now: Progress) -> None:
        if now.step == step:
            raise _StoppedError

    return stop


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="synthgen-doctor-") as name:
        yield Path(name)


def _trained(
    device: str,
    *,
    steps: Mapping[str, JSONValue],
    every: int | None = None,
    work: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Tensor]:
    if work is None:
        with _folder() as made:
            return _trained(device, steps=steps, every=every, work=made, progress=progress)
    evaluation: dict[str, JSONValue] = {} if every is None else {"every": every}
    return _weights(
        _trained_result(device, steps=steps, evaluation=evaluation, work=work, progress=progress).model
    )


def _trained_result(
    device: str,
    *,
    steps: Mapping[str, JSONValue],
    work: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    **sections: Mapping[str, JSONValue],
) -> Trained:
    if work is None:
        with _folder() as made:
            return _trained_result(device, steps=steps, work=made, progress=progress, **sections)
    rows = random_examples(16, vocabulary=TINY.vocabulary, shortest=6, longest=24)
    groups = [[row] for row in rows]
    return train_random(
        random_model(device="cpu"),
        groups,
        TINY,
        device,
        work,
        progress,
        method="full",
        steps=steps,
        **sections,
    )


def train_random(
    model: torch.nn.Module,
    groups: list[list[Example]],
    size: Size,
    device: str,
    work: Path,
    progress: Callable[[Progress], None] | None,
    *,
    method: Method = "full",
    **sections: Mapping[str, JSONValue],
) -> Trained:
    """A training of `train_model` with sections of a student's file; in single precision unless they say otherwise."""
    hardware = {"device": device, "liger": False, **sections.pop("hardware", {})}
    config = StudentConfig.model_validate(
        {
            "name": "doctor",
            "base": "random",
            "method": method,
            "hardware": {"precision": "fp32", **hardware},
            **sections,
        }
    )
    return train_model(
        model,
        random_tokenizer(size.vocabulary),
        groups,
        [],
        Distillation(LossConfig()),
        config,
        work,
        pad_id=PAD,
        progress=progress,
    )


def _weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().float().cpu().clone() for name, value in model.state_dict().items()}


def _difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def _resident_bytes() -> int:
    """Most this process ever held."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024  # KiB but for macOS
