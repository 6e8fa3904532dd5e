"""Replies that came whole and that a step cannot read: a prompt or a teacher that gives only such ones costs a run for nothing.

In: what each reply of a step grew into. Out: the teacher is stopped when none of its first 20 replies to a step could be read
(`on_unreadable: stop`), or that is said at once (`warn`); at the end, a warning about every step that could not read over half.
Twenty: a step that reads a third of its replies, so that most are waste already, has 20 bad ones first in 3 of 10,000 runs.
Replies of earlier sessions count as well, so a run that goes on unchanged stops before it has bought anything.
Rejected: the same for judges (their records are lost for the judge's sake, which `report` says).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from pathlib import Path

from synthgen.asking import Asker
from synthgen.dataclasses import dataclass
from synthgen.pipeline.tree import Ask, Leaf, Node

__all__ = ["Unreadable"]

_FIRST = 20
_WARN_FROM, _WARN_SHARE = 5, 0.5


@dataclass(slots=True)
class _Tally:
    """Replies of one teacher to one step; `first` is a candidate behind one that could not be read."""

    prompt: str
    replies: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: str = ""
    said: bool = False


class Unreadable:
    """Counts by step and teacher. `say` is told what cannot wait for the end."""

    def __init__(self, asker: Asker, run: Path, say: Callable[[str], None]) -> None:
        self._asker = asker
        self._run = run
        self._say = say
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def note(self, ask: Ask, grown: Sequence[Node | Leaf]) -> None:
        """A reply to `ask` grew into these."""
        leaf = grown[0] if grown else None
        if isinstance(leaf, Leaf) and leaf.state == "failed":
            return  # no reply
        tally = self._tallies.get((ask.step.name, ask.alias))
        if tally is None:
            tally = self._tallies[ask.step.name, ask.alias] = _Tally(ask.step.prompt.name)
        tally.replies += 1
        if not isinstance(leaf, Leaf) or leaf.stage != "parse" or leaf.reason == "empty_list":
            return
        tally.reasons[leaf.reason or ""] += 1
        tally.first = tally.first or leaf.id
        if tally.replies == tally.reasons.total() == _FIRST:
            self._object(ask, tally)

    def warnings(self) -> Iterator[str]:
        """What the end of a run says of steps that could not read over half of their replies."""
        for (step, alias), tally in self._tallies.items():
            unread = tally.reasons.total()
            if unread >= _WARN_FROM and unread > _WARN_SHARE * tally.replies and not tally.said:
                yield self._said(step, alias, tally)

    def _object(self, ask: Ask, tally: _Tally) -> None:
        said = self._said(ask.step.name, ask.alias, tally)
        if ask.step.on_unreadable == "warn":
            self._say(said)
            return
        tally.said = True
        self._asker.queues[ask.alias].stop_all(
            "unreadable", f"{said}; to go on, `on_unreadable: warn` in the step"
        )

    def _said(self, step: str, alias: str, tally: _Tally) -> str:
        reason, _ = tally.reasons.most_common(1)[0]
        return (
            f"step {step}: {tally.reasons.total()} of {tally.replies} replies of {alias} could not be read as the prompt "
            f"{tally.prompt!r} wants (most: parse/{reason}); see one with `synthgen show {self._run} --row "
            f"{tally.first[:12]}`, then mend the prompt, or give the step another model or max_tokens"
        )
