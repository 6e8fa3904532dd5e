"""One journal line: `crc32hex8 SP json LF`, the JSON beginning with its key.

In: an entry as a dict. Out: bytes, and back. Guarantees: a line whose bytes changed is told from a good one, and costs
no other entry, also where its line break is what was damaged; a torn tail (a crash in the middle of a write: a last
line without its end) is told from damage.

Kinds (`t`): `S` source row, `I` intent to send (durable before the send), `R` reply kept for good, `F` final failure,
`A` an attempt that ended without an answer, `X` the body of a paid but unusable reply, `B` a batch of requests at a
vendor (see `batches`). Each send is one `I` closed by one of `R`, `A`, `X`; an `I` without its end is a send whose
reply was lost. `F` closes a request, not a send. A request sent in a batch has no `I` of its own.
"""

import re
from collections.abc import Iterable, Iterator
from typing import cast
from zlib import crc32

import orjson

from synthgen.types import JSONValue

__all__ = ["Entry", "decode", "encode", "scan"]

Entry = dict[str, JSONValue]

# Cannot occur inside an entry: there every quotation mark of a text is escaped, and JSON holds no spaces.
_START = re.compile(rb'[0-9a-f]{8} \{"k":')


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


def scan(lines: Iterable[bytes]) -> Iterator[tuple[int, int, Entry | None]]:
    """Offset, length and entry of every whole line of a segment (an open file, for one); None for a damaged one.

    What stands behind the last line break, a torn tail, is left out.
    """
    offset = 0
    for line in lines:
        if not line.endswith(b"\n"):
            return
        entry = decode(line)
        if entry is None:
            # Where a line break was damaged, the next entry is whole all the same.
            for start in (match.start() for match in _START.finditer(line, 1)):
                entry = decode(line[start:])
                if entry is not None:
                    yield offset, start, None
                    offset, line = offset + start, line[start:]
                    break
        yield offset, len(line), entry
        offset += len(line)
