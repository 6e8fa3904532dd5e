"""A number for each of millions of 16-byte keys, in about 25 bytes a key where a dict takes 180.

In: keys that are digests (so that they spread evenly) and numbers below 2^32. Out: the number of a key. Looking up or
adding one takes less than a microsecond up to tens of millions, and nothing is ever moved at once: no pause while it
grows. Rejected: sorted arrays (`journal/keys.py`: they are looked up much more often than they change, these change
with every key), an open-addressed table (doubling it stops everything for a second at ten million keys).
"""

__all__ = ["KeyMap"]

_REST = 14  # bytes of a key behind the two that choose its shard
_ENTRY = _REST + 4


class KeyMap:
    """Keys cannot be removed; the number of one can be set again."""

    def __init__(self) -> None:
        self._shards: list[bytearray | None] = [None] * 65536
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def get(self, key: bytes) -> int | None:
        """The number of a key, None where it was never set."""
        shard = self._shards[key[0] << 8 | key[1]]
        at = -1 if shard is None else _find(shard, key[2:])
        return None if shard is None or at < 0 else int.from_bytes(shard[at + _REST : at + _ENTRY])

    def set(self, key: bytes, number: int) -> int | None:
        """Give a key a number, 0 to 2^32 - 1; returns the one it had."""
        place, rest = key[0] << 8 | key[1], key[2:]
        shard = self._shards[place]
        if shard is None:
            shard = self._shards[place] = bytearray()
        at = _find(shard, rest)
        if at < 0:
            shard += rest + number.to_bytes(4)
            self._size += 1
            return None
        before = int.from_bytes(shard[at + _REST : at + _ENTRY])
        shard[at + _REST : at + _ENTRY] = number.to_bytes(4)
        return before


def _find(shard: bytearray, rest: bytes) -> int:
    """Where the entry with this rest of a key starts, -1 for nowhere; what crosses entries is none."""
    at = shard.find(rest)
    while at >= 0 and at % _ENTRY:
        at = shard.find(rest, at + 1)
    return at
