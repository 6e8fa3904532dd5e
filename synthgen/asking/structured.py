"""Does a server keep to the schema it was sent? Asked of the first answers of a lane to a schema, so that one that accepts and
ignores it costs a few answers and not a run.

In: structured answers as they come, live or in a batch. Out: nothing, or why their lane has to stop. Counted are the first eight that were
not cut off, refused or spent on tool calls; six that hold no object of the schema are too many. Constrained decoding
gets none wrong, whatever the model; a model that only reads the prompt's words gets some right, and one that gets more
than a quarter right may as well go on: its wrong ones are rejected one by one. Six of eight by chance: at a true error
rate of one in ten, 1 run in 40,000 would stop.
Servers known to do this: vLLM from 0.12 on with the older `guided_json`, transformers' server, gateways that drop what
they do not know.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import orjson

from synthgen.dataclasses import dataclass
from synthgen.templates import Reply, Unusable
from synthgen.types import Completion, Request

__all__ = ["Ignored", "SchemaWatch"]

FIRST, TOO_MANY = 8, 6


@dataclass(frozen=True, slots=True)
class Ignored:
    """A schema that a server did not keep to, and in words how that was seen."""

    schema: str
    evidence: str


class SchemaWatch:
    """What this session has seen of its lanes, by name. `found` is called with each that has to stop, at once."""

    def __init__(self) -> None:
        self.found: Callable[[str, Ignored], None] = lambda lane, ignored: None
        self._seen: Counter[tuple[str, str]] = Counter()
        self._broken: Counter[tuple[str, str]] = Counter()

    def broken_by(self, lane: str, request: Request, completion: Completion) -> int | None:
        """Note an answer; how many of the first broke their schema once they are too many, else None."""
        if request.response_schema is None:
            return None
        asked = lane, request.response_schema
        if self._seen[asked] >= FIRST:
            return None
        if completion.finish_reason not in ("stop", "unknown") or completion.tool_calls:
            return None
        self._seen[asked] += 1
        self._broken[asked] += isinstance(_reader(request.response_schema).read(completion.text), Unusable)
        return self._broken[asked] if self._broken[asked] >= TOO_MANY else None

    def objection(self, lane: str, request: Request, completion: Completion, *, host: str) -> str | None:
        """Note an answer of `host`; why its lane has to stop, in words, else None."""
        broken = self.broken_by(lane, request, completion)
        if broken is None or request.response_schema is None:
            return None
        evidence = (
            f"{host}: {broken} of the first {FIRST} structured answers of {request.teacher.model!r} do not follow the JSON "
            "schema they were asked for, so the server seems to ignore it; use a server that supports `response_format: "
            "json_schema`, or write `structured: false` in the step and let the prompt ask for JSON"
        )
        self.found(lane, Ignored(request.response_schema, evidence))
        return evidence


@lru_cache(maxsize=16)
def _reader(schema: str) -> Reply:
    """Reads answers as the prompt that brought the schema does."""
    return Reply("json", tuple(orjson.loads(schema).get("properties", {})), schema)
