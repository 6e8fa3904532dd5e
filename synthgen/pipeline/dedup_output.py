"""What `dedup` writes and says: all rows with what was found of them, the card, the manifest, the report.

In: an index and its duplicates. Out: a published folder. Guarantees: every row of the input is in `data/` or in
`rejected/`, once, in input order; the columns it came with are unchanged.

    dup_cluster   what the kept row of its cluster is called; null where nothing repeats the row
    dup_of        what the kept row that it repeats is called; null in `data/`
    dup_jaccard   their exact Jaccard
    dup_reason    in `rejected/`: duplicate (all shingles equal), near_duplicate, in_reference, malformed_row
    dup_detail    in `rejected/`: where a malformed row stands, and what is wrong with it
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from synthgen.assets import package_version
from synthgen.dataset import BadRow, Table, TableStaging, publish, read_tables
from synthgen.errors import SynthgenError
from synthgen.pipeline.dedup_index import Index
from synthgen.refine.near import Duplicates
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
) -> DedupReport:
    """The numbers of a dedup; without `reasons` nothing was written, and they are what it would remove."""
    of_N = found.of_N[index.reference_rows :]
    size_C = np.unique(of_N[of_N >= 0], return_counts=True)[1] + 1
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
    kept_M = np.unique(found.of_N[found.of_N >= 0])
    names = pl.Series(index.names(kept_M), dtype=pl.String)
    reasons: dict[str, int] = {}
    start = base
    with TableStaging(out, rows_per_shard=rows_per_shard, metadata={"table": "dedup"}) as staging:
        for table in read_tables(index.inputs.files, index.inputs.schema):
            end = start + table.frame.height
            frame = _with_duplicates(table, found, kept_M, names, start, base)
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


def _with_duplicates(
    table: Table, found: Duplicates, kept_M: I64, names: pl.Series, start: int, base: int
) -> pl.DataFrame:
    """The rows of a table with all of `DUP_COLUMNS`."""
    end = start + table.frame.height
    of_N, jaccard_N = found.of_N[start:end], found.jaccard_N[start:end]
    own_N = np.where(of_N >= 0, of_N, np.arange(start, end))
    place_N = np.searchsorted(kept_M, own_N)
    known = pl.Series(np.append(kept_M, -1)[place_N] == own_N)
    cluster = names.gather(
        pl.Series(place_N, dtype=pl.UInt32).zip_with(known, pl.Series([None], dtype=pl.UInt32))
    )
    removed = pl.Series(of_N >= 0)
    reason = pl.when(removed).then(
        pl.when(pl.Series(of_N < base)).then(pl.lit("in_reference"))
        .when(pl.Series(jaccard_N == 1.0)).then(pl.lit("duplicate"))
        .otherwise(pl.lit("near_duplicate"))
    )  # fmt: skip
    columns = pl.DataFrame({"dup_cluster": cluster, "removed": removed, "jaccard": jaccard_N})
    columns = columns.select(
        "dup_cluster",
        dup_of=pl.when("removed").then("dup_cluster"),
        dup_jaccard=pl.when("removed").then("jaccard"),
        dup_reason=reason,
        dup_detail=pl.lit(None, dtype=pl.String),
    )
    return pl.concat([table.frame, columns], how="horizontal")


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
