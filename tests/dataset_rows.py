"""Rows for the tests of `synthgen.dataset`: plain chat, tools and reasoning, in the schemas of the package."""

from pathlib import Path

import polars as pl

from synthgen.dataset.staging import Staging
from synthgen.schema import RecordShape, lineage_schema, record_schema, rejected_schema

PLAIN = RecordShape()
FULL = RecordShape(reasoning=True, tools=True, names=True)


def record(number: int, *, root: int | None = None) -> dict[str, object]:
    return {
        "id": f"{number:032x}",
        "messages": [
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "content": f"Antwort {number}: é " + "word " * (number % 7)},
        ],
        "source": f"tickets.jsonl:{number + 1}",
        "row": f"root-{number if root is None else root}",
        "step": "label",
        "sample": number % 2,
        "parents": [f"{number:032x}"] * (number % 3),
        "teacher": "big",
        "route": "self-hosted",
        "served_model": None if number % 5 == 0 else "qwen3",
        "finish_reason": "stop",
        "scores": [{"name": "judge", "score": 4.5}] if number % 2 else None,
        "flags": [],
        "row_license": "Apache-2.0",
        "seed_relation": "adapted",
        "policy_id": "abc",
    }


def records(first: int, last: int, *, per_root: int = 1) -> pl.DataFrame:
    rows = [record(n, root=n // per_root) for n in range(first, last)]
    return pl.DataFrame(rows, schema=record_schema(PLAIN))


def full_record(number: int) -> dict[str, object]:
    call = {"id": "c1", "name": "look_up", "arguments": f'{{"n": {number}}}'}
    bare = {"reasoning_content": None, "tool_calls": None, "tool_call_id": None, "name": None}
    return {
        **record(number),
        "messages": [
            {**bare, "role": "user", "content": "How many?", "name": "ada"},
            {**bare, "role": "assistant", "content": "", "reasoning_content": "look", "tool_calls": [call]},
            {**bare, "role": "tool", "content": "7", "tool_call_id": "c1"},
            {**bare, "role": "assistant", "content": "Seven."},
        ],
        "tools": '[{"type":"function","function":{"name":"look_up"}}]',
    }


def rejected(first: int, last: int) -> pl.DataFrame:
    why = {"stage": "length", "reason": "too_short", "score": 3.0, "threshold": 20.0, "detail": None}
    return pl.DataFrame([{**record(n), **why} for n in range(first, last)], schema=rejected_schema(PLAIN))


def lineage(first: int, last: int) -> pl.DataFrame:
    rows = [{"id": f"{n:032x}", "step": "label", "request_key": f"{n:032x}"} for n in range(first, last)]
    return pl.DataFrame(rows, schema=lineage_schema())


def staged(out: Path, accepted: int = 12, *, share: float = 0.25, rows_per_shard: int = 5) -> Staging:
    """A finished staging with rows of every kind but quarantine."""
    staging = Staging(out, PLAIN, rows_per_shard=rows_per_shard, test_share=share)
    staging.add("accepted", records(0, accepted))
    staging.add("rejected", rejected(100, 103))
    staging.add("lineage", lineage(0, accepted))
    staging.finish(metadata={"run": "test"})
    return staging


def contents(out: Path) -> dict[str, bytes]:
    """Everything that lies in a folder, hidden files included."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
