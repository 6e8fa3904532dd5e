"""Rows written in the recipe itself.

In: a list of mappings, or of strings (each the field `instruction`). Out: those rows, `where` = `inline:1`, ...
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.sources.rows import BadRow, SourceRow
from synthgen.types import JSONValue

__all__ = ["INLINE", "InlineParams"]


class InlineParams(Strict):
    """`inline: [...]` is short for `inline: {rows: [...]}`."""

    rows: Annotated[list[str | dict[str, JSONValue]], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        return {"rows": value} if isinstance(value, list) else value


def read_inline(params: InlineParams, base: Path) -> Iterator[SourceRow | BadRow]:
    """The rows in the order they are written."""
    for number, row in enumerate(params.rows, 1):
        fields: dict[str, JSONValue] = {"instruction": row} if isinstance(row, str) else dict(row)
        yield SourceRow(fields, f"inline:{number}")


INLINE = Plugin("inline", InlineParams, read_inline)
