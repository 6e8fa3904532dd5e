"""Reading JSON nobody promised: every accessor gives a value of its type, whatever the teacher sent.

In: bytes or a JSON value of unknown shape. Out: an object, a list, a text or a count, empty where the shape is wrong.
Guarantee: nothing here raises. Rejected: pydantic models of the vendors' replies (ten times the time of orjson, and
one new field with an odd type would turn a paid answer into an error).
"""

import json
import math
import re

import orjson

from synthgen.types import JSONValue

__all__ = ["as_count", "as_list", "as_object", "as_text", "parse_object", "shorten"]

MAX_COUNT = 2**53
_DIGITS = re.compile(r"[0-9]{1,16}")


def parse_object(body: bytes) -> dict[str, JSONValue] | None:
    """The JSON object in `body`, None where there is none. A list is its first element (Google's gateway).

    What orjson refuses is read by the standard library, since the answer is paid: a lone surrogate (a model cut
    in the middle of an emoji) becomes `?`, bytes that are no UTF-8 (a model cut between two of them) become U+FFFD,
    NaN and infinity become null.
    """
    value: JSONValue
    try:
        value = orjson.loads(body)
    except ValueError:
        try:
            text = body.decode(json.detect_encoding(body), "replace")
            parsed = json.loads(text, parse_constant=lambda _name: None)
            value = orjson.loads(json.dumps(parsed, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else None


def as_object(value: JSONValue) -> dict[str, JSONValue]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: JSONValue) -> list[JSONValue]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: JSONValue) -> str:
    """`value` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def as_count(value: JSONValue) -> int:
    """`value` as a number of tokens, also where it is written as a text; 0 where it is none."""
    if type(value) is int:  # nearly always; a bool is none
        return value if 0 <= value < MAX_COUNT else 0
    if isinstance(value, str):
        return as_count(int(value)) if _DIGITS.fullmatch(value) else 0
    if (
        value is None
        or isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
    ):
        return 0
    return int(value) if 0 <= value < MAX_COUNT else 0


def shorten(text: str, limit: int = 300) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
