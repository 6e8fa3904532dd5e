"""One journal line: `crc32hex8 SP json LF`, the JSON beginning with its key.

In: an entry as a dict. Out: bytes, and back. Guarantee: a line whose bytes changed is told from a good one; a torn
tail (a crash in the middle of a write) is told from damage in the middle.

Kinds (`t`): `S` source row, `I` intent to send (durable before the send), `R` reply kept for good, `F` final failure,
`A` an attempt that ended without an answer, `X` the body of a paid but unusable reply.
"""

from collections.abc import Iterator
from typing import BinaryIO, cast
from zlib import crc32

import orjson

from synthgen.types import JSONValue

__all__ = ["Entry", "decode", "encode", "scan"]

Entry = dict[str, JSONValue]


def encode(entry: Entry) -> bytes:
    """The line of an entry; `k` and `t` must come first."""
    text = orjson.dumps(entry)
    return b"%08x %s\n" % (crc32(text), text)


def decode(line: bytes) -> Entry | None:
    """The entry of a line (with its LF), or None where the line is torn or damaged."""
    if len(line) < 12 or line[8:9] != b" " or not line.endswith(b"\n"):
        return None
    text = line[9:-1]
    try:
        if int(line[:8], 16) != crc32(text):
            return None
        return cast(Entry, orjson.loads(text))
    except ValueError:
        return None


def scan(file: BinaryIO) -> Iterator[tuple[int, int, Entry | None]]:
    """Offset, length and entry of every line from the start of `file`; None for a bad line."""
    offset = 0
    for line in file:
        yield offset, len(line), decode(line)
        offset += len(line)
