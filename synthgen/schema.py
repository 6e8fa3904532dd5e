"""The one truth of what is stored in a published dataset: columns, types, versions.

In: a `RecordShape`, fixed at plan time. Out: polars schemas for the record shards, the rejected and quarantined
shards and the lineage and logprobs sidecars, and for each the `ARROW:schema` value its Parquet files carry.
Guarantees: inside one run every file of a kind has the same schema; optional fields exist only when the recipe can
fill them, so that a plain chat set concatenates with other people's; free-form values (tool arguments, tool lists,
sampling) are JSON text, because `datasets` merges the keys of structs over rows.
Rejected: asking pyarrow for the `ARROW:schema` value at run time. polars announces large_string/large_list, which
`datasets.concatenate_datasets` refuses to align with anybody else's string/list; the few plain schemas are computed
ahead by `tests/make_arrow_schemas.py` and shipped as `arrow_schemas.json`.
"""

from functools import cache
from pathlib import Path
from typing import Literal

import orjson
import polars as pl

from synthgen.shape import SCHEMA_VERSION, RecordShape
from synthgen.types import JSONValue, Message

__all__ = [
    "SCHEMA_VERSION",
    "RecordShape",
    "Table",
    "arrow_schema_b64",
    "judgements_schema",
    "lineage_schema",
    "logprobs_schema",
    "message_struct",
    "record_schema",
    "rejected_schema",
    "table_schema",
]

Table = Literal["record", "rejected", "lineage", "logprobs", "judgements"]


def _message(shape: RecordShape) -> pl.Struct:
    fields: dict[str, pl.DataType] = {"role": pl.String(), "content": pl.String()}
    if shape.reasoning:
        fields["reasoning_content"] = pl.String()
    if shape.tools:
        call = pl.Struct({"id": pl.String(), "name": pl.String(), "arguments": pl.String()})
        fields["tool_calls"] = pl.List(call)
        fields["tool_call_id"] = pl.String()
    if shape.names:
        fields["name"] = pl.String()
    return pl.Struct(fields)


def message_struct(message: Message, shape: RecordShape) -> dict[str, JSONValue]:
    """One element of the column `messages`; what `shape` has no field for is left out."""
    out: dict[str, JSONValue] = {"role": message.role, "content": message.content}
    if shape.reasoning:
        out["reasoning_content"] = message.reasoning
    if shape.tools:
        out["tool_calls"] = [call.as_json() for call in message.tool_calls] or None
        out["tool_call_id"] = message.tool_call_id
    if shape.names:
        out["name"] = message.name
    return out


def record_schema(shape: RecordShape) -> pl.Schema:
    """Columns of an accepted record; `id`, `messages`, `source` and `row` are never null.

    `tools` is the JSON text of the tool list. `source` says where the root row came from (`file:line`), `row` is
    the root row's id, `step` the last step it passed, `sample` its sample index there, `parents` the keys of the
    requests that led to it, first asked first. `teacher` is the recipe's alias, `served_model` the name in the
    reply. `policy_id` digests teacher, route, licence, seed and role; decisions live in POLICY.json. `generation` is 1
    where models that learned from people's texts wrote the row, and one more for each round of training on a model's
    answers that is known to lie behind its writers or its source text.
    """
    optional: dict[str, pl.DataType] = {"tools": pl.String()} if shape.tools else {}
    return pl.Schema(
        {
            "id": pl.String(),
            "messages": pl.List(_message(shape)),
            **optional,
            "source": pl.String(),
            "row": pl.String(),
            "step": pl.String(),
            "sample": pl.Int32(),
            "parents": pl.List(pl.String()),
            "teacher": pl.String(),
            "route": pl.String(),
            "served_model": pl.String(),
            "finish_reason": pl.String(),
            "scores": pl.List(pl.Struct({"name": pl.String(), "score": pl.Float64()})),
            "flags": pl.List(pl.String()),
            "row_license": pl.String(),
            "seed_relation": pl.String(),
            "policy_id": pl.String(),
            "generation": pl.Int32(),
        }
    )


def rejected_schema(shape: RecordShape) -> pl.Schema:
    """A record and why it was dropped or set aside: the stage, its reason code, its score, the bound it broke, words for people."""
    return pl.Schema(
        {
            **record_schema(shape),
            "stage": pl.String(),
            "reason": pl.String(),
            "score": pl.Float64(),
            "threshold": pl.Float64(),
            "detail": pl.String(),
        }
    )


def lineage_schema() -> pl.Schema:
    """One row per request of a record, joined to it by `id`; never null: `id`, `step`, `request_key`.

    `endpoint` is a host name, never a credential. `cached_input_tokens` is part of `input_tokens`,
    `reasoning_tokens` of `output_tokens`. `sampling` and `fields` (the row's fields after the step) are JSON text.
    """
    return pl.Schema(
        {
            "id": pl.String(),
            "step": pl.String(),
            "request_key": pl.String(),
            "teacher": pl.String(),
            "model": pl.String(),
            "endpoint": pl.String(),
            "served_model": pl.String(),
            "upstream": pl.String(),
            "reply_id": pl.String(),
            "finish_reason": pl.String(),
            "input_tokens": pl.Int64(),
            "cached_input_tokens": pl.Int64(),
            "output_tokens": pl.Int64(),
            "reasoning_tokens": pl.Int64(),
            "cost_usd": pl.Float64(),
            "attempts": pl.Int32(),
            "sent_at": pl.Datetime("us", "UTC"),
            "latency_s": pl.Float64(),
            "sampling": pl.String(),
            "fields": pl.String(),
        }
    )


def logprobs_schema() -> pl.Schema:
    """One row per captured reply of an accepted record, joined to it by `id`; never null: `id`, `step`, `request_key`.

    Position p of every list is the p-th token the teacher generated, the end token included where the server lists it;
    the prompt is not covered (its length is `input_tokens` of lineage). `logprobs` are natural logarithms as the
    server gave them: at temperature 1, but for servers set otherwise (vLLM's `--logprobs-mode`). `top_*` are the
    likeliest tokens, most likely first, in lists of equal length; what they leave of 1 is the tail. Ids are those of
    the served model's tokenizer, `tokenizer` its repository where the recipe names one; `ids_complete` says that no
    id is null. `token_bytes` stands where a token is part of a character.
    """
    ids, values = pl.List(pl.Int32()), pl.List(pl.Float32())
    return pl.Schema(
        {
            "id": pl.String(),
            "step": pl.String(),
            "request_key": pl.String(),
            "teacher": pl.String(),
            "model": pl.String(),
            "served_model": pl.String(),
            "tokenizer": pl.String(),
            "ids_complete": pl.Boolean(),
            "tokens": pl.List(pl.String()),
            "token_bytes": pl.List(pl.Binary()),
            "token_ids": ids,
            "logprobs": values,
            "top_tokens": pl.List(pl.List(pl.String())),
            "top_ids": pl.List(ids),
            "top_logprobs": pl.List(values),
        }
    )


def judgements_schema() -> pl.Schema:
    """One row per reply of a judge about a record, joined to it by `id`; never null: `id`, `step`, `judge`, `request_key`.

    `step` is `judge` or `best_of`. `overall` is the weighted mean of the `scores` that count, whose `written` value
    stands in the text; where `expected`, `score` is the mean over the probabilities of the digits the judge could have
    written. Of a comparison, `preferred` is `A` (the record), `B` (its `rival`) or `tie`. Where nothing could be read,
    `problem` says why and there is no score. `judge_id` changes with whatever a judge's words depend on;
    `calibration` is the id of the comparison with people that holds for all judges together, null without one.
    """
    score = pl.Struct(
        {"name": pl.String(), "score": pl.Float64(), "written": pl.Float64(), "expected": pl.Boolean()}
    )
    return pl.Schema(
        {
            "id": pl.String(),
            "step": pl.String(),
            "judge": pl.String(),
            "teacher": pl.String(),
            "served_model": pl.String(),
            "prompt": pl.String(),
            "prompt_version": pl.Int32(),
            "request_key": pl.String(),
            "overall": pl.Float64(),
            "scores": pl.List(score),
            "preferred": pl.String(),
            "rival": pl.String(),
            "reason": pl.String(),
            "problem": pl.String(),
            "judge_id": pl.String(),
            "calibration": pl.String(),
        }
    )


_SIDECARS = {"lineage": lineage_schema, "logprobs": logprobs_schema, "judgements": judgements_schema}


def table_schema(table: Table, shape: RecordShape) -> pl.Schema:
    """The schema of one kind of file; sidecars are the same for every shape."""
    if table in _SIDECARS:
        return _SIDECARS[table]()
    return record_schema(shape) if table == "record" else rejected_schema(shape)


@cache
def _arrow_schemas() -> dict[str, dict[str, str]]:
    packaged = Path(__file__).with_name("arrow_schemas.json")
    schemas: dict[str, dict[str, str]] = orjson.loads(packaged.read_bytes())["schemas"]
    return schemas


def arrow_schema_b64(table: Table, shape: RecordShape) -> str:
    """The `ARROW:schema` value that makes readers see plain `string` and `list`.

    Base64 of the serialised Arrow IPC schema of `table_schema(table, shape)`.
    """
    return _arrow_schemas()[table]["any" if table in _SIDECARS else shape.label()]
