"""Calibration: a run's stored judgements beside what people said of the same records. Asks nobody.

    journal -> judgements of every candidate -> matched with labels -> agreement, threshold, biases, warnings

In: a run folder, a file of labels, the precision that is wanted. Out: a `Calibration`, stored as `calibration.json`, whose
id is a digest of the judges' identity, the labels and the method. Guarantees: the same journal and labels give the same
numbers; what the data cannot show is a warning in words, with the count that would be needed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import pstdev
from typing import cast

import numpy as np
import orjson

from synthgen.dataset import write_bytes
from synthgen.errors import UsageError
from synthgen.journal import JournalIndex
from synthgen.pipeline.calibrated import CALIBRATION
from synthgen.pipeline.contest import Match
from synthgen.pipeline.judged import look_up
from synthgen.pipeline.judgement import Judgement
from synthgen.pipeline.judging import OVERALL, Panel, shown
from synthgen.pipeline.labels import Labels, read_labels
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.rows import Counter as Seen
from synthgen.pipeline.rows import row_from_entry
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.tree import Leaf
from synthgen.refine.agreement import (
    RESAMPLES,
    Cut,
    auc,
    best_cut,
    cuts,
    kappa,
    needed_for,
    spearman,
    within_groups,
)
from synthgen.refine.pairwise import PositionBias, bradley_terry, position_bias, settled
from synthgen.refine.shares import Estimate
from synthgen.types import JSONValue, digest

__all__ = ["Calibration", "JudgeRow", "calibrate"]

METHOD = 1
# Below this share of the range a score tells nothing apart (deita#36: a judge that said 3 to every row).
_STILL = 0.05
# Fewer of either label, and precision, AUC and kappa hang on a handful of records.
_FEW = 10
# An interval of kappa wider than this spans two of the classes of Landis and Koch 1977.
_WIDE = 0.4
_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class JudgeRow:
    """One judge alone, over all candidates that were shown to it; `auc` and `kappa` over the labelled ones."""

    judge: str
    judgements: int
    unparsable: int
    expected: int
    mean: float | None
    spread: float | None
    auc: Estimate | None
    kappa: Estimate | None
    served_models: tuple[str, ...]

    def as_json(self) -> dict[str, JSONValue]:
        """Plain values."""
        return {
            "judge": self.judge,
            "judgements": self.judgements,
            "unparsable": self.unparsable,
            "expected": self.expected,
            "mean": self.mean,
            "standard_deviation": self.spread,
            "auc": _json(self.auc),
            "kappa": _json(self.kappa),
            "served_models": list(self.served_models),
        }


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far judges agree with people. None stands where a number does not exist.

    `kappa` is between labels and the recipe's rule (`now`), `weighted_kappa` between labels and rounded scores where
    labels are scores; `picked` is the cut for the wanted `precision`. `verbosity` is the rank correlation of score and
    length among records of one label. `strengths` are Bradley-Terry's, by teacher, from comparisons.
    """

    run: Path
    id: str
    judge: Mapping[str, JSONValue]
    judge_id: str
    labels: int
    labels_digest: str
    binary: bool
    matched: int
    scored: int
    good: int
    precision: float
    now: Cut | None
    picked: Cut | None
    kappa: Estimate | None
    weighted_kappa: Estimate | None
    auc: Estimate | None
    spearman: Estimate | None
    verbosity: Estimate | None
    position: PositionBias | None
    strengths: Mapping[str, float]
    judges: tuple[JudgeRow, ...]
    warnings: tuple[str, ...] = field(default_factory=tuple)

    def as_json(self) -> dict[str, JSONValue]:
        """The content of calibration.json."""
        return {
            "format": 1,
            "id": self.id,
            "judge_id": self.judge_id,
            "judge": dict(self.judge),
            "method": {"version": METHOD, "resamples": RESAMPLES, "weights": "quadratic"},
            "labels": {
                "given": self.labels,
                "digest": self.labels_digest,
                "binary": self.binary,
                "matched": self.matched,
                "scored": self.scored,
                "good": self.good,
            },
            "precision": self.precision,
            "picked": self.picked.as_json() if self.picked else None,
            "now": self.now.as_json() if self.now else None,
            "kappa": _json(self.kappa),
            "weighted_kappa": _json(self.weighted_kappa),
            "auc": _json(self.auc),
            "spearman": _json(self.spearman),
            "verbosity": _json(self.verbosity),
            "position": self.position.as_json() if self.position else None,
            "strengths": dict(self.strengths),
            "judges": [judge.as_json() for judge in self.judges],
            "warnings": list(self.warnings),
        }


def _json(estimate: Estimate | None) -> JSONValue:
    return None if estimate is None else estimate.as_json()


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
    matched: int,
) -> Calibration:
    labelled = [one for one in judged if one.label is not None and one.judgements]
    if not labelled:
        raise UsageError(
            f"{run}: none of the {len(labels)} labels is of a record that the judges saw "
            f"({matched} are of candidates of this run); label records by their `id` in data/ or rejected/"
        )
    scored = [one for one in labelled if one.score is not None]
    scores = np.array([one.score for one in scored], np.float64)
    people = np.array([one.label for one in scored], np.float64)
    bound = panel.rules.get(OVERALL, (">=", panel.score_range()[1]))[1]
    good = people > 0.5 if labels.binary else people >= bound
    lost = sum(_is_good(one, labels.binary, bound) for one in labelled if one.score is None)
    (now,) = cuts(scores, good, [bound], unscored_good=lost)
    picked = best_cut(scores, good, precision, unscored_good=lost)
    rows = tuple(_judge_row(panel, place, judged, labels.binary, bound) for place in range(len(panel.judges)))
    agreed = kappa(scores >= bound, good)
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
        now=now,
        picked=picked,
        kappa=agreed,
        weighted_kappa=None if labels.binary else kappa(np.round(scores), people, weights="quadratic"),
        auc=auc(scores, good),
        spearman=spearman(scores, people),
        verbosity=within_groups([one.length for one in scored], scores, people),
        position=position_bias([one.orders for one in compared]) if compared else None,
        strengths=_strengths(compared),
        judges=rows,
    )
    return replace(result, warnings=tuple(_warnings(result, panel, judged, matched)))


def _is_good(one: _Judged, binary: bool, bound: float) -> bool:
    label = one.label or 0.0
    return label > 0.5 if binary else label >= bound


def _strengths(compared: Sequence[_Compared]) -> dict[str, float]:
    """Of teachers that met; one alone cannot be ranked."""
    games = [
        (*one.teachers, point)
        for one in compared
        if one.teachers[0] != one.teachers[1] and (point := settled(*one.orders)) is not None
    ]
    return bradley_terry(games)


def _judge_row(panel: Panel, place: int, judged: Sequence[_Judged], binary: bool, bound: float) -> JudgeRow:
    name = panel.judges[place].name
    own = [(said, one) for one in judged for said in one.judgements if said.judge == name]
    read = [(said.overall, one) for said, one in own if said.overall is not None]
    values = [score for score, _ in read]
    labelled = [(score, _is_good(one, binary, bound)) for score, one in read if one.label is not None]
    scores, good = (np.array([pair[side] for pair in labelled]) for side in (0, 1))
    return JudgeRow(
        judge=name,
        judgements=len(own),
        unparsable=len(own) - len(read),
        expected=sum(bool(said.expected) for said, _ in own),
        mean=float(np.mean(values)) if values else None,
        spread=pstdev(values) if values else None,
        auc=auc(scores, good) if labelled else None,
        kappa=kappa(scores >= bound, good) if labelled else None,
        served_models=tuple(sorted({model for said, _ in own if (model := said.served_model)})),
    )


def _warnings(found: Calibration, panel: Panel, judged: Sequence[_Judged], matched: int) -> Iterator[str]:
    low, high = panel.score_range()
    for place, row in enumerate(found.judges):
        if row.spread is not None and row.spread < _STILL * (high - low):
            values = Counter(
                round(said.overall, 2)
                for one in judged
                for said in one.judgements
                if said.judge == row.judge and said.overall is not None
            )
            score, count = values.most_common(1)[0]
            yield (
                f"judge {row.judge} gave {score:g} to {count} of {row.judgements - row.unparsable} records: its scores "
                "hardly vary, so no threshold can tell good from bad; change its prompt or its model"
            )
        if row.judgements and row.unparsable / row.judgements > 0.02:
            kind = panel.judges[place].prompt.name
            yield (
                f"judge {row.judge}: {row.unparsable} of {row.judgements} replies to {kind} held no score that could be "
                "read; those records are rejected as unjudged"
            )
    if (missing := found.labels - matched) > 0:
        yield f"{missing} of {found.labels} labels name no candidate of this run"
    bad = found.scored - found.good
    fewer, word = min((found.good, "good"), (bad, "bad"))
    if fewer < _FEW:
        yield (
            f"labels are one-sided: {fewer} of {found.scored} are {word}, so kappa, AUC and precision stand on "
            f"{fewer} records; label at least {_FEW} {word} ones (look in rejected/ and near the threshold)"
        )
    agreed = found.kappa
    if agreed is not None and (width := agreed.high - agreed.low) > _WIDE:
        needed = int(np.ceil(agreed.n * (width / _WIDE) ** 2 / 10) * 10)
        yield (
            f"n = {agreed.n} is too small: kappa lies anywhere from {agreed.low:.2f} to {agreed.high:.2f}; an interval "
            f"of width {_WIDE:g} takes about {needed} labels"
        )
    yield from _threshold_warnings(found)
    if found.verbosity is not None and (found.verbosity.low > 0.1 or found.verbosity.high < -0.1):
        words = "longer" if found.verbosity.value > 0 else "shorter"
        yield (
            f"verbosity bias: of records with the same label, the {words} have the higher scores (rank correlation "
            f"{found.verbosity.value:.2f}, from {found.verbosity.low:.2f} to {found.verbosity.high:.2f})"
        )
    position = found.position
    if position is not None and position.first is not None and position.p < 0.05:
        place_said = "first" if position.first.value > 0.5 else "second"
        yield (
            f"position bias: where the order decided, the answer shown {place_said} won "
            f"{max(position.first.value, 1 - position.first.value):.0%} of {position.first.n} times (p = {position.p:.3g}); "
            "both orders are asked, so these count as ties"
        )


def _threshold_warnings(found: Calibration) -> Iterator[str]:
    if found.picked is None:
        yield f"no threshold reaches precision {found.precision:g} on these labels"
        return
    reached = found.picked.precision
    if reached is not None and reached.low < found.precision:
        needed = needed_for(found.precision, reached.value)
        more = f"; at this precision it takes about {needed} kept records to show it" if needed else ""
        yield (
            f"precision {found.precision:g} is not shown: {found.picked.kept_good} of {reached.n} kept records are good, "
            f"which may be as little as {reached.low:.2f}{more}"
        )
