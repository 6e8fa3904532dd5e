"""Foreign rows through the filters, a batch at a time: frames in, frames by outcome out.

In: a batch of records. Out: `Refined`: accepted, rejected and quarantined rows, each in input order. Guarantee: every
row of the batch is in exactly one frame, or counted as belonging to another config; `counts` follows.
"""

from collections.abc import Sequence

import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset import BadRow, Batch
from synthgen.pipeline.decontamination import Decontamination
from synthgen.pipeline.foreign import ForeignPolicy
from synthgen.pipeline.verdicts import Counts
from synthgen.refine import Chain, judge_verdicts, run_chain, view_of
from synthgen.schema import RecordShape, record_schema, rejected_schema
from synthgen.types import digest

__all__ = ["MALFORMED", "Refined", "refine_batch"]

MALFORMED = ("source", "malformed_row")
_SAID = ("id", "stage", "reason", "score", "threshold", "detail")


def refine_batch(
    batch: Batch,
    shape: RecordShape,
    chain: Chain,
    against: Decontamination | None,
    rule: tuple[str, float] | None,
    score: str,
    policy: ForeignPolicy,
    counts: Counts,
) -> "Refined":
    """The rows of one batch by outcome, each in input order."""
    frame, refused = policy.stamp(batch.frame)
    quarantined = _set_aside(frame, refused, shape, counts)
    if refused.height:
        frame = frame.join(refused, on="id", how="anti", maintain_order="left")
    fields = pl.DataFrame({"id": batch.frame["id"], "fields": pl.Series(batch.fields, dtype=pl.String)})
    view = _view(frame, fields)
    seen_by_chain = run_chain(chain, view)
    for name, scored in seen_by_chain["scores"].explode().struct.field("name").value_counts().iter_rows():
        if name is not None:
            counts.scored[name] = counts.scored.get(name, 0) + scored
    frame = _with_notes(frame, seen_by_chain)
    judged = seen_by_chain.select(_SAID)
    alive = view.filter(judged["reason"].is_null())
    verdicts = judged
    if against is not None:
        copies = against.verdicts(alive).select(_SAID)
        verdicts = pl.concat([verdicts.join(copies, on="id", how="anti", maintain_order="left"), copies])
    if rule is not None:
        verdicts = pl.concat(
            [verdicts.filter(pl.col("reason").is_not_null()), _threshold(frame, verdicts, rule, score)]
        )
    decided = frame.join(verdicts, on="id", how="left", maintain_order="left")
    accepted = decided.filter(pl.col("reason").is_null()).select(record_schema(shape).names())
    rejected = decided.filter(pl.col("reason").is_not_null()).select(rejected_schema(shape).names())
    rejected = pl.concat([rejected, _bad_rows(batch.bad, shape)])
    for bad in batch.bad[:1]:
        counts.examples.setdefault(MALFORMED, (bad.where, bad.problem))
    counts.outcomes["accepted"] = counts.outcomes.get("accepted", 0) + accepted.height
    counts.outcomes["rejected"] = counts.outcomes.get("rejected", 0) + rejected.height
    for flag in accepted["flags"].explode().drop_nulls():
        counts.flags[flag] = counts.flags.get(flag, 0) + 1
    for stage, reason in rejected.select("stage", "reason").iter_rows():
        counts.reasons[stage, reason] = counts.reasons.get((stage, reason), 0) + 1
    return Refined(accepted, rejected, quarantined)


@dataclass(frozen=True, slots=True)
class Refined:
    accepted: pl.DataFrame
    rejected: pl.DataFrame
    quarantined: pl.DataFrame


def _set_aside(
    frame: pl.DataFrame, refused: pl.DataFrame, shape: RecordShape, counts: Counts
) -> pl.DataFrame:
    """What policy refuses goes to quarantine; what belongs to another config is only counted."""
    for outcome, reason in refused.select("outcome", "reason").iter_rows():
        counts.outcomes[outcome] = counts.outcomes.get(outcome, 0) + 1
        if outcome == "quarantined":
            counts.reasons["policy", reason] = counts.reasons.get(("policy", reason), 0) + 1
    told = refused.filter(pl.col("outcome") == "quarantined").select(
        "id",
        pl.lit("policy").alias("stage"),
        "reason",
        pl.lit(None, dtype=pl.Float64).alias("score"),
        pl.lit(None, dtype=pl.Float64).alias("threshold"),
        "detail",
    )
    return frame.join(told, on="id", how="inner", maintain_order="left").select(
        rejected_schema(shape).names()
    )


def _with_notes(frame: pl.DataFrame, seen_by_chain: pl.DataFrame) -> pl.DataFrame:
    """The records with the chain's scores and flags behind those they came with."""
    notes = seen_by_chain.select("id", new_scores="scores", new_flags="flags")

    def joined(old: str, new: str) -> pl.Expr:
        both = pl.concat_list(pl.col(old), pl.col(new).cast(frame.schema[old]))
        return pl.coalesce(both, pl.col(old), pl.col(new).cast(frame.schema[old])).alias(old)

    noted = frame.join(notes, on="id", how="left", maintain_order="left")
    columns = [joined("scores", "new_scores"), joined("flags", "new_flags")]
    return noted.with_columns(columns).select(frame.columns)


def _threshold(
    frame: pl.DataFrame, verdicts: pl.DataFrame, rule: tuple[str, float], score: str
) -> pl.DataFrame:
    """Verdicts of the score rule for the rows nothing else rejected."""
    alive = verdicts.filter(pl.col("reason").is_null()).select("id")
    scores = alive.join(
        frame.select("id", "scores")
        .explode("scores")
        .unnest("scores")
        .filter(pl.col("name") == score)
        .select("id", "score"),
        on="id",
        how="left",
        maintain_order="left",
    )
    judged = judge_verdicts(scores, rule)
    broken = pl.when(pl.col("reason") == "judge_below").then(rule[1])
    detail = pl.lit(None, dtype=pl.String)
    return judged.with_columns(threshold=broken.cast(pl.Float64), detail=detail).select(_SAID)


def _view(frame: pl.DataFrame, fields: pl.DataFrame) -> pl.DataFrame:
    """The filters' view of records: everything before the last assistant turn, and that turn.

    Samples of one question may lie in different batches, so no group is named.
    """
    element = pl.element().struct
    content, role = element.field("content").fill_null(""), element.field("role")
    asked = pl.col("messages").list.eval(content.filter(role != "assistant"))
    answered = pl.col("messages").list.eval(content.filter(role == "assistant"))
    texts = frame.select(
        "id",
        asked.list.join("\n\n").alias("prompt"),
        answered.list.last().fill_null("").alias("completion"),
        "finish_reason",
        "scores",
        *(["tools", _calls(frame)] if "tools" in frame.columns else []),
    )
    return view_of(texts.join(fields, on="id", how="left", maintain_order="left"))


def _calls(frame: pl.DataFrame) -> pl.Series:
    """The tool calls of the last assistant turn as JSON text."""
    element = pl.element().struct
    answers = pl.element().filter(element.field("role") == "assistant")
    last = pl.col("messages").list.eval(answers).list.last().struct.field("tool_calls")
    calls = [
        orjson.dumps(made).decode() if made else None for made in frame.select(last)["tool_calls"].to_list()
    ]
    return pl.Series("tool_calls", calls, pl.String)


def _bad_rows(bad: Sequence[BadRow], shape: RecordShape) -> pl.DataFrame:
    rows = [
        {
            "id": digest(["bad", row.where, row.problem]),
            "messages": [],
            "source": row.where,
            "row": digest(["bad", row.where]),
            "stage": MALFORMED[0],
            "reason": MALFORMED[1],
            "detail": row.problem,
        }
        for row in bad
    ]
    return pl.DataFrame(rows, schema=rejected_schema(shape))
