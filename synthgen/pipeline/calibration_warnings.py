"""What the numbers of a calibration mean in words, and what they cannot show.

In: a `Calibration` and its panel. Out: sentences, each with what to do or the count that would be needed.
"""

from collections.abc import Iterator

import numpy as np

from synthgen.pipeline.calibration import Calibration, JudgeRow
from synthgen.pipeline.judging import Panel
from synthgen.refine.agreement import needed_for

__all__ = ["warnings_of"]

# Below this share of the range a score tells nothing apart (deita#36: a judge that said 3 to every row).
_STILL = 0.05
# Fewer of either label, and precision, AUC and kappa hang on a handful of records.
_FEW = 10
# An interval of kappa wider than this spans two of the classes of Landis and Koch 1977.
_WIDE = 0.4


def warnings_of(found: Calibration, panel: Panel, named: int) -> Iterator[str]:
    """What to know before the judges are trusted; `named`: how many labels name a candidate of the run."""
    for judge, row in zip(panel.judges, found.judges, strict=True):
        yield from _judge_warnings(row, judge.prompt.name, panel.score_range())
    yield from _label_warnings(found, named)
    yield from _threshold_warnings(found)
    yield from _bias_warnings(found)


def _judge_warnings(row: JudgeRow, prompt: str, bounds: tuple[float, float]) -> Iterator[str]:
    low, high = bounds
    if row.spread is not None and row.most is not None and row.spread < _STILL * (high - low):
        score, count = row.most
        yield (
            f"judge {row.judge} gave {score:g} to {count} of {row.judgements - row.unparsable} records: its scores "
            "hardly vary, so no threshold can tell good from bad; change its prompt or its model"
        )
    if row.judgements and row.unparsable / row.judgements > 0.02:
        cut = f" ({row.truncated} ended at `max_tokens`)" if row.truncated else ""
        yield (
            f"judge {row.judge}: {row.unparsable} of {row.judgements} replies to {prompt} held no score that could be "
            f"read{cut}; those records are rejected as unjudged"
        )


def _label_warnings(found: Calibration, named: int) -> Iterator[str]:
    if (missing := found.labels - named) > 0:
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


def _bias_warnings(found: Calibration) -> Iterator[str]:
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
