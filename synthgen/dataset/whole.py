"""Files that are either whole or absent.

In: bytes. Out: a file under its final name, on disk for good. Guarantees: temporary name, fsync, rename, so no reader
ever sees half a file; a disk that fails becomes a `StorageError` that names the path and what to do.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synthgen.errors import StorageError

__all__ = ["file_sha256", "storage_errors", "sync_folder", "write_bytes"]

_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "the quota is used up: free some space and run the same command again",
    errno.EACCES: "make it writable, or choose another output folder",
    errno.EPERM: "make it writable, or choose another output folder",
    errno.EROFS: "the file system is read-only: choose another output folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it, or choose another output folder",
    errno.EEXIST: "a file stands where a folder is needed: move it, or choose another output folder",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that says where and what to do.

    `path` is named where the error itself names none.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str | os.PathLike) else path
        advice = _ADVICE.get(error.errno or 0, "check the disk and run the same command again")
        raise StorageError(f"{where}: {error.strerror or error}; {advice}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path` by temporary name, fsync and rename; the rename itself is not yet synced.

    Raises:
        StorageError: the disk refuses; nothing stands at `path` that was not there before.
    """
    partial = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def file_sha256(path: Path) -> str:
    """Of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a rename is only safe once its folder is."""
    with storage_errors(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
