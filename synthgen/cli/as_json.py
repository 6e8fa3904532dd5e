"""Results for programs. Apart from `output`, which needs a library for tables."""

import orjson

from synthgen.types import JSONValue

__all__ = ["print_json"]


def print_json(value: JSONValue) -> None:
    """JSON on stdout, indented."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode())
