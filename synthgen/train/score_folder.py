"""The folder that `train score` writes into: a new one, or one with nothing but its own earlier scores of the same files.

In: the folder, the files that will be written, what tells ours. Out: nothing. Guarantee: asked before the work, so nothing is computed
for a folder that must not be written into, and no file of somebody else is among scores or written over.
Rejected: a marker file, which a copy of the scores would lose, and which would stand among the rows of a dataset.
"""

from collections.abc import Callable, Collection
from pathlib import Path

import orjson
import polars as pl

from synthgen.errors import UsageError

__all__ = ["check_score_folder", "has_columns", "has_metadata"]


def check_score_folder(out: Path, targets: Collection[Path], ours: Callable[[Path], bool]) -> None:
    """Nothing, where `out` holds none but `targets`, each of them `ours`, and what a kill left of them.

    Raises:
        UsageError: it is a file, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; name a folder with -o")
    halves = {target.with_name(f".{target.name}.part") for target in targets}
    for path in sorted(out.rglob("*")):
        if path.is_dir() or path in halves or (path in targets and ours(path)):
            continue
        raise UsageError(
            f"{path}: was not written by `train score` for these rows; name another folder with -o"
        )


def has_metadata(path: Path, key: str) -> bool:
    """Whether a Parquet file says so of itself."""
    try:
        return f"synthgen.{key}" in pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, OSError):
        return False


def has_columns(path: Path, names: Collection[str]) -> bool:
    """Whether the first line of a JSONL file has all of them; there is nothing to lose where there is none."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        row = orjson.loads(line) if line.strip() else dict.fromkeys(names)
    except orjson.JSONDecodeError:
        return False
    return isinstance(row, dict) and row.keys() >= set(names)
