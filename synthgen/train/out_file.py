"""Whether a file that a verb of `train` ends with can be written there, asked before the work and not after it."""

from pathlib import Path

from synthgen.dataset.files import find_inputs
from synthgen.errors import UsageError

__all__ = ["check_out_file"]


def check_out_file(out: Path, *, dataset: Path | None = None) -> None:
    """Nothing, where `out` can become a file that is none of those that `dataset` stands for.

    Raises:
        UsageError: it is a folder, its folder is missing, or it belongs to the data.
        SourceError: there is no such data.
    """
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name a file with -o")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}; make it, or name another file with -o")
    if dataset is not None and out.resolve() in _files_of(dataset, out):
        raise UsageError(f"{out}: belongs to the data that is read; name another file with -o")


def _files_of(dataset: Path, out: Path) -> set[Path]:
    if dataset.is_dir():
        return {out.resolve()} if out.resolve().is_relative_to(dataset.resolve()) else set()
    return {file.resolve() for file in find_inputs([dataset])}
