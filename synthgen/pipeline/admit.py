"""Admission of one wave: gate 2, row filters, exact and near-duplicates, decontamination; then, once judged, target.

In: the leaves of a wave in plan order. Out: one `Verdict` a leaf. `screen` is the columnar half (pure, run off the
event loop); `settle` takes what the judges left and applies the target. Guarantee: because duplicates are decided
greedily in plan order and the target cuts in plan order, the verdicts do not depend on the wave size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import orjson
import polars as pl

from synthgen.pipeline.counting import first_look
from synthgen.pipeline.decontamination import Decontamination
from synthgen.pipeline.tree import Leaf
from synthgen.pipeline.verdicts import Objection, Target, Verdict, prompt_and_answer
from synthgen.refine import VIEW, Chain, SeenTexts, run_chain
from synthgen.templates import split_thinking

__all__ = ["screen", "settle"]


def screen(
    leaves: Sequence[Leaf],
    object_to: Callable[[Leaf], Objection | None],
    chain: Chain,
    seen: SeenTexts | None,
    against: Decontamination | None = None,
) -> list[Verdict]:
    """Everything before the judge. `object_to` is gate 2: what policy holds against a leaf; `seen` None: repeats may stay."""
    verdicts = {leaf.id: first_look(leaf, object_to) for leaf in leaves}
    assert len(verdicts) == len(leaves)  # ids are hashes of root row and path
    view = _view([verdict.leaf for verdict in verdicts.values() if verdict.outcome is None])
    judged = run_chain(chain, view)
    # Most rows pass without a word; they keep the verdict they have.
    said = pl.col("reason").is_not_null() | pl.any_horizontal(pl.col("scores", "flags").list.len() > 0)
    for row in judged.filter(said).iter_rows(named=True):
        verdicts[row["id"]] = _after(verdicts[row["id"]], row)
    alive = [leaf_id for leaf_id, verdict in verdicts.items() if verdict.outcome is None]
    survivors = view.filter(pl.col("id").is_in(pl.Series(alive, dtype=pl.String).implode()))
    if seen is not None:
        repeated = seen.add(survivors)
        for row in repeated.drop_nulls("reason").iter_rows(named=True):
            bound = 1.0 if row["reason"] == "exact_duplicate" else seen.threshold
            said_of = {**row, "threshold": bound, "detail": row["dup_of"]}
            verdicts[row["id"]] = _after(verdicts[row["id"]], said_of)
        survivors = survivors.filter(repeated["reason"].is_null())
    if against is not None:
        for row in against.verdicts(survivors).iter_rows(named=True):
            verdicts[row["id"]] = _after(verdicts[row["id"]], row)
    return list(verdicts.values())


def _after(verdict: Verdict, row: Mapping[str, object]) -> Verdict:
    """The verdict with what one refining stage says of it."""
    scores = tuple(
        (str(s["name"]), float(s["score"])) for s in cast(list[dict[str, str]], row.get("scores") or [])
    )
    flags = tuple(cast(list[str], row.get("flags") or []))
    verdict = replace(verdict, scores=verdict.scores + scores, flags=verdict.flags + flags)
    if row["reason"] is None:
        return verdict
    return replace(
        verdict,
        outcome="rejected",
        stage=cast(str, row["stage"]),
        reason=cast(str, row["reason"]),
        score=cast(float | None, row["score"]),
        threshold=cast(float | None, row.get("threshold")),
        detail=cast(str | None, row["detail"]),
    )


def _view(leaves: Sequence[Leaf]) -> pl.DataFrame:
    rows = []
    for leaf in leaves:
        last = leaf.asked[-1]
        completion, request = last.reply.completion, last.ask.request
        prompt, answer = prompt_and_answer(leaf.messages)
        calls = leaf.messages[-1].tool_calls
        rows.append(
            {
                "id": leaf.id,
                "prompt": prompt,
                "completion": answer,
                "finish_reason": completion.finish_reason if completion else None,
                "response_schema": request.response_schema,
                "reply": split_thinking(completion.text)[1] if completion else None,
                "tools": request.tools,
                "tool_calls": orjson.dumps([call.as_json() for call in calls]).decode() if calls else None,
                "fields": orjson.dumps(dict(leaf.fields), default=str).decode(),
                "group": leaf.group,
                "scores": None,
            }
        )
    return pl.DataFrame(rows, schema=VIEW)


def settle(verdicts: Sequence[Verdict], target: Target) -> list[Verdict]:
    """Final verdicts in plan order; counts acceptances into `target`, and what lies beyond it as surplus."""
    final = []
    for verdict in verdicts:
        if target.met:
            final.append(Verdict(verdict.leaf, "surplus"))
            continue
        if verdict.outcome is None:
            verdict = replace(verdict, outcome="accepted")
        target.accepted += verdict.outcome == "accepted"
        final.append(verdict)
    return final
