"""Refining anybody's dataset: Parquet or JSONL files of any known format, streamed, with no teacher anywhere.

In: files. Out: a new folder with `data/`, `rejected/`, card and manifest; every dropped row with its reason. A row whose
score is asked for and missing is rejected as `unjudged`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from synthgen.dataset import TEXTS, Batch, Staging, detect_shape, open_inputs
from synthgen.dataset.publish import publish
from synthgen.errors import SourceError, UsageError
from synthgen.pipeline.checked import names_of
from synthgen.pipeline.claim import claim
from synthgen.pipeline.clustering import withdraw_duplicates
from synthgen.pipeline.decontamination import open_decontamination
from synthgen.pipeline.describe import count_rows, stamp
from synthgen.pipeline.filter_configs import each_config, report_of
from synthgen.pipeline.filter_options import FilterOptions, rule_of
from synthgen.pipeline.foreign import Declared, ForeignPolicy
from synthgen.pipeline.foreign_rows import MALFORMED, refine_batch
from synthgen.pipeline.holdout import withhold_leaks
from synthgen.pipeline.judgement import JUDGE_STEP
from synthgen.pipeline.report import Report
from synthgen.pipeline.selecting import select_rows
from synthgen.pipeline.together import group_field, whole_groups
from synthgen.pipeline.verdicts import Counts
from synthgen.recipe.model import NearConfig
from synthgen.refine import load_chain

__all__ = ["filter_foreign"]


def filter_foreign(inputs: Sequence[Path], out: Path, options: FilterOptions) -> Report:
    """Refine Parquet or JSONL files of any known format; streams, and keeps every dropped row with its reason.

    Raises:
        SynthgenError: an input cannot be read, policy forbids the use, or `out` cannot be written.
    """
    return each_config(out, options, lambda group, folder: _filter_group(inputs, folder, options, group))


def _filter_group(
    inputs: Sequence[Path], out: Path, options: FilterOptions, group: int
) -> tuple[Report, int]:
    started = time.monotonic()
    for path in inputs:
        if path.resolve() == out.resolve() or out.resolve() in path.resolve().parents:
            raise UsageError(f"{out}: holds the input {path}; choose another folder with -o")
    chain = load_chain(options.chain or "sft_default", Path.cwd())
    shape = detect_shape(inputs)
    declared = Declared(
        use=options.use,
        origin=options.origin,
        by_column=options.origin_column is not None,
        row_license=options.row_license,
        actor=options.actor,
        on_deny=options.on_deny,
        group=group,
        enforced=not options.report_only,
    )
    policy = ForeignPolicy(declared, options.day())
    rule = rule_of(options.keep) if options.keep else None
    clusters = options.clusters(None if options.near is False else NearConfig())
    against = open_decontamination(options.references())
    counts = Counts()
    batches = whole_groups(
        open_inputs(
            inputs,
            shape,
            score_columns=_score_columns(options),
            origin_column=options.origin_column,
        ),
        group_field(chain),
    )
    names: list[str] = []
    with (
        _claimed(out, options) as folder,
        Staging(
            folder, shape, rows_per_shard=options.rows_per_shard, test_share=options.test_share
        ) as staging,
    ):
        for batch in batches if options.dry_run is None else _first(batches, options.dry_run):
            names = names or _names(batch)
            refined = refine_batch(batch, shape, chain, against, rule, options.score, policy, counts)
            staging.add("accepted", refined.accepted)
            staging.add("rejected", refined.rejected)
            staging.add("quarantine", refined.quarantined)
        _require_rows(inputs, counts)
        withdraw_duplicates(staging, counts, clusters)
        if options.select is not None:
            select_rows(staging, options.select, counts)
        if options.dry_run is None:
            withheld = withhold_leaks(staging, counts)
            staging.finish(metadata=stamp(policy.decided))
            rows = count_rows(staging.new, staging.files)
            searched = [*(against.said() if against else []), *withheld]
            entries = policy.manifest(out.name, chain, counts, rows, searched)
            entries["dedup"] = clusters.as_json()
            publish(out, staging, texts=policy.texts(rows, entries), manifest=entries)
    return report_of(out, out.name, counts, None, started, chain, names), policy.groups


def _names(batch: Batch) -> list[str]:
    """What the first row has beside its conversation."""
    return names_of(batch.fields[0]) if batch.fields else []


@contextmanager
def _claimed(out: Path, options: FilterOptions) -> Iterator[Path]:
    """The folder to work in: `out` under its lock, or for a dry run one that nobody sees."""
    if options.dry_run is not None:
        with TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with claim(out, TEXTS):
        yield out


def _score_columns(options: FilterOptions) -> list[str]:
    """Numeric columns that count as scores: the one `--keep` looks at, and those that rows are chosen by."""
    named = {options.score, options.best}
    if options.select is not None:
        named.update(options.select.scores)
    return sorted(named - {JUDGE_STEP, ""})


def _require_rows(inputs: Sequence[Path], counts: Counts) -> None:
    """Nothing to publish is no dataset.

    Raises:
        UsageError: there are no rows.
        SourceError: there is no valid one.
    """
    named = ", ".join(map(str, inputs))
    if counts.planned == 0:
        raise UsageError(f"{named}: no rows found")
    if counts.reasons.get(MALFORMED, 0) == counts.planned:
        where, problem = counts.examples[MALFORMED]
        raise SourceError(
            f"{named}: none of {counts.planned} rows is valid; the first problem is {where}: {problem}"
        )


def _first(batches: Iterator[Batch], rows: int) -> Iterator[Batch]:
    for batch in batches:
        yield replace(batch, frame=batch.frame.head(rows), fields=batch.fields[:rows])
        rows -= batch.frame.height
        if rows <= 0:
            return
