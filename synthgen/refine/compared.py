"""Which text of a row is compared: chosen columns of any type, or a conversation, as one text.

In: a schema and names of fields. Out: one expression. Guarantees: everything the chosen fields say is in the text, tool
calls and nested values as well; rows that differ only in a call's arguments never look the same.

`prompt` and `completion` name the halves of a conversation where there is no column of that name: all turns before the
last answer, and the last answer.
"""

import re
from collections.abc import Sequence

import polars as pl

from synthgen.assets import suggest
from synthgen.errors import UsageError

__all__ = ["compared_text", "default_fields", "stored_score", "template_parts"]

_CONVERSATIONS = ("messages", "conversations")
# Who speaks, and names that join turns: the same in every row, and no text.
_SPEAKER = ("role", "from", "name", "tool_call_id")
_ANSWERS = ("assistant", "gpt", "model")
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}|\{\w*\}", re.DOTALL)
_TEMPLATE_CHARS = 8  # shorter pieces between placeholders ("Answer:") occur in texts of their own


def default_fields(schema: pl.Schema, way_out: str = "name columns with --field") -> tuple[str, ...]:
    """The fields compared where the user names none; `way_out`: what to do where none are known.

    Raises:
        UsageError: the columns are not those of a known format, and not a single text beside the id.
    """
    for fields in (("text",), *((name,) for name in _CONVERSATIONS), ("prompt", "completion")):
        if all(name in schema for name in fields):
            return fields
    if {"instruction", "output"} <= set(schema):
        return tuple(name for name in ("instruction", "input", "output") if name in schema)
    texts = [name for name, dtype in schema.items() if dtype == pl.String and name not in ("id", "source")]
    if len(texts) == 1:
        return (texts[0],)
    raise UsageError(f"which columns hold the text? {way_out}: {', '.join(schema)}")


def compared_text(schema: pl.Schema, fields: Sequence[str], template: Sequence[str] = ()) -> pl.Expr:
    """The chosen fields as one String column `text`, never null; `template` parts are cut out.

    Raises:
        UsageError: a field is not there.
    """
    parts = [_field(schema, name) for name in fields]
    text = pl.concat_str(parts, separator="\n", ignore_nulls=True).fill_null("")
    if template:
        text = text.str.replace_many(list(template), [" "] * len(template))
    return text.alias("text")


def template_parts(template: str) -> tuple[str, ...]:
    """The fixed pieces of a prompt template, between `{{ … }}`, `{% … %}` and `{name}`; long ones first."""
    pieces = {piece.strip() for piece in _PLACEHOLDER.split(template)}
    return tuple(
        sorted((piece for piece in pieces if len(piece) >= _TEMPLATE_CHARS), key=lambda p: (-len(p), p))
    )


def stored_score(name: str) -> pl.Expr:
    """The score of that name in the column `scores`, null where there is none."""
    named = pl.element().struct
    return pl.col("scores").list.eval(named.field("score").filter(named.field("name") == name)).list.first()


def _field(schema: pl.Schema, name: str) -> pl.Expr:
    if name not in schema:
        conversation = next(
            (column for column in _CONVERSATIONS if _turns(schema.get(column)) is not None), None
        )
        if conversation is None or name not in ("prompt", "completion"):
            raise UsageError(
                f"no column {name!r}{suggest(name, list(schema))}; there are: {', '.join(schema)}"
            )
        return _half(schema, conversation, name)
    dtype = schema[name]
    turn = _turns(dtype)
    if turn is not None:
        return pl.col(name).list.eval(_said(turn)).list.join("\n")
    if dtype == pl.String:
        return pl.col(name)
    if dtype == pl.List(pl.String):
        return pl.col(name).list.join("\n")
    if dtype.is_nested():
        return pl.when(pl.col(name).is_not_null()).then(pl.struct(name).struct.json_encode())
    return pl.col(name).cast(pl.String)


def _half(schema: pl.Schema, column: str, half: str) -> pl.Expr:
    turn = _turns(schema[column])
    assert turn is not None  # the caller looked
    speaker = next((field.name for field in turn.fields if field.name in ("role", "from")), None)
    if speaker is None:
        raise UsageError(f"column {column}: its turns have no `role` or `from`; compare the whole column")
    answers = pl.element().struct.field(speaker).is_in(_ANSWERS)
    if half == "completion":
        return pl.col(column).list.eval(_said(turn).filter(answers)).list.last()
    count = pl.col(column).list.eval(answers.arg_true().last()).list.first()
    return (
        pl.col(column)
        .list.head(count.fill_null(pl.col(column).list.len()))
        .list.eval(_said(turn))
        .list.join("\n")
    )


def _turns(dtype: pl.DataType | None) -> pl.Struct | None:
    """The struct of a conversation's turns, where the column is one."""
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
        return dtype.inner
    return None


def _said(turn: pl.Struct) -> pl.Expr:
    """Everything one turn says: its texts, and whatever is nested in it as JSON."""
    parts = []
    for field in turn.fields:
        value = pl.element().struct.field(field.name)
        if field.name in _SPEAKER:
            continue
        if field.dtype == pl.String:
            parts.append(value)
        elif field.dtype.is_nested():
            parts.append(pl.when(value.is_not_null()).then(pl.struct(value).struct.json_encode()))
        else:
            parts.append(value.cast(pl.String))
    return pl.concat_str(parts, separator="\n", ignore_nulls=True) if parts else pl.lit("")
