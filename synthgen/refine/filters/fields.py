"""The row's own fields, for filters that compare an answer with a reference.

In: the view's column `fields`. Out: one value a row, None where the row has no such field.
Rejected: columns of the view for each kind of reference; what a reference is called is the user's business.
"""

import orjson
import polars as pl

from synthgen.types import JSONValue

__all__ = ["field_values"]


def field_values(frame: pl.DataFrame, name: str) -> list[JSONValue]:
    """The field `name` of every row; `reward_model.ground_truth` is a field of a field, where no field has that name."""
    return [_value(text, name) for text in frame["fields"].to_list()]


def _value(text: str | None, name: str) -> JSONValue:
    try:
        fields = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None
    return _within(fields, name)


def _within(value: JSONValue, name: str) -> JSONValue:
    if not isinstance(value, dict) or name in value:
        return value[name] if isinstance(value, dict) else None
    outer, _, inner = name.partition(".")
    return _within(value.get(outer), inner) if inner else None
