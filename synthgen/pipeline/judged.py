"""A wave before its judges: first the panel, then the contest among those it let pass.

In: screened verdicts in plan order. Out: the same verdicts with their judgements applied. `rounds` says what is to be
asked and takes the replies, but asks nobody: `generate` answers it through the paid path, refining from the journal, so
the two halves cannot disagree. Guarantee: nothing is asked about a candidate that something free has rejected.
"""

import asyncio
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from synthgen.asking import Asker, NotAsked
from synthgen.dataclasses import dataclass
from synthgen.journal import JournalIndex, read_logprobs, read_reply
from synthgen.pipeline.contest import Contest
from synthgen.pipeline.judgement import JUDGE_STEP, Answered, JudgeAsk, Judgement
from synthgen.pipeline.judging import OVERALL, Panel
from synthgen.pipeline.privacy import ALLOW, Privacy
from synthgen.pipeline.tree import Leaf
from synthgen.pipeline.verdicts import Verdict

__all__ = ["Judging", "ask_judges", "look_up", "look_up_judges"]

Rounds = Generator[list[JudgeAsk], list[Answered | None], list[Verdict]]
Misjudged = Callable[[Judgement], str | None]


@dataclass(frozen=True, slots=True)
class Judging:
    """Who decides about candidates that passed the filters: a panel, a contest, both or nobody."""

    panel: Panel | None = None
    contest: Contest | None = None
    privacy: Privacy = ALLOW

    @property
    def aliases(self) -> set[str]:
        """The teachers who judge."""
        judges = {judge.spec.alias for judge in self.panel.judges} if self.panel else set()
        return judges | {one.spec.alias for one in (self.contest.comparers if self.contest else ())}

    @property
    def ships(self) -> bool:
        """Whether what judges said may leave with the records."""
        given = [part.ship_score for part in (self.panel, self.contest) if part is not None]
        return any(given)

    def ships_step(self, step: str) -> bool:
        """Whether what was said in this step may leave with the records."""
        part = self.panel if step == JUDGE_STEP else self.contest
        return part is not None and part.ship_score

    def without_asking(self) -> "Judging":
        """The same where nothing can be asked: what is missing is unjudged, not pending."""
        return Judging(
            replace(self.panel, missing_is_pending=False) if self.panel else None,
            replace(self.contest, missing_is_pending=False) if self.contest else None,
            self.privacy,
        )

    def asks(self, leaves: Iterable[Leaf]) -> list[tuple[JudgeAsk, Leaf]]:
        """All that could be asked about these candidates, each with the one it is about (of two, the first shown)."""
        leaves = [leaf for leaf in leaves if leaf.state == "candidate" and self._objection(leaf) is None]
        found = [
            (ask, leaf) for leaf in leaves for ask in (self.panel.asks(leaf.messages) if self.panel else ())
        ]
        for group in _groups(leaves) if self.contest else ():
            for match in self.contest.matches(group) if self.contest else ():
                ask = match.comparer.ask(group[match.first], group[match.second])
                found.append((ask, group[match.first]))
        return found

    def rounds(self, verdicts: Sequence[Verdict], misjudged: Misjudged) -> Rounds:
        """The questions, round by round; send the answers back in their order, None for what is not asked now.

        `misjudged` says why a judgement's served identity is not the one that was vetted.
        """
        verdicts = yield from self._score([self._withheld(verdict) for verdict in verdicts], misjudged)
        return (yield from self._compare(verdicts, misjudged))

    def _objection(self, leaf: Leaf) -> tuple[str, str] | None:
        """The reason and the judge for which a candidate must not be shown to its judges."""
        if self.privacy.mode != "block":
            return None
        asks = self.panel.asks(leaf.messages) if self.panel else []
        asks += [comparer.ask(leaf, leaf) for comparer in (self.contest.comparers if self.contest else ())]
        for ask in asks:
            reason = self.privacy.objection(ask.alias, ask.request.messages)
            if reason is not None:
                return reason, ask.alias
        return None

    def _withheld(self, verdict: Verdict) -> Verdict:
        """A candidate that may not be shown to a judge is rejected; nothing is asked about it."""
        found = None if verdict.outcome is not None else self._objection(verdict.leaf)
        if found is None:
            return verdict
        reason, alias = found
        return replace(
            verdict, outcome="rejected", stage="privacy", reason=reason, detail=f"not sent to {alias}"
        )

    def _score(self, verdicts: Sequence[Verdict], misjudged: Misjudged) -> Rounds:
        panel = self.panel
        waiting = [verdict for verdict in verdicts if verdict.outcome is None]
        if panel is None or not waiting:
            return list(verdicts)
        answers = iter((yield [ask for verdict in waiting for ask in panel.asks(verdict.leaf.messages)]))
        applied = {}
        for verdict in waiting:
            own = zip(panel.judges, islice(answers, len(panel.judges)), strict=True)
            said = [judge.read(one.reply, one.logprobs) if one else None for judge, one in own]
            applied[verdict.leaf.id] = _refused(verdict, said, misjudged) or panel.apply(verdict, said)
        return [applied.get(verdict.leaf.id, verdict) for verdict in verdicts]

    def _compare(self, verdicts: Sequence[Verdict], misjudged: Misjudged) -> Rounds:
        contest = self.contest
        if contest is None:
            return list(verdicts)
        by_id = {verdict.leaf.id: verdict for verdict in verdicts}
        groups = _groups(verdict.leaf for verdict in verdicts if verdict.outcome is None)
        matches = [contest.matches(group) for group in groups]
        asks = [
            match.comparer.ask(group[match.first], group[match.second])
            for group, own in zip(groups, matches, strict=True)
            for match in own
        ]
        answers = iter((yield asks) if asks else ())
        for group, own in zip(groups, matches, strict=True):
            said = [
                match.comparer.read(one.reply, group[match.second].id) if one else None
                for match, one in zip(own, islice(answers, len(own)), strict=True)
            ]
            members = [by_id[leaf.id] for leaf in group]
            refused = [found for member in members if (found := _refused(member, said, misjudged))]
            for verdict in refused or contest.apply(members, said, self._panel_score):
                by_id[verdict.leaf.id] = verdict
        return list(by_id.values())

    def _panel_score(self, verdict: Verdict) -> float | None:
        combined = self.panel.combined(verdict.judgements) if self.panel else None
        return None if combined is None else combined[OVERALL]


def _groups(leaves: Iterable[Leaf]) -> list[list[Leaf]]:
    """Samples of one question, together, in plan order."""
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.group, []).append(leaf)
    return list(groups.values())


def _refused(verdict: Verdict, said: Sequence[Judgement | None], misjudged: Misjudged) -> Verdict | None:
    """The verdict on a candidate that somebody judged who was not vetted."""
    given = tuple(judgement for judgement in said if judgement is not None)
    problem = next((found for judgement in given if (found := misjudged(judgement))), None)
    if problem is None:
        return None
    return replace(
        verdict,
        outcome="quarantined",
        stage="policy",
        reason="judge_identity",
        detail=problem,
        judgements=(*verdict.judgements, *(one for one in given if one.rival is None)),
    )


async def ask_judges(rounds: Rounds, asker: Asker, index: JournalIndex) -> list[Verdict]:
    """Answer the rounds through the paid path; what cannot be asked now stays out."""

    async def answer(ask: JudgeAsk) -> Answered | None:
        try:
            reply = await asker.ask(ask.request, step=ask.step, alias=ask.alias)
        except NotAsked:
            return None
        return _with_logprobs(ask, Answered(reply), index)

    try:
        asks = next(rounds)
        while True:
            asks = rounds.send(list(await asyncio.gather(*map(answer, asks))))
    except StopIteration as end:
        return list(end.value)


def look_up_judges(rounds: Rounds, index: JournalIndex) -> list[Verdict]:
    """Answer the rounds from the journal alone."""
    try:
        asks = next(rounds)
        while True:
            asks = rounds.send([look_up(ask, index) for ask in asks])
    except StopIteration as end:
        return list(end.value)


def look_up(ask: JudgeAsk, index: JournalIndex) -> Answered | None:
    """What the journal holds of a question, or None."""
    entry = index.reply(ask.request.key())
    return None if entry is None else _with_logprobs(ask, Answered(read_reply(entry)), index)


def _with_logprobs(ask: JudgeAsk, answered: Answered, index: JournalIndex) -> Answered:
    """Replies travel without their logprobs; those of a judge are read when its score is."""
    entry = index.reply(answered.reply.key) if ask.request.capture else None
    return answered if entry is None else replace(answered, logprobs=read_logprobs(entry))
