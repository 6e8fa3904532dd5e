"""What a run is doing, as numbers: one object written by the pipeline and read by every face.

In: updates from the pipeline. Out: counters for the live view, lines in `events.jsonl`, the JSON at the end.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

import orjson

from synthgen.asking import Budget, Lane
from synthgen.asking.batch import UnderWay
from synthgen.dataclasses import dataclass
from synthgen.pipeline.verdicts import Counts
from synthgen.types import JSONValue

__all__ = ["EventLog", "Progress", "last_event"]

_TAIL_BYTES = 64 << 10  # of a log: more than an event of hundreds of teachers


@dataclass(slots=True)
class Progress:
    """Counters of a run in this session. `rows_total` and `target` are None where unknown or unwanted.

    `rows_ahead`: rows that were read and asked ahead of those that wait for teachers who stand still, and had no turn yet;
    `still`: those teachers. Both as of some seconds ago.
    """

    name: str = ""
    phase: str = "planning"
    started: float = field(default_factory=time.monotonic)
    rows_total: int | None = None
    rows_admitted: int = 0
    rows_done: int = 0
    rows_ahead: int = 0
    still: tuple[str, ...] = ()
    target: int | None = None
    counts: Counts = field(default_factory=Counts)
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    budget: Budget | None = None
    batches: Mapping[str, UnderWay] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began in this session."""
        return time.monotonic() - self.started

    def as_json(self) -> dict[str, JSONValue]:
        """A snapshot for `events.jsonl`."""
        lanes: dict[str, JSONValue] = {
            alias: {
                "in_flight": lane.counts.in_flight,
                "sent": lane.counts.sent,
                "answered": lane.counts.answered,
                "rate_limited": lane.counts.rate_limited,
                "errors": lane.counts.errors,
                "output_tokens": lane.counts.output_tokens,
            }
            for alias, lane in self.lanes.items()
        }
        return {
            "phase": self.phase,
            "elapsed_s": round(self.elapsed_s, 3),
            "rows_total": self.rows_total,
            "rows_admitted": self.rows_admitted,
            "rows_done": self.rows_done,
            "rows_ahead": self.rows_ahead,
            "standing_still": list(self.still),
            "outcomes": dict(self.counts.outcomes),
            "spent_usd": self.budget.spent_usd if self.budget else 0.0,
            "lanes": lanes,
            "batches": [way.said for way in list(self.batches.values())],
        }


class EventLog:
    """Appends one line an event to `events.jsonl`; never fails a run."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress

    def phase(self, name: str) -> None:
        """Enter a phase and log it."""
        self._progress.phase = name
        self.write()

    def write(self, **more: JSONValue) -> None:
        """Log a snapshot, and what else there is to say."""
        line = orjson.dumps({"at": round(time.time(), 3), **self._progress.as_json(), **more}) + b"\n"
        try:
            with self._path.open("ab") as file:
                file.write(line)
        except OSError:
            # The log is for people; a full disk is reported by the journal, where it matters.
            return


def last_event(path: Path) -> Mapping[str, JSONValue]:
    """The last snapshot of a log that stands there whole; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            whole, _, _ = file.read().rpartition(b"\n")
        event = orjson.loads(whole.rpartition(b"\n")[2])
    except (OSError, orjson.JSONDecodeError):
        return {}
    return event if isinstance(event, dict) else {}
