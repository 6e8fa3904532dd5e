"""A sealed segment: its lines compressed, and a binary index beside them.

In: a segment nobody writes any more. Out: `000001.jsonl.zst`, its very bytes as independent zstd frames of about
128 KiB cut between entries (so `zstd -d` gives the segment back, and one reply costs one frame); `000001.idx`: sorted
keys with their places, where the frames start, the account of the journal up to here, and the damage known.
Guarantees: an index is used only if its CRC is right; without one it is built again from the frames, or from the raw
segment. A damaged frame costs the entries in it.

    index: magic, 4 u64 counts | replies: high, low, place | rows: high, low, place | frames: raw starts, file starts
           (one more than frames: the ends) | JSON: account, damage | u32 CRC of all before; everything little-endian

zstd is in Python's standard library from 3.14 on; before, `backports.zstd` is the same module (1.7 MB, no dependencies),
so this dependency ends by itself. Rejected: `zstandard` (an interface of its own, for good), zlib (2-3 times the
time for less).
"""

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from zlib import crc32

import numpy as np
import orjson

from synthgen.dataclasses import dataclass
from synthgen.journal.contents import Contents, sealed_path
from synthgen.journal.keys import U64, SortedKeys
from synthgen.journal.ledger import Account
from synthgen.spool import read_at
from synthgen.types import JSONValue

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "Frames",
    "SegmentIndex",
    "compress",
    "decompress",
    "find_frames",
    "read_index",
    "rebuild_index",
    "write_index",
]

_MAGIC = b"synjidx\x01"
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_COUNTS = struct.Struct("<4Q")
_CRC = struct.Struct("<I")
_START = len(_MAGIC) + _COUNTS.size
_LARGEST_FRAME = 256 << 20  # no entry comes near: replies are cut off at 64 MiB


@dataclass(frozen=True, slots=True)
class Frames:
    """Where frames start, in the raw segment and in the file; the last value of each is its end."""

    raw_starts: U64
    file_starts: U64

    def __len__(self) -> int:
        return len(self.raw_starts) - 1

    @property
    def raw_size(self) -> int:
        """Bytes of the raw segment."""
        return int(self.raw_starts[-1])

    @property
    def file_size(self) -> int:
        """Bytes of the compressed file."""
        return int(self.file_starts[-1])

    def holding(self, offset: int) -> int:
        """Number of the frame that holds a raw offset."""
        return int(self.raw_starts.searchsorted(np.uint64(offset), "right")) - 1

    def read(self, file: int, frame: int) -> bytes | None:
        """The raw bytes of a frame, None where it is damaged."""
        start, end = int(self.file_starts[frame]), int(self.file_starts[frame + 1])
        return decompress(read_at(file, end - start, start), self._raw_size_of(frame))

    def _raw_size_of(self, frame: int) -> int:
        return int(self.raw_starts[frame + 1]) - int(self.raw_starts[frame])

    def lines(self, file: int) -> Iterator[bytes]:
        """Every line of the segment; a damaged frame is one line of zeros, so that offsets stay right."""
        rest = b""
        for frame in range(len(self)):
            raw = self.read(file, frame)
            if raw is None:
                size = self._raw_size_of(frame)
                if rest:
                    yield rest
                yield bytes(size - 1) + b"\n"
                rest = b""
                continue
            *lines, rest = (rest + raw).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest


def compress(raw: bytes) -> bytes:
    """One frame, with a checksum."""
    return zstd.compress(raw, options={zstd.CompressionParameter.checksum_flag: 1})


def decompress(frame: bytes | memoryview, size: int) -> bytes | None:
    """The raw bytes of a frame; None where it is damaged, or not of `size` bytes."""
    try:
        # The size is in the frame's head: a damaged one must not make us fill the memory.
        if zstd.get_frame_info(frame).decompressed_size != size:
            return None
        raw = zstd.decompress(frame)
    except (zstd.ZstdError, MemoryError):
        return None
    return raw if len(raw) == size else None


def find_frames(path: Path) -> Frames:
    """The frames of a compressed segment whose index is lost.

    What is not a good frame counts as one of a single byte, which will not decompress; offsets behind it are smaller
    than in the raw segment. No length in a damaged frame is believed: the next good one is looked for.
    """
    content = path.read_bytes()
    raw_starts, file_starts = [0], [0]
    while (start := file_starts[-1]) < len(content):
        raw_size, size = _measure(memoryview(content)[start:])
        if not size:
            found = content.find(_FRAME_MAGIC, start + 1)
            raw_size, size = 1, (found if found > 0 else len(content)) - start
        raw_starts.append(raw_starts[-1] + raw_size)
        file_starts.append(start + size)
    return Frames(np.array(raw_starts, np.uint64), np.array(file_starts, np.uint64))


def _measure(rest: memoryview) -> tuple[int, int]:
    """Raw and compressed size of the good frame at the start of `rest`; zeros where there is none."""
    try:
        raw_size, size = zstd.get_frame_info(rest).decompressed_size or 0, zstd.get_frame_size(rest)
    except zstd.ZstdError:
        return 0, 0
    if not 0 < raw_size <= _LARGEST_FRAME or size > len(rest):
        return 0, 0
    return (raw_size, size) if decompress(rest[:size], raw_size) is not None else (0, 0)


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """What an index file holds. `account` is the journal's after this segment."""

    number: int
    replies: SortedKeys
    rows: SortedKeys
    frames: Frames
    account: Account
    damaged: tuple[str, ...]

    @classmethod
    def of(cls, contents: Contents, frames: Frames) -> "SegmentIndex":
        """The index of what was read."""
        replies, rows = SortedKeys.of(contents.replies), SortedKeys.of(contents.rows)
        return cls(contents.number, replies, rows, frames, contents.account, tuple(contents.damaged))


def write_index(path: Path, index: SegmentIndex) -> None:
    """Write an index file and make it durable; the caller renames it."""
    meta: dict[str, JSONValue] = {"account": index.account.as_json(), "damaged": list(index.damaged)}
    text = orjson.dumps(meta)
    counts = (len(index.replies), len(index.rows), len(index.frames.raw_starts), len(text))
    columns: list[U64] = []
    for keys in (index.replies, index.rows):
        columns += (keys.high, keys.low, keys.place)
    columns += (index.frames.raw_starts, index.frames.file_starts)
    crc = 0
    with path.open("wb") as file:
        # Part by part: in one piece it is megabytes, at the moment when a session holds the most.
        raws: list[bytes | memoryview] = [column.astype("<u8", copy=False).data for column in columns]
        for raw in [_MAGIC + _COUNTS.pack(*counts), *raws, text]:
            crc = crc32(raw, crc)
            file.write(raw)
        file.write(_CRC.pack(crc))
        file.flush()
        os.fsync(file.fileno())


def read_index(path: Path, number: int) -> SegmentIndex | None:
    """The index of a segment; None where there is none, or it is not what was written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(content) < _START + 4 or not content.startswith(_MAGIC):
        return None
    if crc32(memoryview(content)[:-4]) != _CRC.unpack_from(content, len(content) - 4)[0]:
        return None
    replies, rows, starts, text = _COUNTS.unpack_from(content, len(_MAGIC))
    words = np.frombuffer(content, "<u8", 3 * (replies + rows) + 2 * starts, _START).astype(
        np.uint64, copy=False
    )
    columns = np.split(words, np.cumsum([replies] * 3 + [rows] * 3 + [starts]))
    meta = cast(dict[str, JSONValue], orjson.loads(content[-4 - text : -4]))
    return SegmentIndex(
        number,
        SortedKeys(*columns[0:3]),
        SortedKeys(*columns[3:6]),
        Frames(columns[6].copy(), columns[7].copy()),  # kept: a view would keep all of the file
        Account.from_json(cast(dict[str, JSONValue], meta["account"])),
        tuple(cast(list[str], meta["damaged"])),
    )


def rebuild_index(folder: Path, number: int, before: Account, stored: SegmentIndex | None) -> SegmentIndex:
    """The index of a sealed segment, from its lines. What was paid for them stays paid where it is known.

    `before` is the account of the journal before it; `stored`, an index that does not fit the lines.
    """
    path = sealed_path(folder, number)
    contents = Contents(number, before.copy())
    if path.exists():
        frames = find_frames(path)
        with path.open("rb") as file:
            for _ in contents.read(frames.lines(file.fileno())):
                pass
        contents.note_tail(frames.raw_size)
    else:
        frames = Frames(np.zeros(1, np.uint64), np.zeros(1, np.uint64))
        contents.damaged.append(f"{path.name}: is missing")
    if stored is not None:
        contents.account = stored.account
    return SegmentIndex.of(contents, frames)
