"""The lock of an output folder that is no run: `filter` and `dedup` write into one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from synthgen.dataset import check_target
from synthgen.errors import UsageError
from synthgen.journal import lock_run

__all__ = ["claim"]


@contextmanager
def claim(out: Path, also: Iterable[str] = ()) -> Iterator[None]:
    """Hold the lock of an output folder that is not a run; nothing of it stays. `also`: see `check_target`.

    Raises:
        UsageError: it is a run, whose dataset belongs to `generate`, or a file.
        StorageError: files of somebody else are in the way, or another process works in it.
    """
    if (out / "journal").is_dir():
        raise UsageError(f"{out}: is a run folder; choose another folder with -o")
    release = lock_run(out / ".lock")
    try:
        check_target(out, also)
        yield
    finally:
        # Removed while it is held: whoever waits for it must not get hold of a file nobody else sees.
        (out / ".lock" / "LOCK").unlink(missing_ok=True)
        release()
        with suppress(OSError):
            (out / ".lock").rmdir()
