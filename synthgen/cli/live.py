"""Watching a run: a live table on a terminal, one plain line every 10 s anywhere else, nothing with `--json`.

In: the `Progress` the pipeline writes. Out: stderr. Reads only, from a thread of its own, at 4 Hz.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from synthgen.cli.terminal import safe
from synthgen.pipeline import Progress

__all__ = ["Pace", "plain_line", "render", "watching"]

PLAIN_EVERY_S = 10.0
Say = Callable[[str], None]


class Pace:
    """How fast a run goes: by the last minute of it, or by its last 16 rows where those took longer.

    Rows whose answers lay in the journal pass in the first seconds, and say nothing of the rest.
    """

    _WINDOW_S, _ROWS = 60.0, 16

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._sending = False

    def left_s(self, progress: Progress, now: float) -> float | None:
        """Seconds to the end at this pace; None where nobody can tell yet. `now` is monotonic."""
        done, total = _done(progress)
        sending = any(lane.counts.sent for lane in progress.lanes.values())
        if not (sending and self._sending):
            self._marks.clear()
        self._sending = sending
        if not self._marks or done > self._marks[-1][1]:
            self._marks.append((now, done))
        while len(self._marks) > 2 and self._is_past(self._marks[1], now, done):
            self._marks.popleft()
        started, before = self._marks[0]
        if total is None or done == before or now <= started:
            return None
        return max(0, total - done) * (now - started) / (done - before)

    def _is_past(self, mark: tuple[float, int], now: float, done: int) -> bool:
        return now - mark[0] >= self._WINDOW_S and done - mark[1] >= self._ROWS


@contextmanager
def watching(*, quiet: bool) -> Iterator[tuple[Progress, Say]]:
    """A `Progress` to hand to the run, and a way to say something to the user while it is shown."""
    progress, pace = Progress(), Pace()
    console = Console(stderr=True)
    if quiet:
        yield progress, lambda text: print(text, file=sys.stderr)
    elif console.is_terminal:
        with Live(
            console=console,
            get_renderable=lambda: render(progress, pace),
            refresh_per_second=4,
            transient=True,
        ) as live:
            yield progress, lambda text: live.console.print(Text(text))
    else:
        with _plain_lines(progress, pace):
            yield progress, lambda text: print(text, file=sys.stderr)


@contextmanager
def _plain_lines(progress: Progress, pace: Pace) -> Iterator[None]:
    over = threading.Event()

    def speak() -> None:
        while not over.wait(PLAIN_EVERY_S):
            print(plain_line(progress, pace), file=sys.stderr, flush=True)

    thread = threading.Thread(target=speak, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def plain_line(progress: Progress, pace: Pace) -> str:
    """One line: phase, rows, outcomes, speed, spend."""
    outcomes = ", ".join(f"{name} {count}" for name, count in progress.counts.outcomes.items())
    in_flight = sum(lane.counts.in_flight for lane in progress.lanes.values())
    parts = [
        progress.phase,
        f"rows {progress.rows_done}/{_or_unknown(progress.rows_total)}",
        outcomes or "nothing settled yet",
        f"{in_flight} in flight",
        f"{_tokens_per_s(progress):.0f} tokens/s",
        _spend(progress),
        f"ETA {_eta(progress, pace)}",
        *_troubles(progress),
        *_ahead(progress),
        *_batches(progress),
    ]
    return " | ".join(parts)


def render(progress: Progress, pace: Pace) -> RenderableType:
    """The live view."""
    done, total = _done(progress)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text(f"{progress.name} {progress.phase}"),
        ProgressBar(total=total or 1, completed=min(done, total or 1), width=32),
        Text(f"{done}/{_or_unknown(total)}"),
        Text(f"{_tokens_per_s(progress):.0f} tok/s"),
        Text(_spend(progress)),
        Text(f"ETA {_eta(progress, pace)}"),
    )
    lanes = Table(
        "teacher", "in flight", "answered", "429", "errors", "output tokens", box=None, pad_edge=False
    )
    for alias, lane in progress.lanes.items():
        counts = lane.counts
        lanes.add_row(
            Text(alias + (" (stopped)" if lane.stopped else "")),
            *(str(n) for n in (counts.in_flight, counts.answered, counts.rate_limited, counts.errors)),
            str(counts.output_tokens),
        )
    troubles = [Text(line, style="yellow") for line in _troubles(progress)]
    troubles += [Text(line) for line in (*_ahead(progress), *_batches(progress))]
    outcomes = " ".join(f"{name} {count}" for name, count in progress.counts.outcomes.items())
    reasons = Table(box=None, show_header=False, pad_edge=False)
    top = sorted(progress.counts.reasons.items(), key=lambda item: -item[1])[:6]
    for (stage, reason), count in top:
        reasons.add_row(Text(f"  {stage}/{reason}"), str(count))
    return Group(bar, lanes, *troubles, Text(outcomes), reasons)


def _troubles(progress: Progress) -> list[str]:
    """Of each teacher whose last reply was none: for how long, and why. A server that is down is asked on for long."""
    found = []
    for alias, lane in progress.lanes.items():
        silent_s = lane.silent_s
        if silent_s >= 1 and lane.last_trouble and not lane.ended:
            pause = f"; pausing {lane.paused_s:.0f} s more" if lane.paused_s >= 1 else ""
            found.append(
                safe(f"{alias}: no answer for {silent_s:.0f} s, trying on; last {lane.last_trouble}{pause}")
            )
    return found


def _ahead(progress: Progress) -> list[str]:
    """Rows that were asked and do not count as done: they wait behind those that wait for a teacher."""
    if not progress.rows_ahead:
        return []
    why = f" of those that wait for {', '.join(progress.still)}" if progress.still else ", whose turn comes"
    return [safe(f"{progress.rows_ahead} further rows asked ahead{why}")]


def _batches(progress: Progress) -> list[str]:
    """What is under way at vendors. The run changes it meanwhile."""
    return [safe(way.said) for way in list(progress.batches.values())]


def _done(progress: Progress) -> tuple[int, int | None]:
    if progress.target is not None:
        return progress.counts.outcomes.get("accepted", 0), progress.target
    return progress.rows_done, progress.rows_total


def _tokens_per_s(progress: Progress) -> float:
    tokens = sum(lane.counts.output_tokens for lane in progress.lanes.values())
    return tokens / max(progress.elapsed_s, 1e-9)


def _spend(progress: Progress) -> str:
    if progress.budget is None:
        return "0.00 USD"
    cap = progress.budget.cap_usd
    return f"{progress.budget.spent_usd:.4f}{f'/{cap:g}' if cap is not None else ''} USD"


def _eta(progress: Progress, pace: Pace) -> str:
    left_s = pace.left_s(progress, time.monotonic())
    if left_s is None:
        return "?"
    hours, rest = divmod(int(left_s), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def _or_unknown(number: int | None) -> str:
    return "?" if number is None else str(number)
