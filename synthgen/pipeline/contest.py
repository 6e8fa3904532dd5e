"""Best of n: the samples of one question against each other, and only the best are kept.

In: the verdicts of one question's samples that passed everything before. Out: the questions to those who compare
(every two samples, in both orders) and the final verdicts. Guarantees: an order that changes the answer is a tie; a
comparison that cannot be read in both orders is nobody's point, and a sample without any is `unjudged`; equal
samples are ranked by plan order. Samples of different teachers meet here: that is teacher against teacher.
Rejected: a knockout, which needs half as many questions for n = 3 but rounds that wait for one another, and gives no
score to those who left early.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

from synthgen.asking import TeacherSpec
from synthgen.dataclasses import dataclass
from synthgen.journal import Reply
from synthgen.pipeline.judgement import BEST_OF_STEP, JudgeAsk, Judgement, unread
from synthgen.pipeline.judging import identity_of, shown
from synthgen.pipeline.privacy import ALLOW, Privacy
from synthgen.pipeline.tree import Leaf
from synthgen.pipeline.verdicts import Verdict
from synthgen.refine.pairwise import settled, win_scores
from synthgen.templates import Parsed, Prompt, parse_reply, render_messages, split_thinking
from synthgen.types import JSONValue, Request, Sampling, digest

__all__ = ["Comparer", "Contest", "Match"]


@dataclass(frozen=True, slots=True)
class Comparer:
    """One teacher with one comparing prompt."""

    name: str
    spec: TeacherSpec
    prompt: Prompt
    sampling: Sampling
    privacy: Privacy = ALLOW

    def identity(self) -> dict[str, JSONValue]:
        """What its preferences depend on."""
        return identity_of(self.spec.identity, self.prompt, self.sampling)

    def ask(self, first: Leaf, second: Leaf) -> JudgeAsk:
        """Which of two is better, in this order."""
        instruction, ours = shown(first.messages)
        fields: dict[str, JSONValue] = {
            "instruction": instruction,
            "response_a": ours,
            "response_b": shown(second.messages)[1],
        }
        messages, _ = self.privacy.prompt(render_messages(self.prompt, fields))
        request = Request(messages, self.spec.identity, self.sampling)
        return JudgeAsk(BEST_OF_STEP, self.spec.alias, request)

    def read(self, reply: Reply, rival: str) -> Judgement:
        """What was preferred."""
        said = Judgement(
            BEST_OF_STEP, self.name, self.spec.alias, self.prompt, digest(self.identity()), reply, rival=rival
        )
        if reply.completion is None:
            return replace(said, problem=f"failed:{reply.reason}")
        parsed = parse_reply(self.prompt, reply.completion.text)
        if isinstance(parsed, Parsed):
            reason, preferred = (parsed.items[0].get(name) for name in self.prompt.outputs)
            return replace(said, said=str(preferred), reason=reason if isinstance(reason, str) else None)
        from synthgen.refine import parse_preference  # 3 ms: only where a comparer is asked

        found = parse_preference(split_thinking(reply.completion.text)[1])
        return replace(said, said=found, problem=None if found else unread(reply.completion))


@dataclass(frozen=True, slots=True)
class Match:
    """One comparison of two samples of a group, by their places in it; `first` is shown as A."""

    comparer: Comparer
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Contest:
    """How many samples of a question stay, and who compares them; without comparers the panel's score decides."""

    comparers: tuple[Comparer, ...]
    keep: int
    ship_score: bool = True
    missing_is_pending: bool = True

    def matches(self, group: Sequence[Leaf]) -> list[Match]:
        """Every two samples in both orders; none where all may stay anyway."""
        if len(group) <= self.keep:
            return []
        return [
            Match(comparer, *order)
            for one, other in combinations(range(len(group)), 2)
            for order in ((one, other), (other, one))
            for comparer in self.comparers
        ]

    def apply(
        self,
        group: Sequence[Verdict],
        said: Sequence[Judgement | None],
        panel_score: Callable[[Verdict], float | None],
    ) -> list[Verdict]:
        """The verdicts of a group, given what was said in its matches; None: not asked."""
        if len(group) <= self.keep:
            return list(group)
        matches = self.matches([verdict.leaf for verdict in group])
        group = [
            replace(verdict, judgements=(*verdict.judgements, *_own(place, matches, said)))
            for place, verdict in enumerate(group)
        ]
        if None in said and self.missing_is_pending:
            return [replace(v, outcome="pending", stage=BEST_OF_STEP, reason="pending") for v in group]
        scores = (
            win_scores(len(group), self._points(matches, said))
            if self.comparers
            else [panel_score(verdict) for verdict in group]
        )
        ranked = sorted(
            (place for place, score in enumerate(scores) if score is not None),
            key=lambda place: (-(scores[place] or 0.0), place),
        )
        best = ranked[: self.keep]
        return [self._verdict(group, place, scores, best) for place in range(len(group))]

    def _points(
        self, matches: Sequence[Match], said: Sequence[Judgement | None]
    ) -> dict[tuple[int, int], float | None]:
        """The first one's share of each pair: the mean over those who decided, if more than half did."""
        preferred = {
            (match.comparer.name, match.first, match.second): judgement.said
            for match, judgement in zip(matches, said, strict=True)
            if judgement is not None
        }
        points: dict[tuple[int, int], float | None] = {}
        for one, other in {(m.first, m.second) for m in matches if m.first < m.second}:
            own = [
                settled(preferred.get((c.name, one, other)), preferred.get((c.name, other, one)))
                for c in self.comparers
            ]
            decided = [point for point in own if point is not None]
            enough = 2 * len(decided) > len(self.comparers)
            points[one, other] = sum(decided) / len(decided) if enough else None
        return dict(sorted(points.items()))

    def _verdict(
        self, group: Sequence[Verdict], place: int, scores: Sequence[float | None], best: Sequence[int]
    ) -> Verdict:
        verdict, score = group[place], scores[place]
        if score is None:
            problem = "no comparison could be read in both orders" if self.comparers else "no score"
            return replace(verdict, outcome="rejected", stage=BEST_OF_STEP, reason="unjudged", detail=problem)
        if self.ship_score and self.comparers:
            verdict = replace(verdict, scores=(*verdict.scores, (BEST_OF_STEP, score)))
        if place in best:
            return verdict
        return replace(
            verdict,
            outcome="rejected",
            stage=BEST_OF_STEP,
            reason="not_best",
            score=score if self.ship_score else None,
            threshold=scores[best[-1]] if self.ship_score else None,
            detail=group[best[0]].leaf.id,
        )


def _own(place: int, matches: Sequence[Match], said: Sequence[Judgement | None]) -> list[Judgement]:
    """The comparisons in which a sample was shown first: each belongs to one record."""
    pairs = zip(matches, said, strict=True)
    return [one for match, one in pairs if match.first == place and one is not None]
