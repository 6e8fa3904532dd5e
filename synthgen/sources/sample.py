"""Rows made of attributes: every combination, or weighted random draws.

In: named lists of values, from the recipe or from a text file with one value a line. Out: rows with one value an
attribute, `where` = `sample:1`, ... Without `count` the rows are the grid: all combinations, the last attribute
changing fastest. With `count` they are that many independent draws; draws that coincide are all kept.
Guarantee: a draw depends on (seed, row number, attribute name, that attribute's values) alone. So a larger `count` only
appends rows, and a new attribute changes no value of the others.
Rejected: `random.Random(seed)` (one stream for all: any change to one attribute shifts every later draw).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, product
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from synthgen.dataclasses import dataclass
from synthgen.errors import SourceError
from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.sources.rows import BadRow, SourceRow
from synthgen.types import JSONValue

__all__ = ["SAMPLE", "FromFile", "SampleParams"]

_FIELD = r"^[A-Za-z_][A-Za-z0-9_]*$"


class FromFile(Strict):
    """Values from a UTF-8 text file, one a line; blank lines are skipped."""

    file: str


class SampleParams(Strict):
    """Attributes to combine. A value is any JSON value; `{value: x, weight: 2}` gives it a weight (default 1)."""

    attributes: Annotated[
        dict[
            Annotated[str, Field(pattern=_FIELD)], Annotated[list[JSONValue], Field(min_length=1)] | FromFile
        ],
        Field(min_length=1),
    ]
    count: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0

    @field_validator("attributes")
    @classmethod
    def _weights_are_numbers(
        cls, value: dict[str, list[JSONValue] | FromFile]
    ) -> dict[str, list[JSONValue] | FromFile]:
        for name, values in value.items():
            if not isinstance(values, FromFile):
                try:
                    _choices(values)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        return value

    @model_validator(mode="after")
    def _weights_need_count(self) -> "SampleParams":
        for name, values in self.attributes.items():
            if self.count is None and not isinstance(values, FromFile) and any(map(_is_weighted, values)):
                raise ValueError(f"{name}: weights mean nothing in a grid; set `count` to draw by weight")
        return self


@dataclass(frozen=True, slots=True)
class _Choices:
    """Values of a weight above 0; `bounds[i]` is the sum of the weights up to and including value i."""

    values: Sequence[JSONValue]
    bounds: Sequence[float]

    def at(self, share: float) -> JSONValue:
        """The value at `share` (0 <= share < 1) of the total weight."""
        index = bisect_right(self.bounds, share * self.bounds[-1])
        return self.values[min(index, len(self.values) - 1)]


def read_sample(params: SampleParams, base: Path) -> Iterator[SourceRow | BadRow]:
    """The grid, or `count` draws.

    Raises:
        SourceError: an attribute's file cannot be read or is empty.
    """
    attributes = {name: _load(values, base) for name, values in params.attributes.items()}
    rows = _grid(attributes) if params.count is None else _draws(attributes, params.count, params.seed)
    return (SourceRow(fields, f"sample:{number}") for number, fields in enumerate(rows, 1))


SAMPLE = Plugin("sample", SampleParams, read_sample)


def _grid(attributes: dict[str, _Choices]) -> Iterator[dict[str, JSONValue]]:
    for values in product(*(choices.values for choices in attributes.values())):
        yield dict(zip(attributes, values, strict=True))


def _draws(attributes: dict[str, _Choices], count: int, seed: int) -> Iterator[dict[str, JSONValue]]:
    for number in range(count):
        yield {name: choices.at(_share(seed, number, name)) for name, choices in attributes.items()}


def _share(seed: int, number: int, name: str) -> float:
    """Uniform in [0, 1): the first 53 bits of blake2b-64 over `seed/number/name`."""
    digest = blake2b(f"{seed}/{number}/{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _load(values: list[JSONValue] | FromFile, base: Path) -> _Choices:
    if not isinstance(values, FromFile):
        return _choices(values)
    path = base / Path(values.file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    found: list[JSONValue] = [line.strip() for line in lines if line.strip()]
    if not found:
        raise SourceError(f"{path}: holds no value; write one a line")
    return _choices(found)


def _choices(values: list[JSONValue]) -> _Choices:
    plain: list[JSONValue] = []
    weights: list[float] = []
    for value in values:
        if isinstance(value, dict) and _is_weighted(value):
            weight = value["weight"]
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < 1e300:
                raise ValueError(f"weight {weight!r} is not a number of 0 or more")
            if weight > 0:
                plain.append(value["value"])
                weights.append(float(weight))
        else:
            plain.append(value)
            weights.append(1.0)
    if not plain:
        raise ValueError("all weights are 0")
    return _Choices(plain, list(accumulate(weights)))


def _is_weighted(value: JSONValue) -> bool:
    return isinstance(value, dict) and value.keys() == {"value", "weight"}
