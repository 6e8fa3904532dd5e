"""Judges that score: a panel of one or several, asked through the paid path like everything else.

In: a candidate's messages. Out: `Request`s whose keys depend on the texts alone (same text, same score), and the
verdict their replies lead to. Guarantees: a reply that cannot be read is an outcome (`unjudged`), never a score; a
missing one leaves the candidate pending; a judge's identity changes with whatever its scores depend on, and with
nothing else.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Literal

from synthgen.asking import TeacherSpec
from synthgen.dataclasses import dataclass
from synthgen.journal import Reply
from synthgen.pipeline.judgement import JUDGE_STEP, JudgeAsk, Judgement, unread
from synthgen.pipeline.privacy import ALLOW, Privacy
from synthgen.pipeline.verdicts import Verdict
from synthgen.templates import Parsed, Prompt, parse_reply, render_messages, split_thinking
from synthgen.types import JSONValue, Logprobs, Message, Request, Sampling, TeacherIdentity, digest

__all__ = ["COMPARE", "OVERALL", "Judge", "Panel", "Rule", "identity_of", "shown"]

Rule = tuple[str, float]
OVERALL = "overall"
COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}


def shown(messages: Sequence[Message]) -> tuple[str, str]:
    """What a judge sees of a record: the user's turns before the last answer, and that answer."""
    last = max(i for i, message in enumerate(messages) if message.role == "assistant")
    asked = [message.content for message in messages[:last] if message.role == "user"]
    return "\n\n".join(asked), messages[last].said


def identity_of(
    teacher: TeacherIdentity, prompt: Prompt, sampling: Sampling, **more: JSONValue
) -> dict[str, JSONValue]:
    """What a judge's words depend on, apart from what it judges."""
    return {
        "teacher": teacher.as_json(),
        "prompt": {"name": prompt.name, "version": prompt.version, "digest": prompt.digest},
        "sampling": sampling.as_json(),
        **more,
    }


@dataclass(frozen=True, slots=True)
class Judge:
    """One teacher with one scoring prompt. `weights`: criterion -> its share in the overall score, over their sum."""

    name: str
    spec: TeacherSpec
    prompt: Prompt
    sampling: Sampling
    weights: Mapping[str, float]
    capture: tuple[str, ...] = ()
    privacy: Privacy = ALLOW

    @property
    def is_rubric(self) -> bool:
        """Whether it scores by criteria."""
        return self.prompt.reply.kind == "rubric"

    def identity(self) -> dict[str, JSONValue]:
        """What its scores depend on."""
        weights: JSONValue = dict(self.weights)
        capture: JSONValue = list(self.capture)
        return identity_of(self.spec.identity, self.prompt, self.sampling, weights=weights, capture=capture)

    def ask(self, messages: Sequence[Message]) -> JudgeAsk:
        """The question about one candidate."""
        instruction, response = shown(messages)
        fields: dict[str, JSONValue] = {"instruction": instruction, "response": response}
        request = Request(
            messages=self.privacy.prompt(render_messages(self.prompt, fields))[0],
            teacher=self.spec.identity,
            sampling=self.sampling,
            capture=self.capture,
        )
        return JudgeAsk(JUDGE_STEP, self.spec.alias, request)

    def read(self, reply: Reply, logprobs: Logprobs | None = None) -> Judgement:
        """The scores in a reply: expected values where its tokens tell them, else as written."""
        said = Judgement(JUDGE_STEP, self.name, self.spec.alias, self.prompt, digest(self.identity()), reply)
        if reply.completion is None:
            return replace(said, problem=f"failed:{reply.reason}")
        written, reason = self._written(reply.completion.text)
        if written is None:
            return replace(said, problem=unread(reply.completion), reason=reason)
        from synthgen.refine import expected_scores

        expected = expected_scores(written, *self.prompt.score_range(), logprobs)
        scores = {**written, **expected}
        weighed = sum(self.weights[name] * score for name, score in scores.items())
        return replace(
            said,
            scores=scores,
            written=written,
            expected=frozenset(expected),
            overall=weighed / sum(self.weights.values()),
            reason=reason,
        )

    def _written(self, text: str) -> tuple[dict[str, float] | None, str | None]:
        """The scores as they stand in the text, and the reason given for them."""
        reason: str | None = None
        parsed = parse_reply(self.prompt, text)
        if isinstance(parsed, Parsed):
            fields = parsed.items[0]
            stated = fields.get("reason")
            reason = stated if isinstance(stated, str) else None
            numbers = {name: _number(fields.get(name)) for name in self.weights}
            found = {name: number for name, number in numbers.items() if number is not None}
            if len(found) == len(self.weights):
                return found, reason
        from synthgen.refine import parse_rubric, parse_score  # 5 ms: only where a judge is asked

        _, answer = split_thinking(text)
        low, high = self.prompt.score_range()
        if self.is_rubric:
            return parse_rubric(answer, self.weights, low, high), reason
        score = parse_score(answer, low, high)
        return None if score is None else dict.fromkeys(self.weights, score), reason


def _number(value: JSONValue) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class Panel:
    """The judges of a recipe and what their scores decide.

    `rules`: `overall` or a criterion -> what must hold. Scores of fewer than `min_judges` are no judgement. Scores are
    combined by `combine`; with `majority`, more than half of those who gave scores must want to keep the record by
    `rules`, and the combined numbers are means. `missing_is_pending` False: what was never asked is `unjudged`.
    """

    judges: tuple[Judge, ...]
    rules: Mapping[str, Rule]
    ship_score: bool = True
    combine: Literal["mean", "median", "majority"] = "mean"
    min_judges: int = 1
    missing_is_pending: bool = True

    def identity(self) -> dict[str, JSONValue]:
        """What the combined scores depend on: not the rules, which only cut."""
        judges: list[JSONValue] = [judge.identity() for judge in self.judges]
        return {"judges": judges, "combine": self.combine, "min_judges": self.min_judges}

    @property
    def id(self) -> str:
        """Digest of the identity."""
        return digest(self.identity())

    def score_range(self) -> tuple[float, float]:
        """Least and greatest score; the same for all judges."""
        return self.judges[0].prompt.score_range()

    @property
    def lower_is_better(self) -> bool:
        """Whether the rule for the overall score keeps what is below its bound."""
        return self.rules.get(OVERALL, (">=", 0.0))[0] in ("<", "<=")

    def asks(self, messages: Sequence[Message]) -> list[JudgeAsk]:
        """The questions about one candidate, one a judge."""
        return [judge.ask(messages) for judge in self.judges]

    def combined(self, judgements: Sequence[Judgement]) -> dict[str, float] | None:
        """`overall`, and with rubrics each criterion, over the judges who gave scores; None: too few did."""
        scored = [judgement for judgement in judgements if judgement.overall is not None]
        if len(scored) < self.min_judges:
            return None
        mean = median if self.combine == "median" else fmean
        found = {OVERALL: mean([one.overall for one in scored if one.overall is not None])}
        criteria = dict.fromkeys(name for judge in self.judges if judge.is_rubric for name in judge.weights)
        for name in criteria:
            values = [one.scores[name] for one in scored if name in one.scores]
            if values:
                found[name] = mean(values)
        return found

    def keeps(self, judgements: Sequence[Judgement]) -> bool:
        """Whether the rules keep a record of which this was said."""
        combined = self.combined(judgements)
        if combined is None:
            return False
        broken = self._outvoted(judgements) if self.combine == "majority" else self._broken(combined)
        return broken is None

    def votes_for(self, one: Judgement) -> bool:
        """Whether one judge alone would keep it."""
        return self._broken({OVERALL: one.overall or 0.0, **one.scores}) is None

    def cut_at(self, judgements: Sequence[Judgement]) -> float | None:
        """What a rule for the overall score compares with its bound, all other rules as they are; None: no judgement.

        Infinitely bad where another rule rejects. With `majority` it is the score of the voter who decides.
        """
        combined = self.combined(judgements)
        if combined is None:
            return None
        others = {name: rule for name, rule in self.rules.items() if name != OVERALL}
        worst = math.inf if self.lower_is_better else -math.inf
        if self.combine != "majority":
            return worst if self._broken(combined, others) else combined[OVERALL]
        voters = [
            worst if self._broken(one.scores, others) else one.overall
            for one in judgements
            if one.overall is not None
        ]
        return sorted(voters, reverse=not self.lower_is_better)[len(voters) // 2]

    def apply(self, verdict: Verdict, judgements: Sequence[Judgement | None]) -> Verdict:
        """The candidate's verdict, given its judgements in the order of the judges; None: not asked."""
        given = tuple(judgement for judgement in judgements if judgement is not None)
        verdict = replace(verdict, judgements=(*verdict.judgements, *given))
        if len(given) < len(judgements) and self.missing_is_pending:
            return replace(verdict, outcome="pending", stage=JUDGE_STEP, reason="pending")
        combined = self.combined(given)
        if combined is None:
            return replace(
                verdict, outcome="rejected", stage=JUDGE_STEP, reason="unjudged", detail=self._unjudged(given)
            )
        if self.ship_score:
            verdict = replace(verdict, scores=(*verdict.scores, *self._named(combined, given)))
        broken = self._outvoted(given) if self.combine == "majority" else self._broken(combined)
        if broken is None:
            return verdict
        score, threshold, detail = broken if self.ship_score else (None, None, None)
        return replace(
            verdict,
            outcome="rejected",
            stage=JUDGE_STEP,
            reason="judge_below",
            score=score,
            threshold=threshold,
            detail=detail,
        )

    def _unjudged(self, given: Sequence[Judgement]) -> str:
        problems = ", ".join(f"{one.judge}: {one.problem}" for one in given if one.problem) or "never asked"
        if len(self.judges) == 1:
            return problems
        scored = sum(one.overall is not None for one in given)
        return (
            f"{scored} of {len(self.judges)} judges gave a score, {self.min_judges} are needed ({problems})"
        )

    def _named(self, combined: Mapping[str, float], given: Sequence[Judgement]) -> list[tuple[str, float]]:
        """The scores a record shows: the combined ones, each judge's, and how far they lie apart."""
        named = [
            (JUDGE_STEP if name == OVERALL else f"{JUDGE_STEP}:{name}", score)
            for name, score in combined.items()
        ]
        if len(self.judges) > 1:
            own = [(one.judge, one.overall) for one in given if one.overall is not None]
            named += [(f"{JUDGE_STEP}@{name}", score) for name, score in own]
            named.append((f"{JUDGE_STEP}:spread", max(s for _, s in own) - min(s for _, s in own)))
        return named

    def _broken(
        self, scores: Mapping[str, float], rules: Mapping[str, Rule] | None = None
    ) -> tuple[float, float, str | None] | None:
        """The first rule that does not hold: the score, its bound, and words for a criterion."""
        for name, (sign, bound) in (self.rules if rules is None else rules).items():
            if not COMPARE[sign](scores[name], bound):
                words = None if name == OVERALL else f"{name} breaks {sign} {bound:g}"
                return scores[name], bound, words
        return None

    def _outvoted(self, given: Sequence[Judgement]) -> tuple[float, float, str | None] | None:
        voters = [one for one in given if one.overall is not None]
        keep = sum(map(self.votes_for, voters))
        if keep > len(voters) / 2:
            return None
        return keep / len(voters), 0.5, f"{keep} of {len(voters)} judges would keep it"
