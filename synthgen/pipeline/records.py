"""Verdicts as frames: records, rejects, lineage.

In: final verdicts of a wave in plan order. Out: frames of the schemas in `synthgen.schema`. Nothing in the record or
reject frames depends on timing, attempts or cost; those are lineage.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.journal import Reply
from synthgen.pipeline.tree import Asked, Leaf
from synthgen.pipeline.verdicts import Origin, Verdict
from synthgen.schema import RecordShape, lineage_schema, message_struct, record_schema, rejected_schema
from synthgen.types import Message, Sampling, canonical_json

__all__ = ["WaveFrames", "frames_of"]


@dataclass(frozen=True, slots=True)
class WaveFrames:
    """The frames of one wave, each in plan order."""

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    quarantined: pl.DataFrame
    lineage: pl.DataFrame


def frames_of(
    verdicts: Sequence[Verdict], shape: RecordShape, origin_of: Callable[[Leaf], Origin]
) -> WaveFrames:
    """Split the verdicts by outcome and build their frames."""
    by_outcome: dict[str, list[dict[str, object]]] = {"accepted": [], "rejected": [], "quarantined": []}
    lineage: list[dict[str, object]] = []
    for verdict in verdicts:
        if verdict.outcome not in by_outcome:
            continue
        row = _record(verdict, shape, origin_of(verdict.leaf))
        if verdict.outcome != "accepted":
            row |= {
                "stage": verdict.stage,
                "reason": verdict.reason,
                "score": verdict.score,
                "threshold": verdict.threshold,
                "detail": verdict.detail,
            }
        by_outcome[verdict.outcome].append(row)
        lineage += _lineage(verdict)
    rejected = rejected_schema(shape)
    return WaveFrames(
        pl.DataFrame(by_outcome["accepted"], schema=record_schema(shape)),
        pl.DataFrame(by_outcome["rejected"], schema=rejected),
        pl.DataFrame(by_outcome["quarantined"], schema=rejected),
        pl.DataFrame(lineage, schema=lineage_schema()),
    )


def _record(verdict: Verdict, shape: RecordShape, origin: Origin) -> dict[str, object]:
    leaf = verdict.leaf
    last = leaf.asked[-1] if leaf.asked else None
    completion = last.reply.completion if last else None
    return {
        "id": leaf.id,
        "messages": [message_struct(message, shape) for message in _messages(leaf)],
        **({"tools": last.ask.request.tools if last else None} if shape.tools else {}),
        "source": leaf.row.where,
        "row": leaf.row.id,
        "step": leaf.step,
        "sample": leaf.sample,
        "parents": [asked.reply.key for asked in leaf.asked],
        "teacher": last.ask.alias if last else None,
        "route": origin.route if last else None,
        "served_model": completion.served_model if completion else None,
        "finish_reason": completion.finish_reason if completion else None,
        "scores": [{"name": name, "score": score} for name, score in verdict.scores],
        "flags": list(verdict.flags),
        "row_license": origin.row_license,
        "seed_relation": origin.seed_relation,
        "policy_id": origin.policy_id,
        "generation": origin.generation,
    }


def _messages(leaf: Leaf) -> Iterable[Message]:
    """A reject that never became a record shows what the teacher said last."""
    if leaf.messages or not leaf.asked:
        return leaf.messages
    completion = leaf.asked[-1].reply.completion
    if completion is None:
        return ()
    return (Message("assistant", completion.text, tool_calls=completion.tool_calls),)


def _lineage(verdict: Verdict) -> list[dict[str, object]]:
    leaf = verdict.leaf
    withheld = verdict.outcome == "quarantined"
    rows = []
    for position, asked in enumerate(leaf.asked):
        following = (
            leaf.asked[position + 1].ask.node.fields if position + 1 < len(leaf.asked) else leaf.fields
        )
        rows.append(
            _lineage_row(leaf.id, asked.ask.step.name, asked.reply, _sampling(asked))
            | {
                "model": asked.ask.request.teacher.model,
                # What an unvetted model wrote stays in quarantine/.
                "fields": None if withheld else orjson.dumps(dict(following)).decode(),
            }
        )
    rows += [_lineage_row(leaf.id, said.step, said.reply, None) for said in verdict.judgements]
    return rows


def _sampling(asked: Asked) -> Sampling:
    return asked.ask.request.sampling


def _lineage_row(leaf_id: str, step: str, reply: Reply, sampling: Sampling | None) -> dict[str, object]:
    completion, at = reply.completion, reply.at
    usage = completion.usage if completion else None
    return {
        "id": leaf_id,
        "step": step,
        "request_key": reply.key,
        "teacher": at.teacher,
        "model": None,
        "endpoint": at.endpoint,
        "served_model": completion.served_model if completion else None,
        "upstream": completion.upstream if completion else None,
        "reply_id": completion.reply_id if completion else None,
        "finish_reason": completion.finish_reason if completion else None,
        **(asdict(usage) if usage else {}),
        "cost_usd": reply.cost_usd,
        "attempts": at.attempts,
        "sent_at": datetime.fromtimestamp(at.sent_at, UTC),
        "latency_s": at.latency_s,
        "sampling": canonical_json(sampling.as_json()).decode() if sampling else None,
        "fields": None,
    }
