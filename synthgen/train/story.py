"""The whole way of a student: dataset in, folder out.

In: a student's file, a dataset, a place. Out: a folder with the checkpoint, its card, its metrics, and `student.json`,
which says what it was made from. Guarantees: the duties of the data's policy are checked before the first step and again
before anything is saved; the folder appears at once, and `student.json` is the last file written into it; the same
command goes on where it was killed, and does nothing once the student is there.

A training lives in `.NAME.training` beside the folder until it is finished.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from synthgen.dataset import write_bytes
from synthgen.errors import UsageError
from synthgen.journal import lock_run
from synthgen.train.audit import marked
from synthgen.train.base import Base, load_base, require_base
from synthgen.train.config import LoadedStudent
from synthgen.train.distilling import objective_for
from synthgen.train.engine import Trained, newest_checkpoint, train_model
from synthgen.train.metrics import Progress
from synthgen.train.preparing import Prepared, prepare, template_of
from synthgen.train.reading import read_dataset
from synthgen.train.saving import StudentReport, report_on, save_student
from synthgen.train.student_folder import MANIFEST, allowed, report_of, request_of
from synthgen.train.template import ChatFormat, chat_format
from synthgen.train.trackers import require_trackers
from synthgen.types import JSONValue

__all__ = ["StudentReport", "is_student", "train"]

Say = Callable[[str], None]


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
    require_base(loaded)
    data = read_dataset(dataset, limit=loaded.config.data.limit)
    request = request_of(loaded, data.digest)
    if (there := report_of(out, request, StudentReport)) is not None:
        shutil.rmtree(_work(out), ignore_errors=True)  # left by a kill behind the rename
        return there
    obligations = allowed(loaded, data)
    require_trackers(loaded.config.trackers)
    base = load_base(loaded)
    format = chat_format(base.tokenizer, template_of(loaded))
    prepared = prepare(loaded, data, base, format)
    sample = marked(prepared.training[0][0], format)
    tell(f"the first sequence; what is trained on stands between « and »:\n{sample}")
    work = _work(out)
    release = lock_run(work) if _is_first() else _nothing_to_release
    try:
        _claim(work, request)
        trained = _train(loaded, base, format, prepared, work, progress)
        obligations = allowed(loaded, data)
        report = report_on(out, prepared, trained, obligations)
        if _is_first():
            save_student(report, loaded, data, base, format, trained, sample, request, work)
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


def _train(
    loaded: LoadedStudent,
    base: Base,
    format: ChatFormat,
    prepared: Prepared,
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
