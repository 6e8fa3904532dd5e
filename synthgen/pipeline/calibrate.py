"""Calibration: a run's stored judgements beside what people said of the same records. Asks nobody.

    journal -> judgements of every candidate -> matched with labels -> agreement, threshold, biases, warnings

In: a run folder, a file of labels, the precision that is wanted. Out: a `Calibration`, stored as `calibration.json`, whose
id is a digest of the judges' identity, the labels and the method. Guarantees: the same journal and labels give the same
numbers; what the data cannot show is a warning in words, with the count that would be needed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import pstdev
from typing import cast

import numpy as np
import orjson

from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.errors import UsageError
from synthgen.journal import JournalIndex
from synthgen.pipeline.calibrated import CALIBRATION
from synthgen.pipeline.calibration import METHOD, Calibration, JudgeRow
from synthgen.pipeline.calibration_warnings import warnings_of
from synthgen.pipeline.contest import Match
from synthgen.pipeline.judged import look_up
from synthgen.pipeline.judgement import Judgement
from synthgen.pipeline.judging import COMPARE, OVERALL, Panel, shown
from synthgen.pipeline.labels import Labels, read_labels
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.rows import Counter as Seen
from synthgen.pipeline.rows import row_from_entry
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.tree import Leaf
from synthgen.refine.agreement import auc, best_cut, cuts, kappa, spearman, within_groups
from synthgen.refine.pairwise import bradley_terry, position_bias, settled
from synthgen.types import digest

__all__ = ["calibrate"]

_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class _Judged:
    """A candidate with what was said of it; `label` None: people said nothing."""

    judgements: tuple[Judgement, ...]
    score: float | None
    length: int
    label: float | None


@dataclass(frozen=True, slots=True)
class _Compared:
    """Two samples, and what was preferred in either order."""

    teachers: tuple[str, str]
    orders: tuple[str | None, str | None]


def calibrate(run: Path, labels: Path, *, precision: float = 0.9) -> Calibration:
    """Compare a run's judges with people and store the result in the run folder.

    Raises:
        UsageError: not a run, no judge, no label that fits a judged record, or labels that cannot be read.
    """
    if not 0 < precision < 1:
        raise UsageError(f"precision {precision:g}: is a share between 0 and 1, like 0.9")
    folder = RunFolder(run)
    resolved = resolve(folder.load_recipe(), copies=folder.recipe_files)
    panel = resolved.panel
    if panel is None:
        raise UsageError(f"{run}: the recipe of this run has no judge that scores (refine.judge)")
    given = read_labels(labels, *panel.score_range())
    index = JournalIndex(folder.journal)
    try:
        candidates = [leaf for leaves in _rows(folder, resolved, index) for leaf in leaves]
        found: set[object] = set()
        judged = [_judged(leaf, panel, index, given, found) for leaf in candidates]
        compared = list(_compared(resolved, candidates, index))
    finally:
        index.close()
    result = _calibration(run, panel, given, judged, compared, precision, len(found))
    write_bytes(run / CALIBRATION, orjson.dumps(result.as_json(), option=_PRETTY))
    return result


def _rows(folder: RunFolder, resolved: Resolved, index: JournalIndex) -> Iterator[list[Leaf]]:
    """The candidates of each row, in plan order."""
    seen, reply_of = Seen(), folder.reply_of(index)
    for key in folder.read_order():
        entry = index.row(key)
        if entry is not None:
            asks = resolved.tree.admit(row_from_entry(entry), seen)
            yield [leaf for leaf in resolved.tree.leaves(asks, reply_of) if leaf.state == "candidate"]


def _judged(leaf: Leaf, panel: Panel, index: JournalIndex, labels: Labels, found: set[object]) -> _Judged:
    said = []
    for judge in panel.judges:
        answered = look_up(judge.ask(leaf.messages), index)
        if answered is not None:
            said.append(judge.read(answered.reply, answered.logprobs))
    combined = panel.combined(said)
    instruction, response = shown(leaf.messages)
    label = labels.of(leaf.id, instruction, response)
    if label is not None:
        found.add(label[0])
    score = None if combined is None else combined[OVERALL]
    return _Judged(tuple(said), score, len(response), None if label is None else label[1])


def _compared(resolved: Resolved, candidates: Sequence[Leaf], index: JournalIndex) -> Iterator[_Compared]:
    """Every pair that was shown in both orders."""
    contest = resolved.contest
    groups: dict[str, list[Leaf]] = {}
    for leaf in candidates if contest else ():
        groups.setdefault(leaf.group, []).append(leaf)
    for group in groups.values():
        for match in contest.matches(group) if contest else ():
            if match.first < match.second:
                said = [
                    _said(one, group, index)
                    for one in (match, Match(match.comparer, match.second, match.first))
                ]
                if None not in said:
                    first, second = cast(list[Judgement], said)
                    aliases = (
                        group[match.first].asked[-1].ask.alias,
                        group[match.second].asked[-1].ask.alias,
                    )
                    yield _Compared(aliases, (first.said, second.said))


def _said(match: Match, group: Sequence[Leaf], index: JournalIndex) -> Judgement | None:
    first, second = group[match.first], group[match.second]
    answered = look_up(match.comparer.ask(first, second), index)
    return None if answered is None else match.comparer.read(answered.reply, second.id)


def _calibration(
    run: Path,
    panel: Panel,
    labels: Labels,
    judged: Sequence[_Judged],
    compared: Sequence[_Compared],
    precision: float,
    named: int,
) -> Calibration:
    labelled = [one for one in judged if one.label is not None and one.judgements]
    if not labelled:
        raise UsageError(
            f"{run}: none of the {len(labels)} labels is of a record that the judges saw "
            f"({named} are of candidates of this run); label records by their `id` in data/ or rejected/"
        )
    people = _People(panel, labels.binary)
    rows = tuple(_judge_row(panel, place, judged, people) for place in range(len(panel.judges)))
    scored = [one for one in labelled if one.score is not None]
    if not scored:
        raise UsageError(f"{run}: none of the {len(labelled)} labelled records has a score: {_unread(rows)}")
    scores = np.array([one.score for one in scored], np.float64)
    said = np.array([one.label for one in scored], np.float64)
    good = np.array([people.find_good(one) for one in scored], np.bool_)
    kept = np.array([panel.keeps(one.judgements) for one in scored], np.bool_)
    lost = sum(people.find_good(one) for one in labelled if one.score is None)
    # What is better is greater, whichever way the judges count.
    way = -1.0 if panel.lower_is_better else 1.0
    decides = np.array([panel.cut_at(one.judgements) for one in scored], np.float64)
    picked = best_cut(way * decides, good, precision, unscored_good=lost)
    (now,) = cuts(kept, good, [1.0], unscored_good=lost)
    identity = panel.identity()
    result = Calibration(
        run=run,
        id=digest([identity, labels.digest, METHOD, precision]),
        judge=identity,
        judge_id=panel.id,
        labels=len(labels),
        labels_digest=labels.digest,
        binary=labels.binary,
        matched=len(labelled),
        scored=len(scored),
        good=int(good.sum()),
        precision=precision,
        rules={name: f"{sign} {bound:g}" for name, (sign, bound) in panel.rules.items()},
        sign="<=" if panel.lower_is_better else ">=",
        now=replace(now, threshold=panel.rules.get(OVERALL, (">=", panel.score_range()[0]))[1]),
        picked=replace(picked, threshold=way * picked.threshold) if picked else None,
        kappa=kappa(kept, good),
        weighted_kappa=None if labels.binary else kappa(np.round(scores), said, weights="quadratic"),
        auc=auc(way * scores, good),
        spearman=spearman(scores, said),
        verbosity=within_groups([one.length for one in scored], scores, said),
        position=position_bias([one.orders for one in compared]) if compared else None,
        strengths=_strengths(compared),
        judges=rows,
    )
    return replace(result, warnings=tuple(warnings_of(result, panel, named)))


class _People:
    """What the labels call good: yes, or a score that the rule for the overall score would keep.

    Without such a rule, the strictest of the rules for criteria.
    """

    def __init__(self, panel: Panel, binary: bool) -> None:
        strictest = max(panel.rules.values(), key=lambda rule: rule[1])
        self.rule = (">", 0.5) if binary else panel.rules.get(OVERALL, strictest)

    def find_good(self, one: _Judged) -> bool:
        """Whether people would keep a labelled record."""
        sign, bound = self.rule
        return COMPARE[sign](one.label or 0.0, bound)


def _unread(rows: Sequence[JudgeRow]) -> str:
    """Why there are no scores, and what to do."""
    told = [
        f"judge {row.judge}: {row.unparsable} of {row.judgements} replies could not be read"
        + (f", {row.truncated} ended at `max_tokens`" if row.truncated else "")
        for row in rows
    ]
    return f"{'; '.join(told)}; read one with `synthgen show RUN --row ID`, then change the judge's model, prompt or max_tokens"


def _strengths(compared: Sequence[_Compared]) -> dict[str, float]:
    """Of teachers that met; one alone cannot be ranked."""
    games = [
        (*one.teachers, point)
        for one in compared
        if one.teachers[0] != one.teachers[1] and (point := settled(*one.orders)) is not None
    ]
    return bradley_terry(games)


def _judge_row(panel: Panel, place: int, judged: Sequence[_Judged], people: _People) -> JudgeRow:
    name = panel.judges[place].name
    own = [(said, one) for one in judged for said in one.judgements if said.judge == name]
    read = [(said, one) for said, one in own if said.overall is not None]
    values = [said.overall for said, _ in read if said.overall is not None]
    labelled = [(said, people.find_good(one)) for said, one in read if one.label is not None]
    good = [is_good for _, is_good in labelled]
    way = -1.0 if panel.lower_is_better else 1.0
    return JudgeRow(
        judge=name,
        judgements=len(own),
        unparsable=len(own) - len(read),
        truncated=sum(said.problem == "truncated" for said, _ in own),
        expected=sum(bool(said.expected) for said, _ in own),
        mean=float(np.mean(values)) if values else None,
        spread=pstdev(values) if values else None,
        most=Counter(round(value, 2) for value in values).most_common(1)[0] if values else None,
        auc=auc([way * (said.overall or 0.0) for said, _ in labelled], good) if labelled else None,
        kappa=kappa([panel.votes_for(said) for said, _ in labelled], good) if labelled else None,
        served_models=tuple(sorted({model for said, _ in own if (model := said.served_model)})),
    )
