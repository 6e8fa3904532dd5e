"""The judge: a scoring prompt over finished candidates, asked through the paid path like everything else.

In: a candidate's messages. Out: a `Request` whose key depends on the texts alone (same text, same score), and the
verdict its reply leads to. An unusable judgement rejects the candidate as `unjudged`; a missing one leaves it pending.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

from synthgen.asking import TeacherSpec
from synthgen.journal import Reply
from synthgen.pipeline.privacy import ALLOW, Privacy
from synthgen.pipeline.verdicts import Verdict
from synthgen.refine import parse_score
from synthgen.templates import Parsed, Prompt, parse_reply, render_messages
from synthgen.types import JSONValue, Message, Request, Sampling

__all__ = ["JUDGE_STEP", "Judge"]

JUDGE_STEP = "judge"
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Judge:
    """A judge of the recipe, resolved. `rule`: comparison and number a score must satisfy to be kept."""

    spec: TeacherSpec
    prompt: Prompt
    sampling: Sampling
    rule: tuple[str, float]
    ship_score: bool
    missing_is_pending: bool = True
    privacy: Privacy = ALLOW

    def request(self, messages: tuple[Message, ...]) -> Request:
        """The question about one candidate."""
        last = max(i for i, message in enumerate(messages) if message.role == "assistant")
        asked = [message.content for message in messages[:last] if message.role == "user"]
        fields: dict[str, JSONValue] = {
            "instruction": "\n\n".join(asked),
            "response": messages[last].said,
        }
        asked_of, _ = self.privacy.prompt(render_messages(self.prompt, fields))
        return Request(messages=asked_of, teacher=self.spec.identity, sampling=self.sampling)

    def objection(self, messages: tuple[Message, ...]) -> str | None:
        """Why this candidate must not be shown to the judge; None where it may."""
        return self.privacy.objection(self.spec.alias, self.request(messages).messages)

    def look_up(self, messages: tuple[Message, ...], reply_of: Callable[[str], Reply | None]) -> Reply | None:
        """The judgement the journal holds of a candidate."""
        return reply_of(self.request(messages).key())

    def score(self, reply: Reply) -> float | None:
        """The number in a judge's reply, or None where there is none."""
        if reply.completion is None:
            return None
        parsed = parse_reply(self.prompt, reply.completion.text)
        if isinstance(parsed, Parsed) and parsed.items:
            value = parsed.items[0].get(self.prompt.reply.score or "score")
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        return parse_score(reply.completion.text, *self.prompt.score_range())

    def apply(self, verdict: Verdict) -> Verdict:
        """The candidate's verdict, given its judgement."""
        reply = verdict.judgement
        if reply is None and (reason := self.objection(verdict.leaf.messages)) is not None:
            return replace(
                verdict,
                outcome="rejected",
                stage="privacy",
                reason=reason,
                detail=f"not sent to {self.spec.alias}",
            )
        if reply is None and self.missing_is_pending:
            return replace(verdict, outcome="pending", stage=JUDGE_STEP, reason="pending")
        score = None if reply is None else self.score(reply)
        if score is None:
            return replace(verdict, outcome="rejected", stage=JUDGE_STEP, reason="unjudged")
        shipped = score if self.ship_score else None
        if shipped is not None:
            verdict = replace(verdict, scores=(*verdict.scores, (JUDGE_STEP, shipped)))
        compare, threshold = self.rule
        if _COMPARE[compare](score, threshold):
            return replace(verdict, outcome="accepted")
        return replace(
            verdict,
            outcome="rejected",
            stage=JUDGE_STEP,
            reason="judge_below",
            score=shipped,
            threshold=None if shipped is None else threshold,
        )
