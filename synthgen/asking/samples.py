"""Several samples of one question in one request: who goes together, and what to do where a server has no such thing.

In: requests that differ in their sample alone, and how many a request may hold. Out: a reply for each, or why it was
not asked. Guarantees: only what is missing is asked for; what a reply leaves out is asked again; a server that twice
gave one sample where it was asked for several, or refuses such requests and answers single ones, is asked singly for
the rest of the session. Keys know nothing of this: a sample is the same however it was bought.
With a seed only neighbours go together, because sample k is drawn with the seed plus k.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from synthgen.asking.outcome import NotAsked, RefusedTogether
from synthgen.journal import Reply
from synthgen.types import Request

__all__ = ["Samples"]

_LONE_CHOICES = 2


class _AskOne(Protocol):
    def __call__(self, request: Request, *, step: str, alias: str) -> Awaitable[Reply]: ...


_AskTogether = Callable[[Sequence[Request], Sequence[str], str, str], Awaitable[list[Reply]]]


class Samples:
    """What a session has learnt about its teachers. `is_missing`: neither stored nor under way."""

    def __init__(
        self, ask_one: _AskOne, ask_together: _AskTogether, is_missing: Callable[[str], bool]
    ) -> None:
        self._ask_one = ask_one
        self._ask_together = ask_together
        self._is_missing = is_missing
        self._lone_choices: Counter[str] = Counter()
        self._singly: set[str] = set()

    async def ask(
        self, requests: Sequence[Request], most: int, *, step: str, alias: str
    ) -> list[Reply | NotAsked]:
        """A reply to each, in order; at most `most` samples a request."""
        groups = self._groups(requests, 1 if alias in self._singly else most)
        parts = await asyncio.gather(*(self._ask_group(group, step, alias) for group in groups))
        by_sample = {sample: reply for part in parts for sample, reply in part.items()}
        return [by_sample[request.sample] for request in requests]

    def _groups(self, requests: Sequence[Request], most: int) -> list[list[Request]]:
        groups: list[list[Request]] = []
        latest: list[Request] = []
        for request in requests:
            if not self._is_missing(request.key()):
                groups.append([request])
            elif latest and len(latest) < most and _may_follow(latest[-1], request):
                latest.append(request)
            else:
                latest = [request]
                groups.append(latest)
        return groups

    async def _ask_group(
        self, requests: Sequence[Request], step: str, alias: str
    ) -> dict[int, Reply | NotAsked]:
        """Replies by sample."""
        replies: dict[int, Reply | NotAsked] = {}
        rest, unwilling = list(requests), False
        while len(rest) > 1 and alias not in self._singly:
            keys = [request.key() for request in rest]
            if not all(map(self._is_missing, keys)):
                break
            try:
                got = await self._ask_together(rest, keys, step, alias)
            except NotAsked as stop:
                return replies | {request.sample: stop for request in rest}
            except RefusedTogether as refused:
                unwilling = refused.by_server
                break
            replies |= {request.sample: reply for request, reply in zip(rest, got, strict=False)}
            rest = rest[len(got) :]
            if len(got) == 1:
                self._note_lone_choice(alias)
        alone = await asyncio.gather(*(self._ask_alone(request, step, alias) for request in rest))
        if unwilling and any(isinstance(reply, Reply) and reply.completion for reply in alone):
            self._singly.add(alias)
        return replies | {request.sample: reply for request, reply in zip(rest, alone, strict=True)}

    async def _ask_alone(self, request: Request, step: str, alias: str) -> Reply | NotAsked:
        try:
            return await self._ask_one(request, step=step, alias=alias)
        except NotAsked as stop:
            return stop

    def _note_lone_choice(self, alias: str) -> None:
        self._lone_choices[alias] += 1
        if self._lone_choices[alias] >= _LONE_CHOICES:
            self._singly.add(alias)


def _may_follow(one: Request, other: Request) -> bool:
    return one.sampling.seed is None or one.sample + 1 == other.sample
