"""The journal on other operating systems: the calls they have in the place of Linux's. Their kernels are not here."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthgen.errors import RunLocked
from synthgen.journal import lock_run
from synthgen.journal.system import network_file_system, sync
from synthgen.spool import read_at


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(opened, b"0123456789")
    yield opened
    os.close(opened)


def test_macos_syncs_through_the_drives_cache(handle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _handle, command: asked.append(command))

    sync(handle)

    assert asked == [51]


@pytest.mark.parametrize("has_fdatasync", [True, False], ids=["linux-like", "macos"])
def test_a_drive_without_the_full_sync_gets_the_usual_one(
    handle: int, has_fdatasync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_handle: int, _command: int) -> None:
        raise OSError(95, "not supported")

    used: list[str] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refused)
    monkeypatch.setattr(os, "fsync", lambda _handle: used.append("fsync"))
    monkeypatch.setattr(os, "fdatasync", lambda _handle: used.append("fdatasync"))
    if not has_fdatasync:
        monkeypatch.delattr(os, "fdatasync")

    sync(handle)

    assert used == (["fdatasync"] if has_fdatasync else ["fsync"])


def test_reading_at_an_offset_needs_no_pread(handle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")

    assert (read_at(handle, 3, 4), read_at(handle, 2, 0)) == (b"456", b"01")


WINDOWS = """
import asyncio, os, subprocess, sys, types  # the first two ask for msvcrt themselves
from pathlib import Path
real = __import__("fcntl")
def locking(handle, mode, size):
    assert (mode, size) == (2, 1)
    try:
        real.lockf(handle, real.LOCK_EX | real.LOCK_NB, size, 0, os.SEEK_CUR)
    except BlockingIOError as error:
        raise PermissionError(13, "Permission denied") from error
sys.modules["fcntl"] = None
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
from synthgen.errors import RunLocked
from synthgen.journal.writer import lock_run
try:
    lock_run(Path(sys.argv[1]))
except RunLocked as error:
    print(error)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_without_flock_a_byte_is_locked_and_the_holder_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WINDOWS, str(tmp_path / "journal")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"

        second = subprocess.run(command, capture_output=True, text=True, check=True, input="")

        first.kill()
    assert f"process {first.pid}" in second.stdout


def test_a_lock_file_removed_in_between_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    swaps = [lambda: (tmp_path / "LOCK").unlink(), lambda: (tmp_path / "LOCK").rename(tmp_path / "aside")]

    def flock(handle: int, how: int) -> None:
        if swaps:
            swaps.pop()()  # somebody tidies up between our open and our lock
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    release = lock_run(tmp_path)

    with pytest.raises(RunLocked):
        lock_run(tmp_path)
    release()


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/home/me/run", None), ("/home/share/run", "nfs4"), ("/home/a b/run", "cifs"), ("/mnt/run", None)],
)
def test_a_network_file_system_is_known_by_its_mount(tmp_path: Path, folder: str, kind: str | None) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda / ext4 rw 0 0\nhost:/x /home/share nfs4 rw 0 0\n//host/y /home/a\\040b cifs rw 0 0\n"
        "host:/z /mnt nfs rw 0 0\n/dev/sdb /mnt xfs rw 0 0\n"
    )

    assert network_file_system(Path(folder), mounts) == kind


def test_where_the_system_does_not_say_no_file_system_is_a_network(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "none") is None
