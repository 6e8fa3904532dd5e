"""What is asked of a judge, and what it said: plain values that the verdicts carry and the sidecar stores."""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from synthgen.dataclasses import dataclass
from synthgen.journal import Reply
from synthgen.templates import Prompt
from synthgen.types import Completion, JSONValue, Logprobs, Request

__all__ = ["BEST_OF_STEP", "JUDGE_STEP", "JUDGING_STEPS", "Answered", "JudgeAsk", "Judgement", "unread"]

JUDGE_STEP: Literal["judge"] = "judge"
BEST_OF_STEP: Literal["best_of"] = "best_of"
JUDGING_STEPS = (JUDGE_STEP, BEST_OF_STEP)


@dataclass(frozen=True, slots=True)
class JudgeAsk:
    """One question to a judge."""

    step: Literal["judge", "best_of"]
    alias: str
    request: Request


@dataclass(frozen=True, slots=True)
class Answered:
    """Its reply, with the logprobs where they were captured."""

    reply: Reply
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one judge said of a candidate.

    `scores` are the numbers that count, by criterion, `written` those in the text; they differ where `scores` holds the
    expected value. `overall` is their weighted mean, None where nothing could be read; then `problem` says why. Of a
    comparison, `said` is what was preferred (`A`, this candidate, `B`, the `rival`, or `tie`).
    """

    step: Literal["judge", "best_of"]
    judge: str
    alias: str
    prompt: Prompt
    identity: str
    reply: Reply
    scores: Mapping[str, float] = field(default_factory=dict)
    written: Mapping[str, float] = field(default_factory=dict)
    expected: frozenset[str] = frozenset()
    overall: float | None = None
    reason: str | None = None
    problem: str | None = None
    rival: str | None = None
    said: str | None = None

    @property
    def served_model(self) -> str | None:
        """The name in the reply."""
        return self.reply.completion.served_model if self.reply.completion else None

    def as_json(self) -> dict[str, JSONValue]:
        """What `show --json` prints."""
        return {
            "step": self.step,
            "judge": self.judge,
            "overall": self.overall,
            "scores": dict(self.scores),
            "written": dict(self.written),
            "expected": [name for name in self.scores if name in self.expected],
            "reason": self.reason,
            "problem": self.problem,
            "rival": self.rival,
            "said": self.said,
        }


def unread(completion: Completion) -> Literal["truncated", "unparsable"]:
    """Why nothing could be read from a reply."""
    return "truncated" if completion.finish_reason == "length" else "unparsable"
