"""Batches survive the death of the client: nothing is submitted twice, nothing that was paid is lost.

The client is a process of its own, killed with SIGKILL by the server at an exact point of the exchange, before the
server replies.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.batch_server import Batch, BatchLoopback
from tests.test_batches import PACE, batch_recipe, proof, run

VENDORS = pytest.mark.parametrize("provider", ["openai", "anthropic"])
SCRIPT = f"""
import sys
from synthgen import api
from synthgen.asking.batch import Pace
pace = Pace(poll_s={PACE.poll_s}, longest_poll_s={PACE.longest_poll_s}, linger_s={PACE.linger_s}, settle_s={PACE.settle_s})
options = api.Options(pace=pace, handle_signals=True)
report = api.generate(sys.argv[1], sys.argv[2], options=options)
print(report.problem, file=sys.stderr)
sys.exit(report.exit_code)
"""


class Victim:
    """The client; `strike` sends it a signal when the server is at `point` for the `nth` time."""

    def __init__(self, point: str, number: int = signal.SIGKILL, nth: int = 1):
        self.process: subprocess.Popen[str] | None = None
        self._point, self._number, self._left = point, number, nth

    def strike(self, point: str) -> int | None:
        """What the server calls; nobody is left to read the status after a kill."""
        if point == self._point and self.process is not None:
            self._left -= 1
            if self._left == 0:
                self.process.send_signal(self._number)
                if self._number == signal.SIGKILL:
                    self.process.wait()
                    return 500
        return None

    def run(self, recipe: Path, out: Path) -> tuple[int, str]:
        """Run the client to its end, whatever that is: exit code and stderr."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(recipe), str(out)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        _, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stderr


@contextmanager
def killing(point: str, nth: int = 1, **server: object) -> Iterator[tuple[Victim, BatchLoopback]]:
    """A victim, and a server that kills it at `point`."""
    victim = Victim(point, nth=nth)
    with BatchLoopback(at=victim.strike, **server) as loopback:  # type: ignore[arg-type]
        yield victim, loopback


@pytest.mark.parametrize(
    ("provider", "point"),
    [
        ("openai", "uploaded"),  # Anthropic's batches are uploaded and created in one request
        ("openai", "created"),
        ("openai", "looked"),
        ("anthropic", "created"),
        ("anthropic", "looked"),
    ],
)
def test_a_kill_between_two_steps_of_a_batch_buys_nothing_twice(
    tmp_path: Path, provider: str, point: str
) -> None:
    with killing(point) as (victim, server):
        path = batch_recipe(tmp_path, server, provider=provider)
        code, _ = victim.run(path, tmp_path / "run")
        assert code == -signal.SIGKILL
        [under_way] = proof(tmp_path / "run").batches_under_way
        assert (under_way.requests, under_way.id) == (5, "batch_1" if point == "looked" else None)

        report = run(path, tmp_path / "run")

    assert (report.exit_code, report.counts["accepted"]) == (0, 5)
    assert (len(server.batches), len(server.payments)) == (1, 5)
    found = proof(tmp_path / "run")
    assert (found.double_payments, found.possibly_paid, found.batches_under_way) == ([], [], [])


def test_a_kill_in_the_middle_of_a_harvest_reads_only_the_rest_again(tmp_path: Path) -> None:
    rows, broken_after = 300, 290  # results are stored by 256
    with killing("GET /files/output-batch_1/content", nth=2, broken_after=broken_after) as (victim, server):
        path = batch_recipe(tmp_path, server, rows)
        code, _ = victim.run(path, tmp_path / "run")
        assert code == -signal.SIGKILL
        assert [batch.requests for batch in proof(tmp_path / "run").batches_under_way] == [rows - 256]

        report = run(path, tmp_path / "run")

    assert (report.exit_code, len(server.batches)) == (0, 1)
    found = proof(tmp_path / "run")
    assert (found.entries["R"], found.double_payments) == (rows, [])


@VENDORS
def test_an_interrupted_wait_leaves_the_batch_at_its_vendor(tmp_path: Path, provider: str) -> None:
    victim = Victim("looked", signal.SIGINT)
    with BatchLoopback(at=victim.strike, polls=1_000_000) as server:
        path = batch_recipe(tmp_path, server, provider=provider)
        code, stderr = victim.run(path, tmp_path / "run")
        assert (code, server.cancelled) == (130, [])
        assert "batch_1" in stderr

        server._polls = 1
        report = run(path, tmp_path / "run")

    assert (report.exit_code, len(server.batches), len(server.payments)) == (0, 1, 5)


def test_an_interrupt_during_a_submission_waits_for_the_vendors_name(tmp_path: Path) -> None:
    victim = Victim("uploaded", signal.SIGINT)
    with BatchLoopback(at=victim.strike, polls=1_000_000) as server:
        path = batch_recipe(tmp_path, server)
        code, _ = victim.run(path, tmp_path / "run")

    assert code == 130
    assert [batch.id for batch in proof(tmp_path / "run").batches_under_way] == ["batch_1"]


def test_a_batch_of_equal_size_that_is_somebody_elses_is_waited_for_and_left_alone(tmp_path: Path) -> None:
    with killing("POST /messages/batches") as (victim, server):
        path = batch_recipe(tmp_path, server, provider="anthropic")
        code, _ = victim.run(path, tmp_path / "run")
        assert (code, server.batches) == (-signal.SIGKILL, [])
        foreign = Batch("foreign", [(f"theirs-{n}", {"messages": []}) for n in range(5)], {})
        server.batches.append(foreign)

        report = run(path, tmp_path / "run")

    assert report.exit_code == 0
    assert [batch.id for batch in server.batches] == ["foreign", "batch_2"]
    assert foreign.status == "completed"
