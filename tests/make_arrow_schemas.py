"""Compute `synthgen/arrow_schemas.json` again: `python -m tests.make_arrow_schemas`, after any change of `schema.py`.

In: the polars schemas of `synthgen.schema`. Out: for each table and shape, base64 of the equivalent Arrow schema
with plain `string` and `list`. The only place that turns our schemas into pyarrow's; `test_schema.py` checks that
the shipped file still says the same.
"""

import base64
import itertools
import json
from pathlib import Path

import polars as pl
import pyarrow as pa

import synthgen.schema
from synthgen.schema import SCHEMA_VERSION, RecordShape, Table, table_schema

SHAPES = [RecordShape(*flags) for flags in itertools.product((False, True), repeat=3)]
_PLAIN = {
    pl.String(): pa.string(),
    pl.Int32(): pa.int32(),
    pl.Int64(): pa.int64(),
    pl.Float32(): pa.float32(),
    pl.Float64(): pa.float64(),
    pl.Boolean(): pa.bool_(),
    pl.Binary(): pa.binary(),
    pl.Datetime("us", "UTC"): pa.timestamp("us", "UTC"),
}


def plain_type(dtype: pl.DataType) -> pa.DataType:
    """The Arrow type other writers use for `dtype`."""
    if isinstance(dtype, pl.List):
        return pa.list_(plain_type(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pa.struct([(field.name, plain_type(field.dtype)) for field in dtype.fields])
    return _PLAIN[dtype]


def plain_schema(table: Table, shape: RecordShape) -> pa.Schema:
    """The Arrow schema a reader should see for one kind of file."""
    return pa.schema([(name, plain_type(dtype)) for name, dtype in table_schema(table, shape).items()])


def _b64(table: Table, shape: RecordShape) -> str:
    return base64.b64encode(plain_schema(table, shape).serialize().to_pybytes()).decode()


def main() -> None:
    """Write the file beside `schema.py`."""
    by_shape: tuple[Table, ...] = ("record", "rejected")
    schemas = {table: {shape.label(): _b64(table, shape) for shape in SHAPES} for table in by_shape}
    sidecars: tuple[Table, ...] = ("lineage", "logprobs", "judgements")
    schemas |= {table: {"any": _b64(table, RecordShape())} for table in sidecars}
    path = Path(synthgen.schema.__file__).with_name("arrow_schemas.json")
    text = json.dumps({"schema_version": SCHEMA_VERSION, "schemas": schemas}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
