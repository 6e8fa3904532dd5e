"""What operating systems do differently below a journal: locking a file, making bytes durable.

In: open file handles. Out: nothing, but for the name of a network file system. Guarantees: after `sync` the bytes survive
a power cut as far as the system can promise it; a lock ends with its process, also with a killed one. Linux is what the tests run on; the others
follow their manuals: macOS's fsync leaves the bytes in the drive's cache and has F_FULLFSYNC for the rest (fsync(2),
fcntl(2)), Windows has neither flock nor fdatasync (msvcrt.locking locks bytes, here one far beyond the text).
Rejected: a lock package (portalocker, filelock: both lock by name, or leave a file that means nothing after a kill). A
network file system may keep locks to one machine (NFS with `local_lock`, SMB with `nobrl`, most of FUSE), and from one
machine nothing tells: hence `network_file_system`.
"""

import os
import re
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows

__all__ = ["lock", "network_file_system", "sync", "sync_folder"]

_LOCKED_BYTE = 1 << 30
_MOUNTS = Path("/proc/self/mounts")
_NETWORK = ("nfs", "smb")  # and what begins so
_NETWORKS = {"cifs", "9p", "afs", "ceph", "lustre", "beegfs", "glusterfs"} | {
    f"fuse.{kind}" for kind in ("sshfs", "s3fs", "gcsfuse", "glusterfs", "rclone")
}


def lock(handle: int) -> None:
    """Take the file for this process alone, without waiting.

    Raises:
        BlockingIOError: another process has it.
        OSError: the file system cannot lock.
    """
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        raise BlockingIOError(error.errno, error.strerror) from error


def sync(handle: int) -> None:
    """Make what was written durable; the file's times may be lost.

    Raises:
        OSError: the disk refuses.
    """
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(handle, full)
            return
        except OSError:
            pass  # network drives have no such call; what they do have comes next
    getattr(os, "fdatasync", os.fsync)(handle)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def network_file_system(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """The kind of network file system a folder is on; None for a local one, and where the system does not say (no Linux)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = folder.resolve()
    kind, deepest = "", -1
    for line in lines:
        _, point, mounted, *_ = line.split(" ")
        at = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point))
        if (
            place.is_relative_to(at) and len(at.parts) >= deepest
        ):  # of two at one place the later one covers the other
            kind, deepest = mounted, len(at.parts)
    return kind if kind in _NETWORKS or kind.startswith(_NETWORK) else None
