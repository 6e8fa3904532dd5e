"""What a calibration holds: how far judges agree with people, in numbers with intervals.

In: numbers that `calibrate` found. Out: `calibration.json`. None stands where a number does not exist.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from synthgen.dataclasses import dataclass
from synthgen.refine.agreement import RESAMPLES, Cut
from synthgen.refine.pairwise import PositionBias
from synthgen.refine.shares import Estimate
from synthgen.types import JSONValue

__all__ = ["METHOD", "Calibration", "JudgeRow"]

METHOD = 2


@dataclass(frozen=True, slots=True)
class JudgeRow:
    """One judge alone, over all candidates that were shown to it; `auc` and `kappa` over the labelled ones.

    `most`: the score it gave most often, to two places, and how often. `truncated` of the unparsable ran into `max_tokens`.
    """

    judge: str
    judgements: int
    unparsable: int
    truncated: int
    expected: int
    mean: float | None
    spread: float | None
    most: tuple[float, int] | None
    auc: Estimate | None
    kappa: Estimate | None
    served_models: tuple[str, ...]

    def as_json(self) -> dict[str, JSONValue]:
        """Plain values."""
        return {
            "judge": self.judge,
            "judgements": self.judgements,
            "unparsable": self.unparsable,
            "truncated": self.truncated,
            "expected": self.expected,
            "mean": self.mean,
            "standard_deviation": self.spread,
            "auc": _json(self.auc),
            "kappa": _json(self.kappa),
            "served_models": list(self.served_models),
        }


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far judges agree with people.

    `rules`: what the recipe keeps by, `overall` or a criterion -> comparison and number. `kappa` is between labels and
    what all of them keep (`now`), `weighted_kappa` between labels and rounded scores where labels are scores. `picked` is
    the bound for the overall score, other rules as they are, with the wanted `precision`; `sign` its comparison. `verbosity` is the rank correlation of score and
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
    rules: Mapping[str, str]
    sign: Literal[">=", "<="]
    now: Cut
    picked: Cut | None
    kappa: Estimate | None
    weighted_kappa: Estimate | None
    auc: Estimate | None
    spearman: Estimate | None
    verbosity: Estimate | None
    position: PositionBias | None
    strengths: Mapping[str, float]
    judges: tuple[JudgeRow, ...]
    warnings: tuple[str, ...] = ()

    @property
    def picked_rule(self) -> str | None:
        """What to write for the overall score."""
        return None if self.picked is None else f"{self.sign} {self.picked.threshold:g}"

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
            "rules": dict(self.rules),
            "now": self.now.as_json(),
            "picked": {**self.picked.as_json(), "rule": self.picked_rule} if self.picked else None,
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
