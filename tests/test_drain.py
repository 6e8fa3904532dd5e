"""One signal ends a run in bounded time: schedulers send one SIGTERM, and kill what is left soon after."""

import os
import signal
import threading
from pathlib import Path

import synthgen
from synthgen.api import Options
from tests.loopback import Loopback
from tests.runs import cli, recipe


def signal_at(server: Loopback, in_flight: int) -> threading.Thread:
    """Send ourselves one SIGTERM once so many requests are at the server."""

    def send() -> None:
        while server.in_flight < in_flight:
            threading.Event().wait(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_one_sigterm_ends_a_run_whose_server_hangs(tmp_path: Path) -> None:
    said: list[str] = []
    with Loopback(hold=10_000) as server:
        sender = signal_at(server, 5)
        options = Options(handle_signals=True, drain_s=0.05, say=said.append)

        report = synthgen.generate(recipe(server), tmp_path / "run", options=options)
        sender.join()

    assert report.exit_code == 130
    assert report.counts["pending"] == 5
    assert "at most 0.05 s (--drain)" in said[0]
    assert said[1] == "5 requests have no answer after 0.05 s: stopping"


def test_the_drain_is_an_option_of_generate() -> None:
    assert "--drain" in cli("generate", "--help").out
