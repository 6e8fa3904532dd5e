"""Exact and near duplicates of a stream of texts: the first one wins.

In: frames of the view (`synthgen.refine.verdict.VIEW`), in plan order. Out: one verdict per row. Guarantees: every
reported near duplicate has an exact shingle Jaccard of at least the threshold to the row it names (precision 1);
the verdicts depend on the order of the rows only, never on how they were cut into frames.
Rejected: keeping signatures or texts in memory (a row costs 16 bytes and 16 a band; texts lie in
an anonymous file and are read again for candidates), reporting unverified candidates (on templated rows they
are nearly all wrong), and transitive closure (A~B~C drops C for a text that is not like it).

The exact stage compares prompt and completion with runs of white space made equal; the near stage compares the
sets of word n-grams (`synthgen.refine.shingles`) of the configured fields.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import struct
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np
import polars as pl

from synthgen.keymap import KeyMap
from synthgen.recipe.model import NearConfig
from synthgen.refine.minhash_rule import bands, permutations
from synthgen.refine.shingles import I64, U64, band_keys, jaccard, shingle, sign_hashes
from synthgen.spool import Spool

__all__ = ["VERDICTS", "SeenTexts"]

VERDICTS = pl.Schema(
    {
        "id": pl.String,
        "stage": pl.String,  # dedup:exact | dedup:near, null where the row is kept
        "reason": pl.String,  # exact_duplicate | near_duplicate
        "score": pl.Float64,  # Jaccard to `dup_of`
        "dup_of": pl.String,  # id of the kept row it repeats
    }
)

# A bucket never proposes more than its first rows: a template shared by thousands of distinct rows then costs
# a constant per row. Near duplicates meet in most of their bands, so a hot band loses them nothing as long as
# one of the others is not hot.
BUCKET = 64
_SLICE = 2048  # rows per inner step: bounds the arrays, changes no verdict
_SIZES = struct.Struct("<II")  # of an id and a text
_WRITTEN_AT_ONCE = 1 << 16  # bytes


class SeenTexts:
    """Every text that was not itself a duplicate, in order; says of each further one whether it repeats one.

    `spool`: the folder of the anonymous text file; None means the system's temporary folder. Use it as a
    context manager, or call `close`.
    """

    def __init__(self, near: NearConfig | None, spool: Path | None = None) -> None:
        self._near = near
        self._texts = _Texts(spool)
        self._kept = KeyMap(number_bytes=6, kept_bytes=10, spool=Spool(spool))  # numbers in `_texts`
        self._near_of: dict[bytes, tuple[int, float]] = {}  # a copy of a near duplicate gets its verdict
        self._index = _BandIndex()
        if near is not None:
            self._bands = bands(near.threshold, near.num_perm)
            self._permutations = permutations(near.num_perm, 1)

    def __enter__(self) -> "SeenTexts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the text file back to the system."""
        self._texts.close()

    @property
    def threshold(self) -> float:
        """The Jaccard from which a text is a near duplicate; 1 where only equal texts are."""
        return self._near.threshold if self._near else 1.0

    def add(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The `VERDICTS` of the frame's rows, aligned with it; what was kept is remembered.

        Raises:
            StorageError: the text file cannot be written or read.
        """
        view = frame.select(pl.col("id"), pl.col("prompt").fill_null(""), pl.col("completion").fill_null(""))
        parts = [self._add(view.slice(start, _SLICE)) for start in range(0, view.height, _SLICE)]
        return pl.concat(parts) if parts else VERDICTS.to_frame()

    def _add(self, view: pl.DataFrame) -> pl.DataFrame:
        rows = view.rows()
        digests = [_digest(prompt, completion) for _, prompt, completion in rows]
        new: dict[bytes, int] = {}
        for i, digest in enumerate(digests):
            if digest not in self._near_of and self._kept.get(digest) is None:
                new.setdefault(digest, i)
        if self._near is None:
            for digest, i in new.items():
                self._kept.set(digest, self._texts.append(rows[i][0], ""))
        else:
            chosen = {digest: rows[i] for digest, i in new.items()}
            self._add_near(self._near, chosen)
        return self._verdicts([row[0] for row in rows], digests, set(new.values()))

    def _add_near(self, near: NearConfig, new: dict[bytes, tuple[str, str, str]]) -> None:
        """Decide on each new text in order: a near duplicate, or stored and indexed."""
        texts = [_chosen(near, prompt, completion) for _, prompt, completion in new.values()]
        shingles = shingle(texts, near.ngram)
        upper_S = (shingles.hash_S >> np.uint64(32)).astype(np.uint32)
        signature_NP = sign_hashes(upper_S, shingles.offset_N1, self._permutations)
        keys_NB = band_keys(signature_NP, *self._bands).T
        empty_N = np.diff(shingles.offset_N1) == 0
        buckets = self._index.buckets(keys_NB[~empty_N])
        sets = self._read_sets(buckets, near.ngram)
        indexed: list[int] = []
        stored: list[int] = []
        for place, (digest, (row_id, _, _)) in enumerate(new.items()):
            keys = [] if empty_N[place] else keys_NB[place].tolist()
            shared = [buckets[key] for key in keys if key in buckets]
            best = _best(shingles.of(place), shared, sets, near.threshold)
            if best is not None:
                self._near_of[digest] = best
                continue
            row = self._texts.append(row_id, texts[place])
            self._kept.set(digest, row)
            if keys:
                indexed.append(place)
                stored.append(row)
                sets[row] = shingles.of(place)
                for bucket in shared:
                    if len(bucket) < BUCKET:
                        bucket.append(row)
        self._index.insert(keys_NB[indexed], np.asarray(stored, np.int64))

    def _read_sets(self, buckets: dict[int, list[int]], n: int) -> dict[int, U64]:
        rows = sorted({row for bucket in buckets.values() for row in bucket})
        known = shingle([self._texts.text(row) for row in rows], n)
        return {row: known.of(i) for i, row in enumerate(rows)}

    def _verdicts(self, ids: Sequence[str], digests: Sequence[bytes], first: set[int]) -> pl.DataFrame:
        out: list[tuple[str, str | None, str | None, float | None, str | None]] = []
        for i, (row_id, digest) in enumerate(zip(ids, digests, strict=True)):
            if digest in self._near_of:
                row, score = self._near_of[digest]
                out.append((row_id, "dedup:near", "near_duplicate", score, self._texts.id(row)))
            elif i in first:
                out.append((row_id, None, None, None, None))
            else:
                first_row = self._kept.get(digest)
                assert first_row is not None  # it is no duplicate of a near duplicate
                out.append((row_id, "dedup:exact", "exact_duplicate", 1.0, self._texts.id(first_row)))
        return pl.DataFrame(out, schema=VERDICTS, orient="row")


def _best(
    own: U64, shared: list[list[int]], sets: dict[int, U64], threshold: float
) -> tuple[int, float] | None:
    """The earliest of the most similar candidates at or above the threshold."""
    best: tuple[int, float] | None = None
    for row in sorted({row for bucket in shared for row in bucket}):
        other = sets[row]
        # |A n B| / |A u B| is at most the ratio of the sizes.
        if min(own.size, other.size) < threshold * max(own.size, other.size):
            continue
        score = jaccard(own, other)
        if score >= threshold and (best is None or score > best[1]):
            best = (row, score)
    return best


def _digest(prompt: str, completion: str) -> bytes:
    parts = (" ".join(prompt.split()), " ".join(completion.split()))
    return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()


def _chosen(near: NearConfig, prompt: str, completion: str) -> str:
    if near.fields == "both":
        return f"{prompt}\n{completion}"
    return prompt if near.fields == "prompt" else completion


class _BandIndex:
    """Band key -> rows, as sorted runs of (key, row) that are merged when they grow alike: O(log) runs."""

    def __init__(self) -> None:
        self._runs: list[tuple[U64, I64]] = []

    def insert(self, keys_NB: U64, row_N: I64) -> None:
        """Rows must be larger than all before them, so that a run order is a row order."""
        if row_N.size == 0:
            return
        self._runs.append(_sorted_run(keys_NB.ravel(), np.repeat(row_N, keys_NB.shape[1])))
        while len(self._runs) > 1 and self._runs[-2][0].size < 2 * self._runs[-1][0].size:
            (key_a, row_a), (key_b, row_b) = self._runs[-2:]
            merged = _sorted_run(np.concatenate([key_a, key_b]), np.concatenate([row_a, row_b]))
            self._runs[-2:] = [merged]

    def buckets(self, keys_NB: U64) -> dict[int, list[int]]:
        """The first `BUCKET` stored rows of every key that is stored or occurs twice among the given."""
        key_K, times_K = np.unique(keys_NB, return_counts=True)
        out: defaultdict[int, list[int]] = defaultdict(list)
        for key in key_K[times_K > 1].tolist():
            out[key] = []
        for run_key, run_row in self._runs:
            low_K = np.searchsorted(run_key, key_K, side="left")
            high_K = np.searchsorted(run_key, key_K, side="right")
            for k in np.flatnonzero(high_K > low_K).tolist():
                bucket = out[int(key_K[k])]
                room = BUCKET - len(bucket)
                bucket.extend(run_row[low_K[k] : high_K[k]][:room].tolist())
        return dict(out)


def _sorted_run(key_X: U64, row_X: I64) -> tuple[U64, I64]:
    order = np.lexsort((row_X, key_X))
    return key_X[order], row_X[order]


class _Texts:
    """Ids and texts of the kept rows in a file without a name; where one starts is its number."""

    def __init__(self, folder: Path | None) -> None:
        self._spool = Spool(folder)
        self._last = bytearray()  # not written yet

    def append(self, row_id: str, text: str) -> int:
        """Store one row; the number it can be read back by, above all earlier ones."""
        name, body = row_id.encode("utf-8", "replace"), text.encode("utf-8", "replace")
        start = self._spool.size_bytes + len(self._last)
        self._last += _SIZES.pack(len(name), len(body)) + name + body
        if len(self._last) >= _WRITTEN_AT_ONCE:
            self._spool.append(self._last)
            self._last.clear()
        return start

    def id(self, row: int) -> str:
        """The id the row was stored with."""
        name_bytes, _ = _SIZES.unpack(self._read(_SIZES.size, row))
        return self._read(name_bytes, row + _SIZES.size).decode()

    def text(self, row: int) -> str:
        """The text the row was stored with."""
        name_bytes, text_bytes = _SIZES.unpack(self._read(_SIZES.size, row))
        return self._read(text_bytes, row + _SIZES.size + name_bytes).decode()

    def _read(self, size_bytes: int, start: int) -> bytes:
        written = self._spool.size_bytes
        if start < written:
            return self._spool.read(size_bytes, start)
        return bytes(self._last[start - written : start - written + size_bytes])

    def close(self) -> None:
        """Delete the file."""
        self._spool.close()
