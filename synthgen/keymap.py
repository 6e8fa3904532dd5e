"""A number for each of millions of 16-byte keys, in 20 to 30 bytes a key where a dict takes 180.

In: keys that are digests (so that they spread evenly) and numbers below 2^32, or as many bytes as asked for. Out: the
number of a key. Looking up or adding one takes less than a microsecond up to tens of millions (`small`: up to half a
million, at a sixteenth of the ground cost of 5 MiB), and nothing is ever moved at once: no pause while it grows.
Rejected: sorted arrays (`journal/keys.py`: they are looked up much more often than they change, these change with every
key), an open-addressed table (doubling it stops everything for a second at ten million keys).
"""

from collections.abc import Iterator

__all__ = ["KeyMap"]


class KeyMap:
    """Keys cannot be removed; the number of one can be set again.

    `kept_bytes`: so much of a key is looked at. With 10, the chance that two of ten million keys are taken for one is 4e-11.
    """

    def __init__(self, *, number_bytes: int = 4, kept_bytes: int = 16, small: bool = False) -> None:
        self._number_bytes = number_bytes
        self._shift = 4 if small else 0
        self._cut = 1 if small else 2  # bytes of a key that its shard tells
        self._kept = kept_bytes
        self._rest = kept_bytes - self._cut
        self._entry = self._rest + number_bytes
        self._shards: list[bytearray | None] = [None] * (65536 >> self._shift)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def get(self, key: bytes) -> int | None:
        """The number of a key, None where it was never set."""
        shard = self._shards[(key[0] << 8 | key[1]) >> self._shift]
        if shard is None:
            return None
        at = self._find(shard, key[self._cut : self._kept])
        return None if at < 0 else int.from_bytes(shard[at + self._rest : at + self._entry])

    def set(self, key: bytes, number: int) -> int | None:
        """Give a key a number; returns the one it had.

        Raises:
            OverflowError: the number is negative, or too large.
        """
        place, rest = (key[0] << 8 | key[1]) >> self._shift, key[self._cut : self._kept]
        shard = self._shards[place]
        if shard is None:
            shard = self._shards[place] = bytearray()
        at = self._find(shard, rest)
        if at < 0:
            shard += rest + number.to_bytes(self._number_bytes)
            self._size += 1
            return None
        before = int.from_bytes(shard[at + self._rest : at + self._entry])
        shard[at + self._rest : at + self._entry] = number.to_bytes(self._number_bytes)
        return before

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Every key, as far as it is kept, and its number, in no order."""
        for place, shard in enumerate(self._shards):
            head = (place << self._shift).to_bytes(2)[: self._cut]
            for at in range(0, len(shard or b""), self._entry):
                assert shard is not None
                rest = shard[at : at + self._rest]
                yield head + rest, int.from_bytes(shard[at + self._rest : at + self._entry])

    def _find(self, shard: bytearray, rest: bytes) -> int:
        """Where the entry with this rest of a key starts, -1 for nowhere; what crosses entries is none."""
        at = shard.find(rest)
        while at >= 0 and at % self._entry:
            at = shard.find(rest, at + 1)
        return at
