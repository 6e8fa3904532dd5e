"""Disk space set aside, so that answers under way still fit when the disk is full.

In: a journal folder. Out: a file of 16 MiB that is given up on the first "no space left". Guarantee: a session that
cannot set it aside does not begin, so nothing is bought that could not be stored. It is removed when a session ends;
one that a killed session left is used again. On file systems that compress or copy on write the space is a promise
only; a second failure then is an ordinary one.
"""

import errno
import os
from pathlib import Path

__all__ = ["Ballast", "is_full"]

# Answers in flight, written once: 1024 of 16 KiB each, far more than most answers have.
BALLAST_BYTES = 16 << 20


def is_full(error: OSError) -> bool:
    """Whether the disk (or the user's share of it) has no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Ballast:
    """The file that is thrown overboard."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "BALLAST"
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            _allocate(file)
        except OSError as error:
            self.release()
            error.strerror = (
                f"{error.strerror} (a run sets {BALLAST_BYTES >> 20} MiB aside; more than that must be free)"
            )
            raise
        finally:
            os.close(file)

    def release(self) -> None:
        """Give the space back; again is harmless."""
        self._path.unlink(missing_ok=True)


def _allocate(file: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, BALLAST_BYTES)
        return
    for _ in range(BALLAST_BYTES >> 20):
        os.write(file, bytes(1 << 20))
