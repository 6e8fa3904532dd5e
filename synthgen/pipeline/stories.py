"""What can be told of one candidate: plain values for faces to print."""

from collections.abc import Mapping
from typing import cast

from synthgen.dataclasses import dataclass
from synthgen.journal import Reply
from synthgen.types import JSONValue, Message

__all__ = ["Record", "RowStory", "StepStory", "said", "score_lines"]

Record = dict[str, JSONValue]


@dataclass(frozen=True, slots=True)
class StepStory:
    """One request of a record. `reply` None: not answered. `cost_usd` None: unknown."""

    step: str
    teacher: str
    messages: tuple[Message, ...]
    request_key: str
    reply: Reply | None

    def as_json(self) -> dict[str, JSONValue]:
        """What `--json` prints."""
        reply = self.reply
        completion = reply.completion if reply else None
        usage = completion.usage if completion else None
        return {
            "step": self.step,
            "teacher": self.teacher,
            "request_key": self.request_key,
            "messages": [message.as_json() for message in self.messages],
            "text": completion.text if completion else None,
            "reasoning": completion.reasoning if completion else None,
            "finish_reason": completion.finish_reason if completion else None,
            "failure": f"{reply.reason}: {reply.message}" if reply and reply.reason else None,
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
            "cost_usd": reply.cost_usd if reply else None,
            "attempts": reply.at.attempts if reply else 0,
            "latency_s": reply.at.latency_s if reply else None,
        }


@dataclass(frozen=True, slots=True)
class RowStory:
    """Everything about one candidate: where it came from, each step, what the filters and the judge said."""

    id: str
    outcome: str
    source: str
    fields: Mapping[str, JSONValue]
    steps: tuple[StepStory, ...]
    verdicts: tuple[str, ...]
    record: Record | None
    cost_usd: float | None

    def as_json(self) -> dict[str, JSONValue]:
        """What `--json` prints."""
        return {
            "id": self.id,
            "outcome": self.outcome,
            "source": self.source,
            "fields": dict(self.fields),
            "steps": [step.as_json() for step in self.steps],
            "verdicts": list(self.verdicts),
            "record": self.record,
            "cost_usd": self.cost_usd,
        }


def said(
    stage: JSONValue, reason: JSONValue, score: JSONValue, threshold: JSONValue, detail: JSONValue
) -> str:
    """A rejection in one line: where, why, and by how much."""
    numbers = [
        f"{name} {value}"
        for name, value in (("score", score), ("threshold", threshold))
        if isinstance(value, float)
    ]
    return f"{stage}: {', '.join([str(reason), *numbers])}" + (f" ({detail})" if detail else "")


def score_lines(record: Record) -> list[str]:
    """The scores a record carries, a line each."""
    scores = cast(list[Record], record.get("scores") or [])
    return [f"score {score['name']}: {score['score']}" for score in scores]
