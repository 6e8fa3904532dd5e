"""The folder of a student, whatever its task: claimed, allowed, and found again.

In: a loaded file and its data. Out: what a student is made from, whether it is there, the duties that go along, digests of
what was written. Guarantee: `student.json` is written last, so a folder that has one is whole.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import orjson

from synthgen.errors import UsageError
from synthgen.pipeline import student_allowed
from synthgen.train.base import base_digest
from synthgen.train.config import Loaded, StartConfig
from synthgen.train.reading import Dataset
from synthgen.types import JSONValue

__all__ = ["MANIFEST", "allowed", "file_digests", "read_student_manifest", "report_of", "request_of"]

MANIFEST = "student.json"
ReportT = TypeVar("ReportT")


def request_of(loaded: Loaded[StartConfig], data_digest: str) -> dict[str, JSONValue]:
    """What a student is made from: equal requests are the same student."""
    return {"student": loaded.digest, "dataset": data_digest, "base": base_digest(loaded)}


def read_student_manifest(folder: Path) -> dict[str, JSONValue] | None:
    """What `student.json` of a folder says; None: it is no student of synthgen."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    found = orjson.loads(path.read_bytes())
    return found if isinstance(found, dict) else None


def report_of(out: Path, request: Mapping[str, JSONValue], kind: Callable[..., ReportT]) -> ReportT | None:
    """The stored report of the student that is in `out`, as one of `kind` that says so; None where nothing is.

    Raises:
        UsageError: the folder holds something else, or a student made from something else.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; name a folder with -o")
    if not out.exists() or not any(out.iterdir()):
        return None
    manifest = read_student_manifest(out)
    if manifest is None:
        raise UsageError(f"{out}: is not empty and no student of synthgen; name another folder with -o")
    made_from, report = manifest["request"], manifest["report"]
    assert isinstance(made_from, dict)  # as it was written
    assert isinstance(report, dict)
    other = [part for part, value in made_from.items() if request.get(part) != value]
    if other:
        raise UsageError(
            f"{out}: holds a student made from another {' and '.join(other)}; name another folder with -o"
        )
    duties = report["obligations"]
    assert isinstance(duties, list)
    return kind(**{**report, "out": out, "trained": False, "obligations": tuple(duties)})


def allowed(loaded: Loaded[StartConfig], data: Dataset | None) -> tuple[str, ...]:
    """The obligations that go along with the student; of foreign data synthgen knows none.

    Raises:
        PolicyError: the data may not be used so, or the student's name breaks a duty.
    """
    if data is None or data.folder is None:
        return ()
    config = loaded.config
    return student_allowed(data.folder, config.name, use=config.use, distributed=config.distributed)


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of each file, which is on the disk then."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
    return found
