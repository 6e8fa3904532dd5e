"""What is compared and how: shingles, permutations, bands; and the form of band keys.

In: parameters. Out: checked rules. Guarantee: permutations and defaults are datasketch's `affine32`.
"""

# ruff: noqa: N806, N815  # arrays carry their axes in their names
import re
from typing import Literal

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.refine.shingles import U32, U64

__all__ = ["RECALL", "BandKeys", "HashName", "MinHashRule", "bands", "permutations"]

HashName = Literal["fast", "sha1", "xxh32"]
RECALL = 0.95


def bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows per band): the longest bands that still find a pair at the threshold with `RECALL`.

    A pair of Jaccard s shares a band with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman & Ullman, "Mining of
    Massive Datasets", 3.4). At the default 0.8 with 128 permutations this gives 18 bands of 7 rows, recall 0.985
    at the threshold and above 0.999 from 0.85; datasketch's default chooser gives 9 of 13, recall 0.40 there.
    Where even single rows do not reach `RECALL` (thresholds below about 0.03), bands are single rows.
    """
    for rows in range(num_perm, 1, -1):
        count = num_perm // rows
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            return count, rows
    return num_perm, 1


def permutations(num_perm: int, seed: int) -> tuple[U32, U32]:
    """Factors and summands of datasketch's `affine32` scheme."""
    from datasketch import MinHash

    factor_P, summand_P = MinHash(num_perm, seed, scheme="affine32").permutations
    return factor_P, summand_P


@dataclass(frozen=True, slots=True)
class MinHashRule:
    """What is compared and how; the defaults are those of `NearConfig`.

    `shingle`: `word:N` or `char:N`. Characters leave white space out; below 9 they find much that is not alike, which
    verification drops again at a price.

    Raises:
        UsageError: a value is out of its range.
    """

    threshold: float = 0.8
    shingle: str = "word:5"
    num_perm: int = 128
    seed: int = 1
    hash: HashName = "fast"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UsageError(f"threshold {self.threshold} is not above 0 and at most 1")
        if re.fullmatch(r"(word|char):([1-9]|[1-4][0-9]|50)", self.shingle) is None:
            raise UsageError(f"shingle {self.shingle!r}: write word:N or char:N, with N from 1 to 50")
        if not 16 <= self.num_perm <= 1024:
            raise UsageError(f"num_perm {self.num_perm} is not in 16..1024")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed {self.seed} is not in 0..{2**32 - 1}")
        if self.hash not in ("fast", "sha1", "xxh32"):
            raise UsageError(f"hash {self.hash!r} is none of fast, sha1, xxh32")

    @property
    def words(self) -> bool:
        """Shingles are of words, not of characters."""
        return self.shingle.startswith("word:")

    @property
    def n(self) -> int:
        """Tokens per shingle."""
        return int(self.shingle.partition(":")[2])


@dataclass(frozen=True, slots=True)
class BandKeys:
    """`key_BN`: a 64-bit key per band and text, the band's number part of it. `total_N`: the sum of the text's shingle
    hashes mod 2^64, equal where the shingles are; 0 where there are none."""

    key_BN: U64
    total_N: U64
