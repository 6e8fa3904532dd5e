"""The folder of a student that does not write, published at once.

In: a loaded file, the data, what writes the checkpoint. Out: `TaskReport`. Guarantee: `student.json` is the last file of a
folder that appears by one rename; who finds it there does nothing.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import orjson

from synthgen.assets import package_version
from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.errors import StorageError
from synthgen.train.base import without_machine_traces
from synthgen.train.card import Lineage, student_card
from synthgen.train.config import Loaded, StartConfig
from synthgen.train.reading import Dataset
from synthgen.train.student_folder import MANIFEST, file_digests
from synthgen.types import JSONValue

__all__ = ["TaskReport", "publish"]

_LIBRARIES = ("torch", "transformers")


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What came of it. `numbers` are the task's own figures; `trained` is False where the student was there already."""

    out: Path
    task: str
    trained: bool
    rows: int
    validation_rows: int
    refused: Mapping[str, int]
    numbers: Mapping[str, float]
    obligations: tuple[str, ...]


def publish(
    report: TaskReport,
    loaded: Loaded[StartConfig],
    data: Dataset | None,
    request: Mapping[str, JSONValue],
    write: Callable[[Path], None],
    *,
    pipeline: str,
) -> TaskReport:
    """Save what `write` puts into a folder, with its card and manifest; the report again.

    Raises:
        StorageError: the disk refuses.
    """
    out = report.out
    staging = out.with_name(f".{out.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        write(staging)
        without_machine_traces(staging)
        write_bytes(staging / "student.yaml", loaded.text.encode())
        config = loaded.config
        name = data.manifest.get("name") if data is not None else None
        lineage = Lineage(
            config.name,
            config.base,
            config.revision,
            name if isinstance(name, str) else "the given file",
            str(request["dataset"]),
            report.task,
            report.obligations,
            known=data is not None and data.folder is not None,
            pipeline=pipeline,
        )
        numbers = {"rows": f"{report.rows:,}", "validation rows": f"{report.validation_rows:,}"}
        numbers |= {key: f"{value:.4f}" for key, value in report.numbers.items()}
        write_bytes(staging / "README.md", student_card(lineage, numbers).encode())
        manifest = {
            "synthgen": package_version(),
            "request": request,
            "libraries": {name: version(name) for name in _LIBRARIES},
            "config": config.model_dump(mode="json"),
            "report": {**asdict(report), "out": None},
            "files": file_digests(staging),
        }
        write_bytes(staging / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        if out.is_dir():
            out.rmdir()  # it was empty
        staging.rename(out)
    except OSError as error:
        raise StorageError(f"{staging}: {error.strerror or error}") from error
    return report
