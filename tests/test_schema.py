"""The record schema: shapes, and the precomputed Arrow schemas."""

import base64
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

import synthgen.schema
from synthgen.schema import (
    SCHEMA_VERSION,
    RecordShape,
    Table,
    arrow_schema_b64,
    message_struct,
    record_schema,
    rejected_schema,
    table_schema,
)
from synthgen.types import Message, ToolCall
from tests.make_arrow_schemas import SHAPES, plain_schema

TABLES: list[Table] = ["record", "rejected", "lineage", "logprobs"]


def _fields(shape: RecordShape) -> list[str]:
    messages = record_schema(shape)["messages"]
    assert isinstance(messages, pl.List)
    assert isinstance(messages.inner, pl.Struct)
    return [field.name for field in messages.inner.fields]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("shape", SHAPES, ids=RecordShape.label)
def test_shipped_arrow_schema_is_what_pyarrow_computes(table: Table, shape: RecordShape) -> None:
    shipped = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(arrow_schema_b64(table, shape))))

    assert shipped.equals(plain_schema(table, shape), check_metadata=True)
    assert shipped.names == list(table_schema(table, shape))


def test_shipped_arrow_schemas_carry_the_schema_version() -> None:
    path = Path(synthgen.schema.__file__).with_name("arrow_schemas.json")

    assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION


def test_arrow_schemas_have_no_large_types() -> None:
    for table in TABLES:
        for shape in SHAPES:
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(arrow_schema_b64(table, shape))))
            assert "large" not in str(schema)


def test_plain_messages_have_only_role_and_content() -> None:
    assert _fields(RecordShape()) == ["role", "content"]
    assert "tools" not in record_schema(RecordShape())


def test_full_shape_adds_its_fields_in_order() -> None:
    shape = RecordShape(reasoning=True, tools=True, names=True)

    assert _fields(shape) == ["role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"]
    assert list(record_schema(shape))[:3] == ["id", "messages", "tools"]


def test_rejected_is_a_record_with_its_reason() -> None:
    names = list(rejected_schema(RecordShape()))

    assert names == [*record_schema(RecordShape()), "stage", "reason", "score", "threshold", "detail"]


def test_labels_of_shapes_are_distinct() -> None:
    assert len({shape.label() for shape in SHAPES}) == 8


def test_union_of_shapes_holds_both() -> None:
    assert RecordShape(tools=True) | RecordShape(names=True) == RecordShape(tools=True, names=True)


def test_message_struct_has_exactly_the_fields_of_the_shape() -> None:
    message = Message("assistant", "hi", reasoning="r", tool_calls=(ToolCall("1", "f", "{}"),), name="n")

    for shape in SHAPES:
        assert sorted(message_struct(message, shape)) == sorted(_fields(shape))


def test_message_struct_keeps_values() -> None:
    message = Message("assistant", "hi", reasoning="r", tool_calls=(ToolCall("1", "f", "{}"),), name="n")

    assert message_struct(message, RecordShape(True, True, True)) == {
        "role": "assistant",
        "content": "hi",
        "reasoning_content": "r",
        "tool_calls": [{"id": "1", "name": "f", "arguments": "{}"}],
        "tool_call_id": None,
        "name": "n",
    }
