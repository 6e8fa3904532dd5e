"""From a trained model to a student's folder.

In: the model, and everything it was made from. Out: the folder: checkpoint, tokenizer, card, metrics and their curve, the
sample, the student's file, and `student.json`. Guarantees: the folder appears by one rename, `student.json` is written last;
a loss that is no number saves nothing; the checkpoint ends its answers where training ended them, and holds no projector and
no path of this machine.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import orjson

from synthgen.assets import package_version
from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.errors import StorageError, UsageError
from synthgen.train.adapters import merged_from_disk
from synthgen.train.arguments import precision_of
from synthgen.train.base import Base, source_of, without_machine_traces
from synthgen.train.card import Lineage, student_card
from synthgen.train.config import LoadedStudent
from synthgen.train.distilling import without_projectors
from synthgen.train.engine import Trained
from synthgen.train.plot import loss_svg
from synthgen.train.preparing import Prepared
from synthgen.train.reading import Dataset
from synthgen.train.student_folder import MANIFEST, file_digests
from synthgen.train.template import ChatFormat
from synthgen.train.tokenizers import tokenizer_digest
from synthgen.types import JSONValue

__all__ = ["StudentReport", "report_on", "save_student"]

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")


@dataclass(frozen=True, slots=True)
class StudentReport:
    """What came of it. `trained` is False where the student was there already; `refused` counts rows by reason."""

    out: Path
    trained: bool
    examples: int
    validation_examples: int
    refused: Mapping[str, int]
    tokens: int
    targets: int
    steps: int
    planned_steps: int
    resumed_from: int
    loss: float | None
    validation_loss: float | None
    seconds: float
    obligations: tuple[str, ...]


def report_on(out: Path, prepared: Prepared, trained: Trained, obligations: tuple[str, ...]) -> StudentReport:
    """The report of a training that has ended.

    Raises:
        UsageError: its loss is no number.
    """
    examples = prepared.examples
    if trained.loss is not None and not math.isfinite(trained.loss):
        raise UsageError(
            f"the loss became {trained.loss}: lower steps.learning_rate; the training is kept, nothing was saved"
        )
    return StudentReport(
        out,
        True,
        len(examples),
        sum(map(len, prepared.validation)),
        dict(prepared.refused),
        sum(map(len, examples)),
        sum(example.targets for example in examples),
        trained.steps,
        trained.planned_steps,
        trained.resumed_from,
        trained.loss,
        trained.validation_loss,
        trained.seconds,
        obligations,
    )


def save_student(
    report: StudentReport,
    loaded: LoadedStudent,
    data: Dataset,
    base: Base,
    format: ChatFormat,
    trained: Trained,
    sample: str,
    request: Mapping[str, JSONValue],
    work: Path,
) -> None:
    """Write the folder beside its place, move it there, and remove the training's.

    Raises:
        StorageError: the disk refuses; the training is kept.
    """
    staging = report.out.with_name(f".{report.out.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        _save_model(loaded, trained, format, staging)
        shutil.copyfile(work / "metrics.jsonl", staging / "metrics.jsonl")
        lines = map(orjson.loads, (work / "metrics.jsonl").read_bytes().splitlines())
        write_bytes(staging / "loss.svg", loss_svg(lines, title=loaded.config.name).encode())
        write_bytes(staging / "sample.txt", sample.encode())
        write_bytes(staging / "student.yaml", loaded.text.encode())
        lineage = Lineage(
            loaded.config.name,
            base.name,
            base.revision,
            _dataset_name(data),
            data.digest,
            loaded.config.method,
            report.obligations,
            known=data.folder is not None,
        )
        write_bytes(staging / "README.md", student_card(lineage, _numbers(report)).encode())
        manifest = {
            "synthgen": package_version(),
            "request": request,
            "base": {"name": base.name, "revision": base.revision},
            "dataset": {"name": _dataset_name(data), "digest": data.digest, "files": dict(data.files)},
            "tokenizer_sha256": tokenizer_digest(base.tokenizer),
            "chat_template_sha256": format.template_digest,
            "libraries": {name: version(name) for name in _LIBRARIES},
            "config": loaded.config.model_dump(mode="json"),
            "report": {**asdict(report), "out": None},
            "files": file_digests(staging),
        }
        write_bytes(staging / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        if report.out.is_dir():
            report.out.rmdir()  # it was empty
        staging.rename(report.out)
    except OSError as error:
        raise StorageError(
            f"{staging}: {error.strerror or error}; the training is kept: run again"
        ) from error
    shutil.rmtree(work, ignore_errors=True)


def _save_model(loaded: LoadedStudent, trained: Trained, format: ChatFormat, folder: Path) -> None:
    model = without_projectors(trained.model)
    if loaded.config.method == "qlora" and loaded.config.lora.merge:
        model = merged_from_disk(
            model,
            source_of(loaded),
            dtype=precision_of(loaded.config),
            trust_remote_code=loaded.config.trust_remote_code,
            revision=loaded.config.revision,
        )
    if loaded.config.method != "qlora" and hasattr(model, "config"):
        model.to(precision_of(loaded.config))
        model.config.use_cache = True  # off while activations were recomputed
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        stops = generation.eos_token_id
        known = stops if isinstance(stops, list) else [stops] if stops is not None else []
        if format.stop_id not in known:
            generation.eos_token_id = [format.stop_id, *known]
    state = None
    if trained.state is not None:
        state = {name: value for name, value in trained.state.items() if "synthgen_projectors" not in name}
    model.save_pretrained(folder, state_dict=state)
    format.tokenizer.save_pretrained(folder)
    without_machine_traces(folder)


def _dataset_name(data: Dataset) -> str:
    name = data.manifest.get("name")
    return name if isinstance(name, str) else ", ".join(sorted(data.files))


def _numbers(report: StudentReport) -> dict[str, str]:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    return {
        "examples": f"{report.examples:,}",
        "tokens, and those trained on": f"{report.tokens:,}, {report.targets:,}",
        "optimiser steps": f"{report.steps:,} of {report.planned_steps:,}",
        "loss of the last step": shown(report.loss),
        "validation loss": shown(report.validation_loss),
    }
