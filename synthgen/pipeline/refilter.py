"""Refining a run again from its journal, with no teacher anywhere.

In: a run folder. Out: a new folder with `data/`, `rejected/`, card and manifest. `recut` walks the same trees as
`generate` and uses the judgements in the journal. A record whose judgement is missing is rejected as `unjudged`: nothing
is ever bought here.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path

from synthgen.dataset import TEXTS, Staging
from synthgen.errors import UsageError
from synthgen.journal import JournalIndex
from synthgen.pipeline.admit import screen, settle
from synthgen.pipeline.calibrated import cut_warnings, standing
from synthgen.pipeline.captured import logprobs_frame
from synthgen.pipeline.claim import claim
from synthgen.pipeline.clustering import withdraw_duplicates
from synthgen.pipeline.decontamination import Decontamination, open_decontamination, references_of
from synthgen.pipeline.filter_configs import each_config, report_of
from synthgen.pipeline.filter_options import FilterOptions, rule_of
from synthgen.pipeline.gates import Gates, open_gates
from synthgen.pipeline.judged import look_up_judges
from synthgen.pipeline.judgement import JUDGE_STEP
from synthgen.pipeline.judgements import judgements_frame
from synthgen.pipeline.judging import OVERALL
from synthgen.pipeline.publishing import publish_run
from synthgen.pipeline.records import frames_of
from synthgen.pipeline.report import Report
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.rows import Counter, row_from_entry
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.tree import Ask, Leaf
from synthgen.pipeline.verdicts import Counts, Target, Verdict
from synthgen.policy import parse_uses
from synthgen.recipe.model import Actor, NearConfig
from synthgen.refine import SeenTexts, load_chain

__all__ = ["recut"]

_WAVE = 1024


def recut(run: Path, out: Path, options: FilterOptions) -> Report:
    """Refine a run anew from its journal into another folder; with `on_deny: split` into folders below it.

    Raises:
        SynthgenError: not a run, the recipe's policy forbids the use, or `out` cannot be written.
    """
    return each_config(out, options, lambda group, folder: _recut_group(run, folder, options, group))


def _recut_group(run: Path, out: Path, options: FilterOptions, group: int) -> tuple[Report, int]:
    started = time.monotonic()
    foreign = {
        "--score": options.score != JUDGE_STEP,
        "--origin": options.origin,
        "--row-license": options.row_license != "own",
        "--actor": options.actor != Actor(),
        "--test-share": options.test_share,
    }
    foreign["--origin-column"] = options.origin_column
    for name in (name for name, given in foreign.items() if given):
        raise UsageError(f"{name}: is for foreign data; a run knows its scores, origins and test share")
    if options.dedup is not None and options.dry_run is not None:
        raise UsageError("--dedup: looks at all rows of a run; leave it out of a dry run")
    if run.resolve() in (out.resolve(), out.resolve().parent):
        raise UsageError(f"{out}: is the run itself; choose another folder with -o")
    folder = RunFolder(run)
    resolved = _resolve_again(folder, options)
    gates = open_gates(
        resolved,
        options.day(),
        on_deny=options.on_deny,
        group=group,
        enforced=not options.report_only,
        declared=parse_uses(folder.load_recipe().recipe.use),
    )
    gates.require()
    index = JournalIndex(folder.journal)
    try:
        counts = _recut(folder, out, resolved, gates, index, options)
    finally:
        index.close()
    report = report_of(out, resolved.loaded.recipe.name, counts, index, started, resolved.chain)
    warnings = (*report.warnings, *cut_warnings(folder.path, resolved.panel))
    return replace(report, warnings=warnings), gates.groups


def _resolve_again(folder: RunFolder, options: FilterOptions) -> Resolved:
    """The run's recipe with the options laid over it."""
    loaded = folder.load_recipe()
    recipe = loaded.recipe
    changes: dict[str, object] = {"use": list(options.use)} if options.use else {}
    if options.near is False:
        dedup = recipe.refine.dedup.model_copy(update={"near": None})
        changes["refine"] = recipe.refine.model_copy(update={"dedup": dedup})
    resolved = resolve(replace(loaded, recipe=recipe.model_copy(update=changes)), copies=folder.recipe_files)
    if options.chain is not None:
        resolved = replace(resolved, chain=load_chain(options.chain, Path.cwd()))
    if options.select is not None:  # not before `resolve`, which would look for it in the recipe's lines
        refine = resolved.loaded.recipe.refine.model_copy(update={"select": options.select})
        recipe = resolved.loaded.recipe.model_copy(update={"refine": refine})
        resolved = replace(resolved, loaded=replace(resolved.loaded, recipe=recipe))
    judging = resolved.judging.without_asking()
    if options.keep:
        if judging.panel is None:
            raise UsageError(f"{folder.path}: --keep needs scores, and the recipe of this run has no judge")
        judging = replace(judging, panel=replace(judging.panel, rules={OVERALL: rule_of(options.keep)}))
    return replace(resolved, judging=judging)


def _recut(
    folder: RunFolder,
    out: Path,
    resolved: Resolved,
    gates: Gates,
    index: JournalIndex,
    options: FilterOptions,
) -> Counts:
    counts, recipe = Counts(), resolved.loaded.recipe
    stands = standing(folder.path, resolved.panel)
    calibration = stands.id if stands else None
    against = open_decontamination([*references_of(resolved), *options.references()])
    rows = _plan_order(folder, index, resolved)
    near = recipe.refine.dedup.near
    wanted = None if options.near is False else near or NearConfig()  # whoever names `--dedup` wants it done
    clusters = None if options.dedup is None else options.clusters(wanted)
    with nullcontext() if clusters else SeenTexts(near, None) as seen:
        waves = _waves(resolved, gates, folder, index, islice(rows, options.dry_run), seen, against)
        if options.dry_run is not None:
            for verdicts in waves:
                _count(counts, verdicts)
            return counts
        with (
            claim(out, TEXTS),
            Staging(
                out,
                resolved.shape,
                rows_per_shard=recipe.output.rows_per_shard,
                test_share=recipe.output.test_share,
            ) as staging,
        ):
            walked = 0
            for verdicts in waves:
                walked += len(verdicts)
                _count(counts, verdicts)
                frames = frames_of(verdicts, resolved.shape, gates.origin)
                staging.add("accepted", frames.accepted)
                staging.add("rejected", frames.rejected)
                staging.add("quarantine", frames.quarantined)
                staging.add("lineage", frames.lineage)
                if resolved.captures:
                    staging.add("logprobs", logprobs_frame(verdicts, index, resolved.specs))
                if resolved.judging.ships:
                    staging.add("judgements", judgements_frame(verdicts, resolved.judging, calibration))
            if clusters is not None:
                withdraw_duplicates(staging, counts, clusters)
            publish_run(
                out,
                staging,
                resolved,
                gates,
                index,
                counts,
                walked,
                lambda _: None,
                against,
                with_lock=True,
                calibration=calibration,
                clusters=clusters,
            )
    return counts


def _plan_order(folder: RunFolder, index: JournalIndex, resolved: Resolved) -> Iterator[list[Ask | Leaf]]:
    """The first questions of every row."""
    seen = Counter()
    for key in folder.read_order():
        entry = index.row(key)
        if entry is None:
            raise UsageError(f"{folder.path}: row {key} is not in the journal; run `synthgen generate` again")
        yield resolved.tree.admit(row_from_entry(entry), seen)


def _waves(
    resolved: Resolved,
    gates: Gates,
    folder: RunFolder,
    index: JournalIndex,
    rows: Iterator[list[Ask | Leaf]],
    seen: SeenTexts | None,
    against: Decontamination | None,
) -> Iterator[list[Verdict]]:
    reply_of = folder.reply_of(index)
    target = Target(resolved.loaded.recipe.target)
    while block := list(islice(rows, _WAVE)):
        leaves = [leaf for asks in block for leaf in resolved.tree.leaves(asks, reply_of)]
        verdicts = screen(leaves, gates.objection, resolved.chain, seen, against)
        rounds = resolved.judging.rounds(verdicts, gates.misjudged)
        yield settle(look_up_judges(rounds, index), target)


def _count(counts: Counts, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        counts.add(verdict)
