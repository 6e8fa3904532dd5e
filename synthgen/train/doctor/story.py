"""All checks, in order, and their report.

In: a device, or none to take the best there is. Out: `DoctorReport`, which is also what is written as JSON.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import count

import torch

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.train.config import Method
from synthgen.train.doctor import adapters, model, numerics, training
from synthgen.train.doctor.checks import Check, Result, examined
from synthgen.train.doctor.facts import Device, device_facts, versions
from synthgen.train.losses import topk_kl
from synthgen.types import JSONValue

__all__ = ["DoctorReport", "all_checks", "run_doctor"]

_POSITIONS, _VOCABULARY = 32, 400
_KS = (1, 2, 5, 20, 100, 399)


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """`passed` is False if one check failed; skipped ones count for nothing."""

    passed: bool
    device: Device
    versions: dict[str, str | None]
    at: str
    seconds: float
    checks: tuple[Result, ...]

    def as_json(self) -> dict[str, JSONValue]:
        """The report's file; `version` is that of its form."""
        return {"version": 1, **asdict(self)}


def run_doctor(
    device: str | None = None,
    *,
    checks: Sequence[Check] | None = None,
    told: Callable[[Result], None] | None = None,
) -> DoctorReport:
    """Examine a device; `told` hears every result as it comes.

    Raises:
        UsageError: there is no such device.
    """
    cuda = torch.cuda.is_available()
    chosen = device or ("cuda" if cuda else "cpu")
    if chosen not in ("cuda", "cpu"):
        raise UsageError(f"train doctor: --device {chosen}: cuda or cpu")
    if chosen == "cuda" and not cuda:
        raise UsageError("train doctor: --device cuda, but torch sees none: install a CUDA build of torch")
    results = []
    for check in all_checks(chosen) if checks is None else checks:
        results.append(examined(check))
        if told is not None:
            told(results[-1])
    return DoctorReport(
        all(result.status != "fail" for result in results),
        device_facts(chosen),
        versions(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        sum(result.seconds for result in results),
        tuple(results),
    )


def all_checks(device: str) -> list[Check]:
    """Cheap ones first. Bounds in float64 are rounding; in float32, what sums in another order were seen to differ by,
    with room for other kernels; in bf16, the 8 bits it has."""
    return [*_of_losses(device), *_of_model(device), *_of_engine(device)]


def _of_losses(device: str) -> Iterator[Check]:
    seeds = count(1)

    def logits(positions: int = _POSITIONS, width: int = _VOCABULARY) -> torch.Tensor:
        generator = torch.Generator().manual_seed(next(seeds))
        return (3 * torch.randn(positions, width, generator=generator, dtype=torch.float64)).to(device)

    student, teacher, few = logits(), logits(), (logits(3, 12), logits(3, 12))
    ids, logprobs = numerics.stored(few[1], 4)

    yield Check(
        "kd.gradient",
        "gradient of the top-k loss against central differences",
        1e-6,
        lambda: numerics.gradient_error(lambda x: topk_kl(x, ids, logprobs), few[0]),
    )
    yield Check(
        "kd.bound",
        "top-k loss above the whole divergence",
        1e-10,
        partial(numerics.above_exact, student, teacher, _KS),
    )
    yield Check(
        "kd.monotone",
        "fall of the top-k loss with more tokens",
        1e-10,
        partial(numerics.monotony_error, student, teacher, _KS),
    )
    yield Check(
        "kd.exact",
        "top-k loss with all tokens but one against the whole divergence",
        1e-10,
        partial(numerics.exactness_error, student, teacher),
    )
    yield Check(
        "kd.chunked",
        "loss and gradient in chunks against at once, float32",
        1e-6,
        partial(numerics.chunk_error, student.float(), teacher.float(), k=20, positions=7),
    )


def _of_model(device: str) -> Iterator[Check]:
    for attention in model.ATTENTION:
        yield Check(
            f"packing.{attention}",
            "loss of a packed row against its loss alone, relative",
            2e-2 if attention.startswith("flash") else 1e-4,
            partial(model.packing_error, attention, device=device),
        )
    yield Check(
        "precision.bf16",
        "loss in bf16 against float32, relative",
        2e-2,
        partial(model.bf16_error, device=device),
    )
    yield Check(
        "optimizer.fused",
        "weights by fused AdamW against plain, relative to the update",
        1e-3,
        partial(model.fused_error, device=device),
    )
    yield Check(
        "compile", "compiled top-k loss against plain", 1e-4, partial(model.compile_error, device=device)
    )


def _of_engine(device: str) -> Iterator[Check]:
    yield Check(
        "training.accumulation",
        "weights by 4 x 2 rows against 1 x 8, relative to the update",
        1e-3,
        partial(training.accumulation_error, device=device),
    )
    yield Check(
        "training.resume",
        "weights of a resumed training against a whole one",
        0.0,
        partial(training.resume_error, device=device),
    )
    yield Check(
        "training.liger",
        "loss with Liger's kernels against without, relative",
        2e-2,
        partial(training.liger_error, device=device),
    )
    methods: tuple[Method, ...] = ("lora", "qlora")
    for method in methods:
        yield Check(
            f"training.{method}",
            "loss of the last step of adapters, share of the first",
            0.9,
            partial(adapters.adapters_learning, method, device=device),
        )
    yield Check(
        "devices.nccl",
        "sum over all GPUs against what it has to be",
        0.0,
        partial(adapters.exchange_error, device=device),
    )
    yield Check(
        "training.learning",
        "loss of the last step, share of the first",
        0.5,
        partial(training.learning, device=device),
    )
