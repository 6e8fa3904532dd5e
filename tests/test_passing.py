"""What a verb says while it works: a line that changes on a terminal, a line now and then anywhere else."""

import io
import sys

import pytest

from synthgen.cli.passing import passing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_it_is_the_first_one_every_five_seconds_and_the_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    with passing(clock=lambda: now) as say:
        for done in range(100, 1300, 100):
            say(f"{done} rows")
            now += 1.0

    assert capsys.readouterr().err.splitlines() == ["100 rows", "600 rows", "1100 rows", "1200 rows"]


def test_a_line_that_was_said_is_not_said_again_in_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with passing() as say:
        say("one \x1b")

    assert capsys.readouterr().err == "one \\x1b\n"


def test_on_a_terminal_it_is_one_line_that_changes_and_then_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with passing() as say:
        for done in range(50):
            say(f"{done} rows")

    shown = terminal.getvalue()
    assert "49 rows" in shown
    assert shown.count("\n") <= 1
    assert shown.endswith("\x1b[2K")
