"""What `dedup` writes and says: all rows with what was found of them, the card, the manifest, the report.

In: an index and its duplicates. Out: a published folder. Guarantees: every row of the input is in `data/` or in
`rejected/`, once, in input order; the columns it came with are unchanged.

    dup_cluster   what the kept row of its cluster is called; null where nothing repeats the row
    dup_of        what the row that it repeats is called: nearly always the kept one, else one of the same cluster
    dup_jaccard   the exact Jaccard to that row, at least the threshold
    dup_reason    in `rejected/`: duplicate (all shingles equal), near_duplicate, in_reference, malformed_row
    dup_detail    in `rejected/`: where a malformed row stands, and what is wrong with it
"""

# ruff: noqa: N803, N806, N815  # arrays carry their axes in their names
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from synthgen.assets import package_version
from synthgen.dataclasses import dataclass
from synthgen.dataset import BadRow, Table, TableStaging, read_tables
from synthgen.dataset.publish import publish
from synthgen.errors import SynthgenError
from synthgen.pipeline.dedup_index import Index
from synthgen.refine.clusters import Duplicates
from synthgen.refine.shingles import I64
from synthgen.types import JSONValue

__all__ = ["DUP_COLUMNS", "DedupReport", "dedup_report", "write_rows"]

DUP_COLUMNS = ("dup_cluster", "dup_of", "dup_jaccard", "dup_reason", "dup_detail")
_SPLIT = re.compile(r"(\w+)-\d{5}-of-\d{5}\.parquet")


@dataclass(frozen=True, slots=True)
class DedupReport:
    """How a dedup ended. `counts`: planned = accepted + rejected, rows of the inputs; `reasons`: why rejected.

    `clusters`: texts that others repeat; `largest`: rows of the largest cluster, its survivor among them.
    """

    out: Path
    counts: Mapping[str, int]
    reasons: Mapping[str, int]
    references: int
    clusters: int
    largest: int
    elapsed_s: float
    problem: SynthgenError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Exit code of the command."""
        return 0 if self.problem is None else self.problem.exit_code

    def as_json(self) -> dict[str, JSONValue]:
        """What `--json` prints."""
        return {
            "out": str(self.out),
            "exit_code": self.exit_code,
            "problem": None if self.problem is None else str(self.problem),
            "warnings": list(self.warnings),
            "counts": dict(self.counts),
            "reasons": dict(self.reasons),
            "references": self.references,
            "clusters": self.clusters,
            "largest_cluster": self.largest,
            "elapsed_s": round(self.elapsed_s, 3),
        }


def dedup_report(
    out: Path,
    index: Index,
    found: Duplicates,
    reasons: Mapping[str, int],
    started: float,
    problem: SynthgenError | None = None,
    warnings: tuple[str, ...] = (),
) -> DedupReport:
    """The numbers of a dedup; without `reasons` nothing was written, and they are what it would remove."""
    of_N = found.of_N[index.reference_rows :]
    cluster_N = found.cluster_N[index.reference_rows :]
    size_C = np.unique(cluster_N[of_N >= 0], return_counts=True)[1] + 1
    removed = sum(reasons.values()) if reasons else int((of_N >= 0).sum())
    planned = of_N.size + reasons.get("malformed_row", 0)
    return DedupReport(
        out=out,
        counts={"planned": planned, "accepted": planned - removed, "rejected": removed},
        reasons=reasons,
        references=index.reference_rows,
        clusters=size_C.size,
        largest=int(size_C.max(initial=0)),
        elapsed_s=time.monotonic() - started,
        problem=problem,
        warnings=warnings,
    )


def write_rows(
    index: Index, found: Duplicates, out: Path, rows_per_shard: int, settings: Mapping[str, JSONValue]
) -> dict[str, int]:
    """Write and publish; reason -> rejected rows.

    Raises:
        SourceError: an input has changed or cannot be read.
        StorageError: the disk refuses.
    """
    base = index.reference_rows
    removed_N = found.of_N >= 0
    named_M = np.union1d(found.of_N[removed_N], found.cluster_N[removed_N])
    names = Names(named_M, pl.Series(index.names(named_M), dtype=pl.String))
    reasons: dict[str, int] = {}
    start = base
    with TableStaging(out, rows_per_shard=rows_per_shard, metadata={"table": "dedup"}) as staging:
        for table in read_tables(index.inputs.files, index.inputs.schema):
            end = start + table.frame.height
            frame = _with_duplicates(table, found, names, start, base)
            repeats = pl.col("dup_of").is_not_null()
            staging.add(f"data/{_split(table.path)}", frame.filter(~repeats).drop("dup_reason", "dup_detail"))
            rejected = pl.concat([frame.filter(repeats), _malformed(table.bad, frame.schema)])
            for reason, count in rejected["dup_reason"].value_counts().iter_rows():
                reasons[reason] = reasons.get(reason, 0) + count
            staging.add("rejected/rejected", rejected)
            start = end
        staging.finish()
        reasons = dict(sorted(reasons.items()))
        rejected_rows = sum(reasons.values())
        planned = start - base + reasons.get("malformed_row", 0)
        counts: dict[str, JSONValue] = {
            "planned": planned, "accepted": planned - rejected_rows, "rejected": rejected_rows,
        }  # fmt: skip
        manifest: dict[str, JSONValue] = {
            "synthgen": package_version(),
            "policy": "unevaluated",
            "dedup": dict(settings),
            "counts": counts,
            "reasons": dict(reasons),
        }
        text = _card(out.name, staging.rows, manifest)
        publish(out, staging, texts={"README.md": text.encode()}, manifest=manifest)
    return reasons


@dataclass(frozen=True, slots=True)
class Names:
    """What some rows are called; `row_M` ascending."""

    row_M: I64
    name: pl.Series

    def of(self, row_N: I64) -> pl.Series:
        """The names of rows, null where nobody needs one."""
        if self.row_M.size == 0:
            return pl.repeat(None, row_N.size, dtype=pl.String, eager=True)
        place_N = np.searchsorted(self.row_M, row_N)
        known_N = np.append(self.row_M, -1)[place_N] == row_N
        named = self.name.gather(np.where(known_N, place_N, 0))
        return pl.select(pl.when(pl.Series(known_N)).then(named)).to_series()


def _with_duplicates(table: Table, found: Duplicates, names: Names, start: int, base: int) -> pl.DataFrame:
    """The rows of a table with all of `DUP_COLUMNS`."""
    end = start + table.frame.height
    of_N, cluster_N, jaccard_N = found.of_N[start:end], found.cluster_N[start:end], found.jaccard_N[start:end]
    known = pl.DataFrame(
        {
            "dup_cluster": names.of(cluster_N),
            "dup_of": names.of(of_N),
            "jaccard": jaccard_N,
            "removed": of_N >= 0,
            "reference": cluster_N < base,
        }
    )
    similar = pl.when(pl.col("jaccard") == 1.0).then(pl.lit("duplicate")).otherwise(pl.lit("near_duplicate"))
    reason = pl.when("reference").then(pl.lit("in_reference")).otherwise(similar)
    return pl.concat(
        [
            table.frame,
            known.select(
                "dup_cluster",
                "dup_of",
                dup_jaccard=pl.when("removed").then("jaccard"),
                dup_reason=pl.when("removed").then(reason),
                dup_detail=pl.lit(None, dtype=pl.String),
            ),
        ],
        how="horizontal",
    )


def _malformed(bad: tuple[BadRow, ...], schema: pl.Schema) -> pl.DataFrame:
    rows = [{"dup_reason": "malformed_row", "dup_detail": f"{row.where}: {row.problem}"} for row in bad]
    return pl.DataFrame(rows, schema=schema)


def _split(path: Path) -> str:
    """A file that is named like a split of a dataset stays in that split."""
    named = _SPLIT.fullmatch(path.name)
    return named.group(1) if named else "train"


def _card(name: str, rows: Mapping[str, int], manifest: Mapping[str, JSONValue]) -> str:
    """`README.md`: which files are what, for the hub and for people."""
    splits = sorted({path.removeprefix("data/").split("-")[0] for path in rows if path.startswith("data/")})
    rejected = [{"split": "train", "path": "rejected/rejected-*.parquet"}]
    front = {
        "pretty_name": name,
        "license": "unknown",
        "tags": ["synthgen"],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            },
            {"config_name": "rejected", "data_files": rejected},
        ],
    }
    facts = yaml.safe_dump(
        {key: manifest[key] for key in ("dedup", "counts", "reasons")}, sort_keys=False, allow_unicode=True
    )
    title = name.replace("\n", " ")
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {title}\n\n"
        f"Rows of other files without their near duplicates, by synthgen {package_version()}. `rejected/` holds the "
        "removed rows: `dup_of` names the kept row, `dup_jaccard` is their exact Jaccard. Nobody evaluated the policy "
        f"of these rows.\n\n```yaml\n{facts}```\n"
    )
