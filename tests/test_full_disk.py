"""A disk that is really full: a file system of 40 MiB, and answers that do not fit."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import Body, Loopback
from tests.runs import cli, recipe, save, teacher

ROWS = 120


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def long_answer(body: Body) -> str:
    """Half a MiB that does not repeat."""
    return random.Random(str(body["messages"])).randbytes(1 << 18).hex()


def test_a_full_disk_stops_the_asking_and_keeps_every_answer_under_way(
    tmp_path: Path, small_disk: Path
) -> None:
    run = small_disk / "run"
    with Loopback(reply=long_answer) as server:
        teachers = {"qwen": teacher(server, limits={"concurrency": 16})}
        refine = {"chain": "none", "dedup": {"near": None}}
        path = save(tmp_path / "r.yaml", recipe(server, ROWS, teachers=teachers, refine=refine))
        full = cli("generate", path, "-o", run, "--ask-only")
        paid = len(server.payments)
        verified = cli("journal", "verify", run, "--json")
        subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
        again = cli("generate", path, "-o", run, "--ask-only", "--json")

        assert (full.code, again.code) == (6, 0)
        assert "No space left on device" in full.err
        assert 20 < paid < ROWS
        assert verified.code == 0
        assert verified.json["entries"]["R"] == paid
        assert verified.json["possibly_paid"] == verified.json["double_payments"] == []
        assert (len(server.payments), server.paid_twice) == (ROWS, 0)
