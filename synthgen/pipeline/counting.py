"""Counting without refining: what a run that only asks says of its candidates.

In: closed waves. Out: counts: what has failed, cannot be read, or came from the wrong model is counted as ever; all
else counts as accepted, since no filter has looked at it. Guarantee: nothing here needs data frames, so that a run
without target and judge, which nothing but its answers is wanted of, pays for nothing else.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from synthgen.errors import StorageError
from synthgen.journal import JournalIndex
from synthgen.pipeline.tree import Leaf
from synthgen.pipeline.verdicts import Counts, Objection, Outcome, Verdict
from synthgen.pipeline.waves import Waves

__all__ = ["Counting", "first_look"]


class Counting:
    """Takes the place of `refining.Refining` where nobody asks for verdicts. `object_to` is gate 2."""

    under_way = 0
    storage: StorageError | None = None

    def __init__(self, counts: Counts, object_to: Callable[[Leaf], Objection | None]) -> None:
        self._counts, self._object_to = counts, object_to

    async def run(self, waves: Waves, group: asyncio.TaskGroup) -> None:
        """Count every wave that closes, until there are no more."""
        while (wave := await waves.next_closed()) is not None:
            for leaves in wave.leaves:
                for leaf in leaves:
                    self._counts.add(first_look(leaf, self._object_to), passed="accepted")
            waves.settled(wave)

    async def finish(self, index: JournalIndex, rest: int) -> None:
        """Nothing is to be published."""


def first_look(leaf: Leaf, object_to: Callable[[Leaf], Objection | None]) -> Verdict:
    """What is said of a leaf before any filter; `object_to` is gate 2. One that awaits the filters has no outcome yet."""
    if leaf.state in ("candidate", "rejected"):  # rejects are published too
        objection = object_to(leaf)
        if objection is not None:
            return Verdict(leaf, objection.outcome, "policy", objection.reason, detail=objection.detail)
    if leaf.state == "candidate":
        return Verdict(leaf, None, flags=_reply_flags(leaf))
    outcome = cast(Outcome, leaf.state)
    return Verdict(leaf, outcome, leaf.stage, leaf.reason, detail=leaf.detail)


def _reply_flags(leaf: Leaf) -> tuple[str, ...]:
    """What replies are kept in spite of. One that names no model counts as the requested one's, and says so."""
    flags = list(leaf.flags)
    for asked in leaf.asked:
        if (completion := asked.reply.completion) is not None:
            flags += completion.flags
            if completion.served_model is None:
                flags.append("served_model_missing")
    return tuple(dict.fromkeys(flags)) if flags else ()
