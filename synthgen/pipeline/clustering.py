"""Duplicates among all rows that are accepted: clusters of similar ones, of each of which one row stays.

In: the accepted rows of a `Staging`, all of them there, what is compared, and who stays. Out: the others are withdrawn into
`rejected/`, each with the row it repeats and the Jaccard to it; what looks like a template and not like duplicates.
Guarantees: those of `synthgen.refine.near` and `clusters`; the same rows stay in whatever order rows and files come; memory
holds some hundred bytes a row, and no text.
Rejected: the greedy rule of a run (`SeenTexts`): there the order of the plan is given, here the first of two files would
decide.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset import Staging, TextFile
from synthgen.dataset.whole import storage_errors
from synthgen.errors import StoppedShort, UsageError
from synthgen.pipeline.verdicts import Counts
from synthgen.pipeline.withdrawing import withdraw
from synthgen.recipe.model import NearConfig
from synthgen.refine.clusters import Duplicates, settle
from synthgen.refine.compared import compared_text, stored_score
from synthgen.refine.minhash import MinHasher
from synthgen.refine.minhash_rule import BandKeys, MinHashRule
from synthgen.refine.near import Jaccards, KeysInMemory, candidates, places
from synthgen.refine.shingles import I64
from synthgen.refine.survivors import Keep, collapse, survival_order
from synthgen.types import JSONValue

__all__ = ["ClusterRule", "withdraw_duplicates"]


@dataclass(frozen=True, slots=True)
class ClusterRule:
    """`near` None: only equal texts are duplicates. `allow_collapse`: do not stop at what looks like a template."""

    near: NearConfig | None
    keep: Keep
    allow_collapse: bool = False

    def as_json(self) -> dict[str, JSONValue]:
        """For the manifest."""
        near = None if self.near is None else self.near.model_dump(mode="json")
        return {"near": near, "keep": self.keep.said()}


def withdraw_duplicates(staging: Staging, counts: Counts, rule: ClusterRule) -> None:
    """Withdraw who does not stay, and count them as rejected.

    Raises:
        StoppedShort: the set would collapse.
        UsageError: no accepted row has the score to keep the best of.
        StorageError: the disk refuses.
    """
    near = rule.near
    hasher = None if near is None else MinHasher(_rule(near), threads=os.cpu_count() or 1)
    rows, keys = _read(staging, rule, hasher)
    if rows.height == 0:
        return
    if rule.keep.policy == "best" and rows["score"].is_null().all():
        raise UsageError(f"keep best:{rule.keep.score}: no accepted row has this score")
    order_N = survival_order(rows, rule.keep)
    first_N = _first_copies(rows["key"], order_N)
    row_U = np.unique(first_N)
    if near is None or hasher is None or keys is None:
        found = _none(row_U.size)
    else:
        kept = BandKeys(keys.key_BN[:, row_U], keys.total_N[row_U])
        stays_N = first_N[order_N] == order_N
        found = _near(staging, near, hasher, kept, row_U, np.searchsorted(row_U, order_N[stays_N]))
    u_N = np.searchsorted(row_U, first_N)
    if not rule.allow_collapse:
        _require_no_collapse(rows, row_U[found.cluster_N[u_N]])
    withdraw(staging, counts, _verdicts(rows["id"], first_N, row_U, u_N, found, near))


def _rule(near: NearConfig) -> MinHashRule:
    return MinHashRule(threshold=near.threshold, shingle=f"word:{near.ngram}", num_perm=near.num_perm)


def _read(
    staging: Staging, rule: ClusterRule, hasher: MinHasher | None
) -> tuple[pl.DataFrame, BandKeys | None]:
    """What decides who survives, of each row, and the band keys."""
    rows: list[pl.DataFrame] = []
    keys: list[BandKeys] = []
    best = rule.keep.policy == "best"
    score = stored_score(rule.keep.score) if best else pl.lit(None, dtype=pl.Float64)
    for frame, halves in _halves(staging):
        key = [_digest(prompt, completion) for prompt, completion in halves.iter_rows()]
        rows.append(
            frame.with_columns(score=score).select(
                "id",
                "score",
                pl.col("source").fill_null("").str.replace(r":\d+$", ""),
                pl.Series("key", key, dtype=pl.Binary),
                pl.Series("digest", [int.from_bytes(k[:8], "big") for k in key], dtype=pl.UInt64),
                halves.select(chars=pl.sum_horizontal(pl.all().str.len_chars())).to_series(),
            )
        )
        if hasher is not None and rule.near is not None:
            keys.append(hasher.band_keys(_compared(halves, rule.near)))
    if not keys:
        return pl.concat(rows) if rows else pl.DataFrame(), None
    joined = BandKeys(
        np.concatenate([part.key_BN for part in keys], axis=1),
        np.concatenate([part.total_N for part in keys]),
    )
    return pl.concat(rows), joined


def _halves(staging: Staging) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The accepted rows, and of each what comes before the last answer, and that answer."""
    for frame in staging.accepted():
        halves = [compared_text(frame.schema, (half,)).alias(half) for half in ("prompt", "completion")]
        yield frame, frame.select(halves)


def _compared(halves: pl.DataFrame, near: NearConfig) -> pl.Series:
    if near.fields == "both":
        return halves.select(pl.concat_str("prompt", "completion", separator="\n")).to_series()
    return halves[near.fields]


def _digest(prompt: str, completion: str) -> bytes:
    """Runs of white space are equal, as for the greedy rule."""
    parts = (" ".join(prompt.split()), " ".join(completion.split()))
    return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()


def _first_copies(key: pl.Series, order_N: I64) -> I64:
    """For each row the one with the same text that comes first in the order."""
    ordered = pl.DataFrame({"key": key.gather(order_N), "row": order_N})
    first = ordered.select(pl.col("row").first().over("key")).to_series().to_numpy()
    first_N = np.empty_like(order_N)
    first_N[order_N] = first
    return first_N


def _none(count: int) -> Duplicates:
    return Duplicates(np.arange(count), np.full(count, -1, np.int64), np.zeros(count))


def _near(
    staging: Staging, near: NearConfig, hasher: MinHasher, keys: BandKeys, row_U: I64, order_U: I64
) -> Duplicates:
    """Near duplicates among rows no two of which are equal; numbers are those of `row_U`."""
    found = candidates(KeysInMemory(keys), order_U, threads=os.cpu_count() or 1)
    wanted_U = np.unique(order_U[places(found.pair_E)])
    texts = _copy_texts(staging, near, row_U[wanted_U], wanted_U)
    jaccards = Jaccards(order_U, texts.read, hasher)
    edges = jaccards.verified(found.pair_E)
    return settle(edges, found.copy_N, order_U, jaccards.of, threshold=near.threshold)


def _copy_texts(staging: Staging, near: NearConfig, row_M: I64, number_M: I64) -> TextFile:
    """The compared texts of these rows in a file of their own, each found by its number; both ascend."""
    path: Path = staging.folder / "compared.bin"
    size_M: list[I64] = [np.zeros(1, np.int64)]
    start = 0
    with storage_errors(path), path.open("wb") as file:
        for frame, halves in _halves(staging):
            low, high = np.searchsorted(row_M, [start, start + frame.height])
            texts = _compared(halves[row_M[low:high] - start], near)
            file.write("".join(texts).encode())
            size_M.append(texts.str.len_bytes().cast(pl.Int64).to_numpy())
            start += frame.height
    offset_M1 = np.cumsum(np.concatenate(size_M))
    return TextFile(path, number_M.astype(np.uint64), offset_M1.astype(np.uint64))


def _require_no_collapse(rows: pl.DataFrame, cluster_N: I64) -> None:
    names = rows["source"].unique().sort().to_list()
    source = rows["source"].cast(pl.Enum(names)).to_physical()
    accidents = collapse(cluster_N, np.arange(cluster_N.size), source, names)
    if accidents:
        raise StoppedShort(
            f"nothing was written: of the rows that passed the filters, {'; '.join(accidents)}. With large clusters "
            "that is mostly a shared template: keep similar rows (--no-near), or compare other text (`synthgen dedup` with --field or "
            "--template). If it is what you want, --allow-collapse"
        )


def _verdicts(
    ids: pl.Series, first_N: I64, row_U: I64, u_N: I64, found: Duplicates, near: NearConfig | None
) -> pl.DataFrame:
    """Who goes, and why: `id stage reason score threshold detail`. A copy of a near duplicate gets its verdict."""
    repeats_N = found.of_N[u_N]
    near_N = repeats_N >= 0
    goes = np.flatnonzero(near_N | (first_N != np.arange(first_N.size)))
    of_M = np.where(near_N[goes], row_U[repeats_N[goes]], first_N[goes])
    is_near = pl.Series(near_N[goes])
    bound = near.threshold if near else 1.0
    return pl.select(
        id=ids.gather(goes),
        stage=pl.when(is_near).then(pl.lit("dedup:near")).otherwise(pl.lit("dedup:exact")),
        reason=pl.when(is_near).then(pl.lit("near_duplicate")).otherwise(pl.lit("exact_duplicate")),
        score=pl.when(is_near).then(pl.Series(found.jaccard_N[u_N[goes]])).otherwise(1.0),
        threshold=pl.when(is_near).then(bound).otherwise(1.0),
        detail=ids.gather(of_M),
    )
