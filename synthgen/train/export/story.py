"""Exports a student and looks at it before anybody else does.

In: a checkpoint, a format, and prompts of the task it learnt. Out: a file or folder, and `ExportReport`, which is also
written beside it as `NAME.export.json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import orjson

from synthgen.assets import suggest
from synthgen.dataclasses import dataclass
from synthgen.dataset import open_inputs, write_bytes
from synthgen.errors import CriteriaNotMet, UsageError
from synthgen.schema import RecordShape
from synthgen.train.export.agreement import Agreement, compare
from synthgen.train.export.gguf_file import GGUF_TYPES, GgufType, write_gguf
from synthgen.train.export.openvino_model import OPENVINO_TYPES, OpenvinoType, write_openvino
from synthgen.types import Message

__all__ = ["FORMATS", "ExportReport", "export_student", "first_prompts"]

FORMATS = (*(f"gguf:{kind}" for kind in GGUF_TYPES), *(f"openvino:{kind}" for kind in OPENVINO_TYPES))


@dataclass(frozen=True, slots=True)
class ExportReport:
    """`agreement` is None where no prompts were given."""

    checkpoint: str
    exported: str
    format: str
    size_bytes: int
    agreement: Agreement | None


def first_prompts(dataset: Path, count: int) -> list[tuple[Message, ...]]:
    """Of the first `count` records, what stands before their last answer.

    Of a run the test split where it has one, because the student has not seen it.

    Raises:
        SourceError: the dataset cannot be read.
    """
    held_out = sorted((dataset / "data").glob("test-*.parquet")) if dataset.is_dir() else []
    inputs = held_out or [dataset / "data" if (dataset / "data").is_dir() else dataset]
    rows = (row for batch in open_inputs(inputs, RecordShape()) for row in batch.frame["messages"].to_list())
    return [_before_the_answer(row) for row in islice(rows, count)]


def _before_the_answer(messages: Sequence[Mapping[str, str]]) -> tuple[Message, ...]:
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    return tuple(
        Message("system" if message["role"] == "system" else _speaker(message["role"]), message["content"])
        for message in messages[: answers[-1] if answers else None]
    )


def _speaker(role: str) -> Literal["user", "assistant"]:
    return "assistant" if role == "assistant" else "user"


def export_student(
    checkpoint: Path,
    target: Path,
    format: str,
    *,
    prompts: Sequence[Sequence[Message]] = (),
    least: float = 0.0,
    max_tokens: int = 128,
) -> ExportReport:
    """Write `checkpoint` as `target` in one of `FORMATS`, and compare the answers to `prompts`.

    Raises:
        UsageError: unknown format, the target exists, or the checkpoint cannot be written so.
        CriteriaNotMet: fewer than `least` (0..1) of the answers agree; the export and its report stay.
    """
    if format not in FORMATS:
        raise UsageError(
            f"unknown format {format!r}{suggest(format, list(FORMATS))}; allowed: {', '.join(FORMATS)}"
        )
    if target.exists():
        raise UsageError(f"{target} exists; name a new place")
    kind = format.partition(":")[2]
    if format.startswith("gguf:"):
        write_gguf(checkpoint, target, cast(GgufType, kind))
    else:
        write_openvino(checkpoint, target, cast(OpenvinoType, kind))
    agreement = compare(checkpoint, target, prompts, max_tokens=max_tokens) if prompts else None
    files = [target] if target.is_file() else sorted(target.iterdir())
    size = sum(file.stat().st_size for file in files)
    report = ExportReport(str(checkpoint), str(target), format, size, agreement)
    write_bytes(
        target.with_name(f"{target.name}.export.json"),
        orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2),
    )
    if agreement is not None and agreement.same < least * agreement.prompts:
        first = agreement.differences[0]
        raise CriteriaNotMet(
            f"{target}: {agreement.same} of {agreement.prompts} answers are those of {checkpoint}, wanted {least:.0%}; "
            f"first difference: {first.checkpoint[:80]!r} became {first.exported[:80]!r}"
        )
    return report
