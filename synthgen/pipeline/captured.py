"""The logprobs of accepted records, as rows of their sidecar.

In: final verdicts, and the journal, which holds what was captured. Out: a frame of `logprobs_schema`. Replies are read
from the journal again, one at a time: carried along in the leaves, the captures of the open waves would fill the
memory (a reply of 400 tokens with 20 alternatives each holds 25,000 numbers).
"""

from collections.abc import Mapping, Sequence

import polars as pl

from synthgen.asking import TeacherSpec
from synthgen.journal import JournalIndex, read_logprobs
from synthgen.pipeline.tree import Asked
from synthgen.pipeline.verdicts import Verdict
from synthgen.schema import logprobs_schema

__all__ = ["logprobs_frame"]


def logprobs_frame(
    verdicts: Sequence[Verdict], index: JournalIndex, specs: Mapping[str, TeacherSpec]
) -> pl.DataFrame:
    """One row per reply of an accepted record that holds logprobs, in plan order, then in step order."""
    rows = []
    for verdict in verdicts:
        if verdict.outcome != "accepted":
            continue
        for asked in verdict.leaf.asked:
            row = _row(verdict.leaf.id, asked, index, specs) if asked.ask.step.capture else None
            if row is not None:
                rows.append(row)
    return pl.DataFrame(rows, schema=logprobs_schema())


def _row(
    record_id: str, asked: Asked, index: JournalIndex, specs: Mapping[str, TeacherSpec]
) -> dict[str, object] | None:
    entry = index.reply(asked.reply.key)
    found = read_logprobs(entry) if entry is not None else None
    if found is None:
        return None
    completion = asked.reply.completion
    return {
        "id": record_id,
        "step": asked.ask.step.name,
        "request_key": asked.reply.key,
        "teacher": asked.ask.alias,
        "model": asked.ask.request.teacher.model,
        "served_model": completion.served_model if completion else None,
        "tokenizer": specs[asked.ask.alias].config.hf,
        "ids_complete": found.ids_complete,
        "tokens": found.tokens,
        "token_bytes": found.token_bytes,
        "token_ids": found.ids,
        "logprobs": found.logprobs,
        "top_tokens": found.top_tokens,
        "top_ids": found.top_ids,
        "top_logprobs": found.top_logprobs,
    }
