"""`dedup`: near-duplicate rows of anybody's Parquet or JSONL go, one of each stays, and every removed row says for whom.

In: files, references, options. Out: a published folder: survivors in `data/`, removed rows in `rejected/`, both with the
columns they came with and `dup_cluster`, `dup_of`, `dup_jaccard`; a manifest.
Guarantees: kept + rejected = rows of the input; the same rows stay whatever the order of files and the number of
threads; memory does not grow with the texts; a killed command goes on where it stopped and ends with the same bytes;
a set that looks like a template is not cut down without being told to.

    index ─► order of survival ─► candidates, band by band ─► their texts ─► exact Jaccard ─► settle ─► guard ─► publish
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, field
from io import BytesIO
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from synthgen.assets import package_version, suggest
from synthgen.dataclasses import dataclass
from synthgen.dataset import BadRow, Scratch, find_inputs, read_tables, tables_schema
from synthgen.dataset.files import read_rows
from synthgen.dataset.whole import write_bytes
from synthgen.errors import SourceError, StoppedShort, UsageError
from synthgen.journal import require_folder
from synthgen.pipeline.claim import claim
from synthgen.pipeline.dedup_index import Index, Inputs, build_index
from synthgen.pipeline.dedup_output import DUP_COLUMNS, DedupReport, dedup_report, write_rows
from synthgen.refine.clusters import Duplicates, Edges, settle, split_pair
from synthgen.refine.compared import compared_text, default_fields, stored_score, template_parts
from synthgen.refine.minhash import MinHasher
from synthgen.refine.minhash_rule import MinHashRule
from synthgen.refine.near import Jaccards, candidates, places
from synthgen.refine.shingles import I64
from synthgen.refine.survivors import Keep, collapse, parse_keep
from synthgen.types import JSONValue

__all__ = ["DedupOptions", "dedup"]

_MANY_ROWS = 1 << 22  # sorting a band takes some 60 bytes a row: from here on one band at a time


@dataclass(frozen=True, slots=True)
class DedupOptions:
    """How to compare and whom to keep.

    `fields`: columns whose text is compared, together; none: those of a known format. `against`: files whose rows
    remove what repeats them. `id`: the column that names rows. `source`: the column that names a row's source, for
    the guard; None takes its file. `template`: a prompt template whose fixed text is not compared. `keep`: see
    `parse_keep`. `pairs`: a Parquet file for all pairs that are alike, with their exact Jaccard. `threads` None: one per
    CPU.
    """

    fields: tuple[str, ...] = ()
    rule: MinHashRule = MinHashRule()  # frozen
    keep: str = "first"
    against: tuple[Path, ...] = ()
    id: str = "id"
    source: str | None = None
    template: str | None = None
    allow_collapse: bool = False
    pairs: Path | None = None
    threads: int | None = None
    rows_per_shard: int = 50_000
    say: Callable[[str], None] = field(default=lambda _: None)


def dedup(inputs: Sequence[Path], out: Path, options: DedupOptions) -> DedupReport:
    """Remove near duplicates of the inputs, and what repeats a reference.

    A set that would collapse is the report's `problem`, and nothing is published.

    Raises:
        SynthgenError: an input cannot be read, an option does not fit it, or `out` cannot be written.
    """
    started = time.monotonic()
    require_folder(out)
    keep = parse_keep(options.keep)
    template = template_parts(options.template) if options.template else ()
    ours = _inputs(_files(inputs, out), options, keep, template)
    warnings = _of_other_rows(ours, options, template) if template else ()
    theirs = _references(_files(options.against, out), options, template) if options.against else None
    threads = options.threads or os.cpu_count() or 1
    with claim(out):
        scratch = Scratch(out / ".dedup", _fingerprint(ours, theirs, options))
        hasher = MinHasher(options.rule, threads=threads)
        index = build_index(scratch, theirs, ours, hasher, keep, options.say)
        if index.rows == index.reference_rows:
            raise SourceError(f"{', '.join(map(str, inputs))}: no rows found")
        found = _duplicates(index, keep, hasher, threads, options.say, options.pairs)
        problem = None if options.allow_collapse else _collapse(index, found)
        if problem is not None:
            return dedup_report(out, index, found, {}, started, problem, warnings)
        reasons = write_rows(index, found, out, options.rows_per_shard, _manifest(options, ours))
        scratch.remove()
    return dedup_report(out, index, found, reasons, started, warnings=warnings)


def _files(paths: Sequence[Path], out: Path) -> tuple[Path, ...]:
    for path in paths:
        if path.resolve() == out.resolve() or out.resolve() in path.resolve().parents:
            raise UsageError(f"{out}: holds the input {path}; choose another folder with -o")
    return tuple(find_inputs(paths))


def _inputs(files: tuple[Path, ...], options: DedupOptions, keep: Keep, template: Sequence[str]) -> Inputs:
    """The inputs, and what of them is compared."""
    schema = pl.Schema(
        {name: dtype for name, dtype in tables_schema(files).items() if name not in DUP_COLUMNS}
    )
    if not schema:
        raise SourceError(f"{', '.join(map(str, files))}: {_no_row(files)}")
    for option, name in (("--source", options.source), ("--id", None if options.id == "id" else options.id)):
        if name is not None and name not in schema:
            raise UsageError(f"{option} {name}: no such column{suggest(name, list(schema))}")
    return Inputs(
        files=files,
        schema=schema,
        text=compared_text(schema, options.fields or default_fields(schema), template),
        id=options.id if options.id in schema else None,
        score=_score(schema, keep.score) if keep.policy == "best" else None,
        source=options.source,
    )


def _of_other_rows(ours: Inputs, options: DedupOptions, template: Sequence[str]) -> tuple[str, ...]:
    """What is to be said of a template none of whose pieces stands in the first rows."""
    plain = compared_text(ours.schema, options.fields or default_fields(ours.schema))
    first = next(iter(read_tables(ours.files, ours.schema, columns=plain.meta.root_names())), None)
    texts = first.frame.select(plain).to_series() if first is not None else pl.Series([], dtype=pl.String)
    if texts.is_empty() or texts.str.contains_any(list(template)).any():
        return ()
    return (
        f"the template's text stands in none of the first {len(texts)} rows; they were rendered from another one, or its "
        "white space differs",
    )


def _no_row(files: Sequence[Path]) -> str:
    """Why there is nothing to compare."""
    for path in files:
        for where, row in read_rows(path):
            if isinstance(row, BadRow):
                return f"no valid row; the first problem is {where}: {row.problem}"
    return "no rows found"


def _references(files: tuple[Path, ...], options: DedupOptions, template: Sequence[str]) -> Inputs:
    """The references: the fields that the user named where they have them, else those of their own format."""
    schema = tables_schema(files)
    fields = options.fields
    if not fields or not set(fields) <= {*schema, "prompt", "completion"}:
        fields = default_fields(schema)
    text = compared_text(schema, fields, template)
    return Inputs(files, schema, text, id=options.id if options.id in schema else None)


def _score(schema: pl.Schema, name: str) -> pl.Expr:
    """A numeric column, or a score of that name in `scores`."""
    if name in schema and schema[name].is_numeric():
        return pl.col(name)
    if schema.get("scores") == pl.List(pl.Struct({"name": pl.String, "score": pl.Float64})):
        return stored_score(name)
    raise UsageError(f"keep best:{name}: no numeric column {name!r}{suggest(name, list(schema))}")


def _fingerprint(ours: Inputs, theirs: Inputs | None, options: DedupOptions) -> bytes:
    """What intermediate results depend on: the files as they are, and how they are compared."""
    stats = [
        [path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
        for group in (theirs, ours)
        if group is not None
        for path in group.files
    ]
    rule: JSONValue = asdict(options.rule)
    chosen = [list(options.fields), options.keep, options.id, options.source, options.template]
    return orjson.dumps([package_version(), stats, len(ours.files), rule, chosen])


def _duplicates(
    index: Index,
    keep: Keep,
    hasher: MinHasher,
    threads: int,
    say: Callable[[str], None],
    pairs: Path | None,
) -> Duplicates:
    """Candidates, their texts, their exact Jaccard, who stays; a step whose result is on disk is not done again."""
    scratch = index.scratch
    order_N = index.order(keep)
    if index.rows > _MANY_ROWS:
        threads = 1
    if not scratch.has("copies.npy"):
        fresh = candidates(index.keys(), order_N, references=index.reference_rows, threads=threads)
        scratch.save("pairs.npy", fresh.pair_E)
        scratch.save("copies.npy", fresh.copy_N)
    pair_E, copy_N = scratch.load("pairs.npy"), scratch.load("copies.npy").view(np.int64)
    say(f"{pair_E.size} pairs to compare")
    texts = index.texts(np.unique(order_N[places(pair_E)]))
    jaccards = Jaccards(order_N, texts.read, hasher)
    if not scratch.has("jaccard.npy"):
        edges = jaccards.verified(pair_E)
        scratch.save("edges.npy", edges.pair_E)
        scratch.save("jaccard.npy", edges.jaccard_E)
    edges = Edges(scratch.load("edges.npy"), scratch.load("jaccard.npy").view(np.float64))
    say(f"{edges.pair_E.size} pairs are alike")
    if pairs is not None:
        _write_pairs(pairs, index, order_N, edges, copy_N)
    threshold, references = hasher.rule.threshold, index.reference_rows
    return settle(edges, copy_N, order_N, jaccards.of, threshold=threshold, references=references)


def _write_pairs(path: Path, index: Index, order_N: I64, edges: Edges, copy_N: I64) -> None:
    """`first second jaccard` by name: every pair that was found alike, and each row whose shingles are another's."""
    copies = np.flatnonzero(copy_N != np.arange(copy_N.size))
    first_E, second_E = split_pair(edges.pair_E)
    first_E = order_N[np.concatenate([first_E, copy_N[copies]])]
    second_E = order_N[np.concatenate([second_E, copies])]
    row_M = np.union1d(first_E, second_E)
    name_M = pl.Series(index.names(row_M), dtype=pl.String)
    frame = pl.DataFrame(
        {
            "first": name_M.gather(np.searchsorted(row_M, first_E)),
            "second": name_M.gather(np.searchsorted(row_M, second_E)),
            "jaccard": np.concatenate([edges.jaccard_E, np.ones(copies.size)]),
        }
    )
    buffer = BytesIO()
    frame.write_parquet(buffer)
    write_bytes(path, buffer.getvalue())


def _collapse(index: Index, found: Duplicates) -> StoppedShort | None:
    source, names = index.sources()
    base = index.reference_rows
    cluster_N = found.cluster_N[base:]
    accidents = collapse(cluster_N, np.arange(base, index.rows), source, names)
    if not accidents:
        return None
    in_reference = int((cluster_N < base).sum())
    theirs = f" ({in_reference} rows repeat a reference)" if in_reference else ""
    return StoppedShort(
        f"nothing was written: {'; '.join(accidents)}{theirs}. With large clusters that is mostly a shared template: compare "
        "other fields (--field), leave the template out (--template) or raise --threshold. With small ones it may be two "
        "versions of one set, or a set and its reference: if it is what you want, --allow-collapse"
    )


def _manifest(options: DedupOptions, ours: Inputs) -> dict[str, JSONValue]:
    return {
        **asdict(options.rule),
        "fields": list(options.fields or default_fields(ours.schema)),
        "keep": options.keep,
        "against": [path.as_posix() for path in options.against],
        "template": options.template,
    }
