"""Replies that were paid and could not be used: what the journal kept of them.

In: a run folder. Out: `UnusableReplies`, in the order they came, each with the start of its body as the journal holds it
(1 MiB at most), from sealed segments too. Calls no teacher and writes nothing.
"""

from dataclasses import asdict
from pathlib import Path
from typing import cast

from synthgen.dataclasses import dataclass
from synthgen.journal import JournalIndex
from synthgen.pipeline.runfolder import RunFolder
from synthgen.types import JSONValue

__all__ = ["UnusableReplies", "UnusableReply", "find_unusable"]


@dataclass(frozen=True, slots=True)
class UnusableReply:
    """`usd`: what was reserved for it, and counts as spent. `body` is model text: show it escaped."""

    key: str
    step: str
    teacher: str
    reason: str
    usd: float
    body: str


@dataclass(frozen=True, slots=True)
class UnusableReplies:
    """All of a run."""

    run: Path
    replies: tuple[UnusableReply, ...]

    @property
    def usd(self) -> float:
        """What they cost together."""
        return sum(reply.usd for reply in self.replies)

    def as_json(self) -> dict[str, JSONValue]:
        """What `--json` prints: whole bodies."""
        return {
            "run": str(self.run),
            "usd": self.usd,
            "replies": [cast(JSONValue, asdict(reply)) for reply in self.replies],
        }


def find_unusable(run: Path) -> UnusableReplies:
    """Read them from the journal: all of it, where there is one.

    Raises:
        UsageError: not a run.
        StorageError: the journal cannot be read.
    """
    folder = RunFolder(run)
    folder.require()
    index = JournalIndex(folder.journal)
    try:
        entries = index.entries() if index.ledger.unusable else ()
        found = [
            UnusableReply(
                key=str(entry["k"]),
                step=str(entry.get("step") or "?"),
                teacher=str(entry.get("teacher") or "?"),
                reason=str(entry["reason"]),
                usd=cast(float, entry["usd"]),
                body=str(entry["body"]),
            )
            for entry in entries
            if entry["t"] == "X"
        ]
    finally:
        index.close()
    return UnusableReplies(run, tuple(found))
