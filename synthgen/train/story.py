"""The whole way of a student: dataset in, folder out.

In: a student's file, a dataset, a place. Out: a folder with the checkpoint, its card, its metrics, and `student.json`,
which says what it was made from. Guarantees: the duties of the data's policy are checked before the first step and again
before anything is saved; the folder appears at once, and `student.json` is the last file written into it; the same
command goes on where it was killed, and does nothing once the student is there.

A training lives in `.NAME.training` beside the folder until it is finished.
"""

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import orjson
from transformers import PreTrainedTokenizerBase

from synthgen.assets import package_version
from synthgen.dataset import write_bytes
from synthgen.errors import StorageError, UsageError
from synthgen.journal import lock_run
from synthgen.train.adapters import merged_from_disk
from synthgen.train.audit import Audited, audit, marked
from synthgen.train.base import Base, context_of, load_base, source_of, without_machine_traces
from synthgen.train.card import Lineage, student_card
from synthgen.train.config import LoadedStudent, StudentConfig
from synthgen.train.distilling import objective_for, soft_examples, without_projectors
from synthgen.train.engine import Progress, Trained, newest_checkpoint, precision_of, train_model
from synthgen.train.examples import Example
from synthgen.train.packing import pack
from synthgen.train.plot import loss_svg
from synthgen.train.probe import require_separation
from synthgen.train.reading import Dataset, read_dataset, split
from synthgen.train.student_folder import MANIFEST, allowed, file_digests, report_of, request_of
from synthgen.train.template import ChatFormat, chat_format
from synthgen.train.tokenizers import tokenizer_digest
from synthgen.train.trackers import require_trackers
from synthgen.types import JSONValue

__all__ = ["StudentReport", "is_student", "packed_lengths", "template_of", "train"]

_PACKED_TOKENS = 1024  # of a packed sequence, where `data.max_length` is not given and rows are shorter
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")

Say = Callable[[str], None]


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


def is_student(folder: Path) -> bool:
    """Whether the folder holds a finished student."""
    return (folder / MANIFEST).is_file()


def train(
    loaded: LoadedStudent,
    dataset: Path,
    out: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
    say: Say | None = None,
) -> StudentReport:
    """Train the student of a file on a dataset; `say` gets the warnings and the sample worth reading before step 1.

    Raises:
        UsageError: the file, the data and the base do not fit together; what to change is in the message.
        SourceError: data or base cannot be read.
        PolicyError: the data may not be used so, or the student's name breaks a duty.
        StorageError: the disk refuses, or another process trains this student.
    """
    tell: Say = say if say is not None else _nothing
    data = read_dataset(dataset, limit=loaded.config.data.limit)
    request = request_of(loaded, data.digest)
    if (there := report_of(out, request, StudentReport)) is not None:
        shutil.rmtree(_work(out), ignore_errors=True)  # left by a kill behind the rename
        return there
    obligations = allowed(loaded, data)
    require_trackers(loaded.config.trackers)
    base = load_base(loaded)
    format = chat_format(base.tokenizer, template_of(loaded))
    prepared = _prepare(loaded, data, base, format)
    sample = marked(prepared.training[0][0], format)
    tell(f"the first sequence; what is trained on stands between « and »:\n{sample}")
    work = _work(out)
    release = lock_run(work) if _is_first() else _nothing_to_release
    try:
        _claim(work, request)
        trained = _train(loaded, base, format, prepared, work, progress)
        obligations = allowed(loaded, data)
        report = _report(out, prepared, trained, obligations)
        if _is_first():
            _save(report, loaded, data, base, format, trained, sample, request, work)
    finally:
        release()
    return report


def _work(out: Path) -> Path:
    return out.with_name(f".{out.name}.training")


def _nothing(text: str) -> None:
    pass


def _nothing_to_release() -> None:
    pass


def _is_first() -> bool:
    """Of the processes of a distributed training, the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


# ---- before


def _claim(work: Path, request: Mapping[str, JSONValue]) -> None:
    """A training that has got to its first checkpoint is gone on with only if it is this one."""
    path = work / "request.json"
    if path.is_file() and newest_checkpoint(work) is not None:
        before = orjson.loads(path.read_bytes())
        other = [part for part, value in request.items() if before.get(part) != value]
        if other:
            raise UsageError(
                f"{work}: holds an unfinished training with another {' and '.join(other)}: "
                "give it back its files, remove that folder, or name another one with -o"
            )
    elif _is_first():
        (work / "metrics.jsonl").unlink(missing_ok=True)
        write_bytes(path, orjson.dumps(request))


def template_of(loaded: LoadedStudent) -> str | None:
    """The chat template the file names; None: the base's own."""
    named = loaded.config.data.chat_template
    if named is None:
        return None
    path = loaded.path(named)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{loaded.where('data', 'chat_template')}: {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Sequences as the engine takes them: one example each, or packed groups."""

    training: Sequence[Sequence[Example]]
    validation: Sequence[Sequence[Example]]
    refused: Mapping[str, int]

    @property
    def examples(self) -> list[Example]:
        return [example for group in self.training for example in group]


def _prepare(loaded: LoadedStudent, data: Dataset, base: Base, format: ChatFormat) -> _Prepared:
    config = loaded.config
    held_out = {
        one.id for one in split(data.conversations, config.data.validation_share, seed=config.seed)[1]
    }
    audited = audit(data.conversations, format, config.data, context=context_of(base.model))
    if config.loss.kd is not None:
        audited = _softened(loaded, audited, data, base.tokenizer)
    training = [example for example in audited.examples if example.id not in held_out]
    validation = [example for example in audited.examples if example.id in held_out]
    if not training or (held_out and not validation):
        raise UsageError(
            f"nothing is left to {'validate on' if training else 'train on'}: {dict(audited.refused)}"
        )
    if not config.data.packing:
        return _Prepared([[one] for one in training], [[one] for one in validation], audited.refused)
    require_separation(base.model, training)
    room = _room(config, audited.examples)
    return _Prepared(_packed(training, room), _packed(validation, room), audited.refused)


def _room(config: StudentConfig, examples: Sequence[Example]) -> int:
    return config.data.max_length or max(_PACKED_TOKENS, *map(len, examples))


def packed_lengths(config: StudentConfig, examples: Sequence[Example]) -> list[int]:
    """Tokens of each sequence the engine would get."""
    if not config.data.packing:
        return list(map(len, examples))
    return [sum(map(len, group)) for group in _packed(examples, _room(config, examples))]


def _softened(
    loaded: LoadedStudent, audited: Audited, data: Dataset, tokenizer: PreTrainedTokenizerBase
) -> Audited:
    kd = loaded.config.loss.kd
    assert kd is not None
    labelled = soft_examples(kd, audited.examples, tokenizer, run=data.folder, path=loaded.path)
    missed = {f"soft_labels:{reason}": count for reason, count in labelled.misfits.items()}
    return Audited(labelled.examples, {**audited.refused, **missed})


def _packed(examples: Sequence[Example], room: int) -> list[list[Example]]:
    return [[examples[at] for at in group] for group in pack(list(map(len, examples)), room)]


def _train(
    loaded: LoadedStudent,
    base: Base,
    format: ChatFormat,
    prepared: _Prepared,
    work: Path,
    progress: Callable[[Progress], None] | None,
) -> Trained:
    objective = objective_for(loaded.config.loss, base.model, base.tokenizer, path=loaded.path)
    if objective.maps is not None and loaded.config.method != "full":
        raise UsageError(
            f"{loaded.where('loss', 'features')}: teacher and student differ in width, so projectors are trained too, "
            "which adapters do not hold: use method: full"
        )
    return train_model(
        base.model,
        base.tokenizer,
        prepared.training,
        prepared.validation,
        objective,
        loaded.config,
        work,
        pad_id=format.pad_id,
        progress=progress,
    )


# ---- after


def _report(out: Path, prepared: _Prepared, trained: Trained, obligations: tuple[str, ...]) -> StudentReport:
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


def _save(
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
