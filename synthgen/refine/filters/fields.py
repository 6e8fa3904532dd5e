"""The row's own fields, for filters that compare an answer with a reference.

In: the view's column `fields`. Out: one value a row, None where the row has no such field.
Rejected: columns of the view for each kind of reference; what a reference is called is the user's business.
"""

import orjson
import polars as pl

from synthgen.types import JSONValue

__all__ = ["field_values"]


def field_values(frame: pl.DataFrame, name: str) -> list[JSONValue]:
    """The field `name` of every row."""
    return [_value(text, name) for text in frame["fields"].to_list()]


def _value(text: str | None, name: str) -> JSONValue:
    try:
        fields = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None
    return fields.get(name) if isinstance(fields, dict) else None
