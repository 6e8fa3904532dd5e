"""A file without a name, for what a process needs to find again but not to hold in memory.

In: bytes. Out: the same, by their place. Guarantees: it is gone with its last user, also with a killed one, so nothing
has to be recovered or removed; it takes no room before the first byte. It is never made durable.
Rejected: memory maps (what they touch counts as memory of the process, and grows with the file).
"""

import os
import tempfile
import threading
from pathlib import Path

from synthgen.errors import StorageError

__all__ = ["Spool", "read_at"]

_seeking = threading.Lock()


def read_at(handle: int, size_bytes: int, offset: int) -> bytes:
    """Up to `size_bytes` from `offset`, wherever the file's position is; safe in several threads."""
    if hasattr(os, "pread"):
        return os.pread(handle, size_bytes, offset)
    with _seeking:
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, size_bytes)


def _write_at(handle: int, raw: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(handle, raw, offset)
    with _seeking:
        os.lseek(handle, offset, os.SEEK_SET)
        return os.write(handle, raw)


class Spool:
    """Written by one thread at a time, read by any. Every method raises `StorageError` if the disk refuses.

    `folder`: where it lies; the system's temporary folder if nothing can be written there, or for None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._handle = -1
        self.size_bytes = 0

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back to the system; nothing is there any more."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self.size_bytes = -1, 0

    def append(self, raw: bytes | bytearray | memoryview) -> int:
        """Put bytes at the end; where they are."""
        start = self.size_bytes
        self.write(raw, start)
        self.size_bytes = start + len(raw)
        return start

    def write(self, raw: bytes | bytearray | memoryview, start: int) -> None:
        """Put bytes in the place of others; see `append` for new ones."""
        try:
            if self._handle < 0:
                self._handle = _open(self._folder)
            rest, end = memoryview(raw), start + len(raw)
            while rest:
                rest = rest[_write_at(self._handle, rest, end - len(rest)) :]
        except OSError as error:
            raise _storage_error(error) from error

    def read(self, size_bytes: int, start: int) -> bytes:
        """So many bytes from `start`, fewer at the end."""
        if self._handle < 0:
            return b""
        try:
            return read_at(self._handle, size_bytes, start)
        except OSError as error:
            raise _storage_error(error) from error


def _open(folder: Path | None) -> int:
    try:
        with tempfile.TemporaryFile(dir=folder, prefix="synthgen-", buffering=0) as file:
            return os.dup(file.fileno())
    except OSError:
        if folder is None:
            raise
        return _open(None)


def _storage_error(error: OSError) -> StorageError:
    return StorageError(
        f"a temporary file cannot be used: {error.strerror}; free space in the run folder, or set TMPDIR"
    )
