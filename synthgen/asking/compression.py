"""Does a server, or a proxy before it, compress its answers with what nobody here reads? Then its lane stops.

In: replies that came `compressed`. Out: nothing, or why their lane has to stop, in words. Three are enough, whatever came
between them: we ask for no compression, so that is how something is set up, and never about a request (many compress
long answers alone). Their requests stay pending, and what came is kept.
"""

from collections import Counter

from synthgen.asking.outcome import Retry

__all__ = ["COMPRESSED", "CompressionWatch"]

COMPRESSED = "compressed"  # the reason of a `Retry`
_TOO_MANY = 3


class CompressionWatch:
    """What this session has seen of its lanes, by name."""

    def __init__(self) -> None:
        self._came: Counter[str] = Counter()

    def objection(self, lane: str, outcome: Retry) -> str | None:
        """Note a reply that brought no answer; why its lane has to stop, in words, else None."""
        if outcome.reason != COMPRESSED:
            return None
        self._came[lane] += 1
        if self._came[lane] < _TOO_MANY:
            return None
        return (
            f"{self._came[lane]} replies could not be read: {outcome.message}; turn compression off in the server, or in "
            "the proxy before it (it ignores `Accept-Encoding: identity`); what came is kept, see `synthgen show RUN "
            "--unusable`"
        )
