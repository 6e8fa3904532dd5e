"""Running a filter chain over a frame.

In: a `Chain`, a frame of the view. Out: one line of verdict per row. Guarantees: filters run in the order of the chain,
and each sees only the rows that are still alive; the same chain and frame give the same verdicts.
Rejected: scoring all rows with all filters and deciding afterwards (the later filters are the expensive ones, and
most rejected rows fail a cheap one).

Axes: N rows (of the frame, or those a step saw), K steps that gave a score, F scores or flags, L rows that are listed.
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names

import numpy as np
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.refine.chain import Chain, ChainStep
from synthgen.refine.filters.text import SHARED
from synthgen.refine.shingles import I64
from synthgen.refine.verdict import VIEW, Verdicts, nulls, view_of

__all__ = ["RESULT", "run_chain"]

RESULT = pl.Schema(
    {
        "id": pl.String(),
        "stage": pl.String(),  # filter:<step id> of the first step that rejects, null where the row is kept
        "reason": pl.String(),
        "score": pl.Float64(),  # that step's score; 1 where it states a fact and measures nothing
        "threshold": pl.Float64(),  # the bound the score broke; 0 for a fact
        "detail": pl.String(),
        "scores": pl.List(
            pl.Struct({"name": pl.String(), "score": pl.Float64})
        ),  # of every step that saw the row
        "flags": pl.List(pl.String),  # <step id>:<reason> of the steps that only flag
    }
)
_REASONS = ("stage", "reason", "score", "threshold", "detail")
_REJECTED = pl.Schema({name: RESULT[name] for name in _REASONS})


def run_chain(chain: Chain, frame: pl.DataFrame) -> pl.DataFrame:
    """The `RESULT` of every row, in the frame's order: the first rejecting step, all scores, all flags.

    The frame has the columns of the view, or some of them: what is not there is null.

    Raises:
        UsageError: a filter cannot do its work here, or a user's function failed on the whole frame.
    """
    alive = view_of(frame)
    row_N = np.arange(frame.height)  # of the frame, those that are alive
    recalls = [place for place, step in enumerate(chain.steps) if step.filter == "score"]
    scored, rejected, flagged = list[_Said](), list[_Said](), list[_Said]()
    for place, step in enumerate(chain.steps):
        missing = [name for name in step.reads if name not in alive.columns]
        if missing:
            alive = alive.with_columns(SHARED[name](alive).alias(name) for name in missing)
        said = _Said.of(step, row_N, step.run(alive, step.params))
        if any(later > place for later in recalls):
            alive = _remember(step, alive, said.score)
        if said.score.null_count() < len(said.score):
            scored.append(said)
        # Most steps reject nobody: whatever is asked of a frame costs more than looking.
        if said.reason.null_count() == len(said.reason):
            continue
        (flagged if step.on_reject == "flag" else rejected).append(said.hits())
        if step.on_reject != "flag":
            kept = said.reason.is_null()
            alive, row_N = alive.filter(kept), row_N[kept.to_numpy()]
    scores, flags = _scores_of(scored, frame.height), _flags_of(flagged, frame.height)
    return pl.DataFrame(
        [frame["id"].cast(pl.String), *_reasons_of(rejected, frame.height), scores, flags], schema=RESULT
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """What one step said of the rows it saw, or of some of them."""

    step: str
    row_N: I64
    reason: pl.Series
    score: pl.Series
    threshold: pl.Series
    detail: pl.Series

    @staticmethod
    def of(step: ChainStep, row_N: I64, verdicts: Verdicts) -> "_Said":
        def column(series: pl.Series | None, dtype: pl.DataType) -> pl.Series:
            if series is None:
                return nulls(row_N.size, dtype)
            return series if series.dtype == dtype else series.cast(dtype)

        return _Said(
            step.id,
            row_N,
            column(verdicts.reason, pl.String()),
            column(verdicts.score, pl.Float64()),
            column(verdicts.threshold, pl.Float64()),
            column(verdicts.detail, pl.String()),
        )

    def hits(self) -> "_Said":
        """Of the rows with a reason."""
        hit = self.reason.is_not_null()
        columns = (column.filter(hit) for column in (self.reason, self.score, self.threshold, self.detail))
        return _Said(self.step, self.row_N[hit.to_numpy()], *columns)


def _reasons_of(rejected: list[_Said], rows: int) -> list[pl.Series]:
    """The columns `_REASONS`."""
    if not rejected:
        return [nulls(rows, dtype) for dtype in _REJECTED.values()]
    # A fact has no measure of its own: found once where nothing of the kind is allowed.
    fact = pl.col("score").is_null()
    frames = [
        pl.DataFrame(
            {
                "stage": pl.Series([f"filter:{said.step}"], dtype=pl.String).new_from_index(
                    0, said.row_N.size
                ),
                "reason": said.reason,
                "score": said.score,
                "threshold": said.threshold,
                "detail": said.detail,
            }
        )
        for said in rejected
    ]
    place_N = _places(np.concatenate([said.row_N for said in rejected]), rows)
    measured = pl.concat(frames).with_columns(
        score=pl.col("score").fill_null(1.0), threshold=pl.when(fact).then(0.0).otherwise("threshold")
    )
    return measured.select(pl.all().gather(place_N)).get_columns()


def _scores_of(scored: list[_Said], rows: int) -> pl.Series:
    """The scores of each row, in the chain's order."""
    if not scored:
        return pl.Series([[]], dtype=RESULT["scores"]).new_from_index(0, rows)
    score_NK = np.zeros((rows, len(scored)))
    there_NK = np.zeros((rows, len(scored)), np.bool_)
    for k, said in enumerate(scored):
        score_NK[said.row_N, k] = said.score.to_numpy()
        there_NK[said.row_N, k] = said.score.is_not_null().to_numpy()
    row_F, step_F = np.nonzero(there_NK)
    names = pl.Series([said.step for said in scored], dtype=pl.String)
    found = pl.DataFrame({"name": names.gather(step_F), "score": score_NK[there_NK]})
    return _listed(row_F, found.to_struct(), rows, RESULT["scores"])


def _flags_of(flagged: list[_Said], rows: int) -> pl.Series:
    """The flags of each row, in the chain's order."""
    if not flagged:
        return pl.Series([[]], dtype=RESULT["flags"]).new_from_index(0, rows)
    row_F = np.concatenate([said.row_N for said in flagged])
    order = np.argsort(row_F, kind="stable")
    found = pl.concat([f"{said.step}:" + said.reason for said in flagged])
    return _listed(row_F[order], found.gather(order), rows, RESULT["flags"])


def _listed(row_F: I64, values: pl.Series, rows: int, dtype: pl.DataType) -> pl.Series:
    """The values of each row as a list; `row_F`, ascending, says whose each is."""
    # Sorted groups are cut out one behind the other; a frame that is not known to be sorted is hashed.
    grouped = pl.DataFrame({"row": pl.Series(row_F).set_sorted(), "value": values})
    lists = grouped.group_by("row", maintain_order=True).agg("value")["value"]
    if len(lists) < rows:
        owner_L = row_F[np.diff(row_F, prepend=-1) > 0]
        lists = pl.concat([lists, pl.Series([[]], dtype=dtype)]).gather(
            _places(owner_L, rows).fill_null(len(lists))
        )
    return lists


def _places(row_L: I64, rows: int) -> pl.Series:
    """For every row, where it stands among these; null where it does not."""
    place_N = np.full(rows, -1)
    place_N[row_L] = np.arange(row_L.size)
    return pl.Series(place_N).replace(-1, None)


def _remember(step: ChainStep, alive: pl.DataFrame, score: pl.Series) -> pl.DataFrame:
    """The rows with this step's score among their scores, for a later step that cuts by it."""
    new = pl.struct(name=pl.lit(step.id), score=score)
    listed = pl.when(score.is_not_null()).then(pl.concat_list(new)).otherwise(pl.lit([], VIEW["scores"]))
    none = pl.lit([], VIEW["scores"])
    return alive.with_columns(scores=pl.concat_list(pl.col("scores").fill_null(none), listed))
