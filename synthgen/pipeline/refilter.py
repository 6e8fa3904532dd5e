"""Refining again, with no teacher anywhere: a run from its journal, or anybody's dataset.

In: a run folder, or Parquet and JSONL files. Out: a new folder with `data/`, `rejected/`, card and manifest.
`recut` walks the same trees as `generate` and uses the judgements in the journal; `filter_foreign` streams. A record
whose judge score is asked for and missing is rejected as `unjudged`: nothing is ever bought here.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import islice
from pathlib import Path

import orjson
import polars as pl
from pydantic import ValidationError

from synthgen.dataset import (
    TEXTS,
    BadRow,
    Batch,
    Staging,
    configs_card,
    detect_shape,
    open_inputs,
    write_bytes,
)
from synthgen.dataset.publish import publish
from synthgen.errors import UsageError
from synthgen.journal import JournalIndex
from synthgen.pipeline.admit import screen, settle
from synthgen.pipeline.calibrated import cut_warnings, standing
from synthgen.pipeline.captured import logprobs_frame
from synthgen.pipeline.claim import claim
from synthgen.pipeline.decontamination import Decontamination, open_decontamination, references_of
from synthgen.pipeline.describe import count_rows, stamp
from synthgen.pipeline.foreign import Declared, ForeignPolicy
from synthgen.pipeline.gates import Gates, OnDeny, open_gates
from synthgen.pipeline.holdout import withhold_leaks
from synthgen.pipeline.judged import look_up_judges
from synthgen.pipeline.judgement import JUDGE_STEP
from synthgen.pipeline.judgements import judgements_frame
from synthgen.pipeline.judging import OVERALL
from synthgen.pipeline.publishing import publish_run
from synthgen.pipeline.records import frames_of
from synthgen.pipeline.report import OUTCOMES, Report
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.rows import Counter, row_from_entry
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.selecting import Select, select_rows
from synthgen.pipeline.tree import Ask, Leaf
from synthgen.pipeline.usage import usage_json
from synthgen.pipeline.verdicts import Counts, Target, Verdict
from synthgen.policy import parse_uses
from synthgen.recipe.model import Actor, JudgeConfig, NearConfig, ReferenceConfig
from synthgen.refine import Chain, SeenTexts, judge_verdicts, load_chain, run_chain, view_of
from synthgen.schema import RecordShape, record_schema, rejected_schema
from synthgen.types import digest

__all__ = ["FilterOptions", "filter_foreign", "recut"]

_WAVE = 1024
_SAID = ("id", "stage", "reason", "score", "threshold", "detail")


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """How to refine. None keeps what the run's recipe says, or the default for foreign data.

    `keep` with `score`: a comparison a stored score must satisfy (`">= 4"`). `use` with `origin`
    (`teacher@route`), or with a column that holds it, lets policy decide on foreign data; without them its output
    says `policy: unevaluated`; `actor` are facts about who will use it. `on_deny` says what becomes of rows the policy
    refuses: `fail` stops, `drop` sets them aside, `split` also writes rows that cannot stand together into folders
    of their own. `report_only` refuses nothing and stamps what it writes.
    `against`: benchmark files whose items no row may repeat, beside those of the run's recipe.
    `dry_run`: look at the first rows only and write nothing. `select`: of what is accepted, only so many rows.
    """

    chain: str | None = None
    near: bool | None = None
    keep: str | None = None
    score: str = JUDGE_STEP
    use: tuple[str, ...] = ()
    origin: str | None = None
    origin_column: str | None = None
    row_license: str = "own"
    actor: Actor = field(default_factory=Actor)
    on_deny: OnDeny = "fail"
    report_only: bool = False
    against: tuple[Path, ...] = ()
    rows_per_shard: int = 50_000
    test_share: float = 0.0
    dry_run: int | None = None
    select: Select | None = None
    today: date | None = None


def _today(options: FilterOptions) -> date:
    return options.today or date.today()  # noqa: DTZ011  # the user's calendar day, as in their lock file


def recut(run: Path, out: Path, options: FilterOptions) -> Report:
    """Refine a run anew from its journal into another folder; with `on_deny: split` into folders below it.

    Raises:
        SynthgenError: not a run, the recipe's policy forbids the use, or `out` cannot be written.
    """
    return _each_config(out, options, lambda group, folder: _recut_group(run, folder, options, group))


def _each_config(
    out: Path, options: FilterOptions, refine: Callable[[int, Path], tuple[Report, int]]
) -> Report:
    """Refine once, or for `split` once per group of rows that may stand together, each into `config-N`.

    The report counts what was accepted and rejected in all of them; what is set aside stays the same.
    """
    if options.on_deny != "split" or options.dry_run is not None:
        return refine(0, out)[0]
    first, groups = refine(0, out / "config-0")
    reports = [first, *(refine(group, out / f"config-{group}")[0] for group in range(1, groups))]
    counts = dict(first.counts)
    for outcome in ("accepted", "rejected"):
        counts[outcome] = sum(report.counts.get(outcome, 0) for report in reports)
        counts["surplus"] -= counts[outcome] - first.counts.get(outcome, 0)
    write_bytes(
        out / "README.md", configs_card(out.name, [f"config-{group}" for group in range(groups)]).encode()
    )
    reasons = {key: sum(r.reasons.get(key, 0) for r in reports) for r in reports for key in r.reasons}
    reasons |= {key: n for key, n in first.reasons.items() if key.startswith("policy/")}
    return replace(first, out=out, name=out.name, counts=counts, reasons=reasons)


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
    if run.resolve() in (out.resolve(), out.resolve().parent):
        raise UsageError(f"{out}: is the run itself; choose another folder with -o")
    folder = RunFolder(run)
    resolved = _resolve_again(folder, options)
    gates = open_gates(
        resolved,
        _today(options),
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
    report = _report(out, resolved.loaded.recipe.name, counts, index, started)
    return replace(report, warnings=cut_warnings(folder.path, resolved.panel)), gates.groups


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
    judging = resolved.judging.without_asking()
    if options.keep:
        if judging.panel is None:
            raise UsageError(f"{folder.path}: --keep needs scores, and the recipe of this run has no judge")
        judging = replace(judging, panel=replace(judging.panel, rules={OVERALL: _rule(options.keep)}))
    return replace(resolved, judging=judging)


def _rule(keep: str) -> tuple[str, float]:
    """The comparison and number of `--keep`.

    Raises:
        UsageError: it is not a comparison with a number.
    """
    try:
        return JudgeConfig(teacher="-", keep=keep).rule()
    except ValidationError as error:
        raise UsageError(f"--keep {keep!r}: write a comparison and a number, like '>= 4'") from error


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
    against = open_decontamination([*references_of(resolved), *_named(options)])
    rows = _plan_order(folder, index, resolved)
    with SeenTexts(recipe.refine.dedup.near, None) as seen:
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
            if options.select is not None:
                select_rows(staging, options.select, counts)
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
    seen: SeenTexts,
    against: Decontamination | None,
) -> Iterator[list[Verdict]]:
    reply_of = folder.reply_of(index)
    target = Target(resolved.loaded.recipe.target)
    while block := list(islice(rows, _WAVE)):
        leaves = [leaf for asks in block for leaf in resolved.tree.leaves(asks, reply_of)]
        verdicts = screen(leaves, gates.objection, resolved.chain, seen, against)
        rounds = resolved.judging.rounds(verdicts, gates.misjudged)
        yield settle(look_up_judges(rounds, index), target)


def _named(options: FilterOptions) -> list[tuple[ReferenceConfig, Path]]:
    return [(ReferenceConfig(path=str(path)), path) for path in options.against]


def _count(counts: Counts, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        counts.add(verdict)


def _report(out: Path, name: str, counts: Counts, index: JournalIndex | None, started: float) -> Report:
    outcomes = {name: counts.outcomes.get(name, 0) for name in OUTCOMES}
    return Report(
        out=out,
        name=name,
        counts={"planned": sum(outcomes.values()), **outcomes},
        reasons={
            "/".join(key): n
            for key, n in sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0]))
        },
        flags=dict(sorted(counts.flags.items())),
        sent=0,
        usage=usage_json(index.ledger, None) if index else None,
        elapsed_s=time.monotonic() - started,
    )


def filter_foreign(inputs: Sequence[Path], out: Path, options: FilterOptions) -> Report:
    """Refine Parquet or JSONL files of any known format; streams, and keeps every dropped row with its reason.

    Raises:
        SynthgenError: an input cannot be read, policy forbids the use, or `out` cannot be written.
    """
    return _each_config(out, options, lambda group, folder: _filter_group(inputs, folder, options, group))


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
    policy = ForeignPolicy(declared, _today(options))
    rule = _rule(options.keep) if options.keep else None
    near = None if options.near is False else NearConfig()
    against = open_decontamination(_named(options))
    counts = Counts()
    batches = open_inputs(
        inputs,
        shape,
        score_column=options.score if options.score != JUDGE_STEP else None,
        origin_column=options.origin_column,
    )
    with SeenTexts(near, None) as seen:
        if options.dry_run is not None:
            for batch in _first(batches, options.dry_run):
                _refine(batch, shape, chain, seen, against, rule, options.score, policy, counts)
            return _report(out, out.name, counts, None, started), policy.groups
        with (
            claim(out, TEXTS),
            Staging(
                out, shape, rows_per_shard=options.rows_per_shard, test_share=options.test_share
            ) as staging,
        ):
            for batch in batches:
                refined = _refine(batch, shape, chain, seen, against, rule, options.score, policy, counts)
                staging.add("accepted", refined.accepted)
                staging.add("rejected", refined.rejected)
                staging.add("quarantine", refined.quarantined)
            if counts.planned == 0:
                raise UsageError(f"{', '.join(map(str, inputs))}: no rows found")
            if options.select is not None:
                select_rows(staging, options.select, counts)
            withheld = withhold_leaks(staging, counts)
            staging.finish(metadata=stamp(policy.decided))
            rows = count_rows(staging.new, staging.files)
            entries = policy.manifest(
                out.name, chain, counts, rows, [*(against.said() if against else []), *withheld]
            )
            publish(out, staging, texts=policy.texts(rows, entries), manifest=entries)
    return _report(out, out.name, counts, None, started), policy.groups


def _first(batches: Iterator[Batch], rows: int) -> Iterator[Batch]:
    for batch in batches:
        yield replace(batch, frame=batch.frame.head(rows), fields=batch.fields[:rows])
        rows -= batch.frame.height
        if rows <= 0:
            return


def _refine(
    batch: Batch,
    shape: RecordShape,
    chain: Chain,
    seen: SeenTexts,
    against: Decontamination | None,
    rule: tuple[str, float] | None,
    score: str,
    policy: ForeignPolicy,
    counts: Counts,
) -> "_Refined":
    """The rows of one batch by outcome, each in input order."""
    frame, refused = policy.stamp(batch.frame)
    quarantined = _set_aside(frame, refused, shape, counts)
    if refused.height:
        frame = frame.join(refused, on="id", how="anti", maintain_order="left")
    fields = pl.DataFrame({"id": batch.frame["id"], "fields": pl.Series(batch.fields, dtype=pl.String)})
    view = _view(frame, fields)
    seen_by_chain = run_chain(chain, view)
    frame = _with_notes(frame, seen_by_chain)
    judged = seen_by_chain.select(_SAID)
    alive = view.filter(judged["reason"].is_null())
    exact = pl.col("reason") == "exact_duplicate"
    bound = pl.when(exact).then(1.0).when(pl.col("reason").is_not_null()).then(seen.threshold)
    dups = seen.add(alive).with_columns(threshold=bound.cast(pl.Float64), detail="dup_of").select(_SAID)
    if against is not None:
        copies = against.verdicts(alive.filter(dups["reason"].is_null())).select(_SAID)
        dups = pl.concat([dups.join(copies, on="id", how="anti", maintain_order="left"), copies])
    verdicts = pl.concat([judged.filter(pl.col("reason").is_not_null()), dups])
    if rule is not None:
        verdicts = pl.concat(
            [verdicts.filter(pl.col("reason").is_not_null()), _threshold(frame, verdicts, rule, score)]
        )
    decided = frame.join(verdicts, on="id", how="left", maintain_order="left")
    accepted = decided.filter(pl.col("reason").is_null()).select(record_schema(shape).names())
    rejected = decided.filter(pl.col("reason").is_not_null()).select(rejected_schema(shape).names())
    rejected = pl.concat([rejected, _bad_rows(batch.bad, shape)])
    counts.outcomes["accepted"] = counts.outcomes.get("accepted", 0) + accepted.height
    counts.outcomes["rejected"] = counts.outcomes.get("rejected", 0) + rejected.height
    for flag in accepted["flags"].explode().drop_nulls():
        counts.flags[flag] = counts.flags.get(flag, 0) + 1
    for stage, reason in rejected.select("stage", "reason").iter_rows():
        counts.reasons[stage, reason] = counts.reasons.get((stage, reason), 0) + 1
    return _Refined(accepted, rejected, quarantined)


@dataclass(frozen=True, slots=True)
class _Refined:
    accepted: pl.DataFrame
    rejected: pl.DataFrame
    quarantined: pl.DataFrame


def _set_aside(
    frame: pl.DataFrame, refused: pl.DataFrame, shape: RecordShape, counts: Counts
) -> pl.DataFrame:
    """What policy refuses goes to quarantine; what belongs to another config is only counted."""
    for outcome, reason in refused.select("outcome", "reason").iter_rows():
        counts.outcomes[outcome] = counts.outcomes.get(outcome, 0) + 1
        if outcome == "quarantined":
            counts.reasons["policy", reason] = counts.reasons.get(("policy", reason), 0) + 1
    told = refused.filter(pl.col("outcome") == "quarantined").select(
        "id",
        pl.lit("policy").alias("stage"),
        "reason",
        pl.lit(None, dtype=pl.Float64).alias("score"),
        pl.lit(None, dtype=pl.Float64).alias("threshold"),
        "detail",
    )
    return frame.join(told, on="id", how="inner", maintain_order="left").select(
        rejected_schema(shape).names()
    )


def _with_notes(frame: pl.DataFrame, seen_by_chain: pl.DataFrame) -> pl.DataFrame:
    """The records with the chain's scores and flags behind those they came with."""
    notes = seen_by_chain.select("id", new_scores="scores", new_flags="flags")

    def joined(old: str, new: str) -> pl.Expr:
        both = pl.concat_list(pl.col(old), pl.col(new).cast(frame.schema[old]))
        return pl.coalesce(both, pl.col(old), pl.col(new).cast(frame.schema[old])).alias(old)

    noted = frame.join(notes, on="id", how="left", maintain_order="left")
    columns = [joined("scores", "new_scores"), joined("flags", "new_flags")]
    return noted.with_columns(columns).select(frame.columns)


def _threshold(
    frame: pl.DataFrame, verdicts: pl.DataFrame, rule: tuple[str, float], score: str
) -> pl.DataFrame:
    """Verdicts of the score rule for the rows nothing else rejected."""
    alive = verdicts.filter(pl.col("reason").is_null()).select("id")
    scores = alive.join(
        frame.select("id", "scores")
        .explode("scores")
        .unnest("scores")
        .filter(pl.col("name") == score)
        .select("id", "score"),
        on="id",
        how="left",
        maintain_order="left",
    )
    judged = judge_verdicts(scores, rule)
    broken = pl.when(pl.col("reason") == "judge_below").then(rule[1])
    detail = pl.lit(None, dtype=pl.String)
    return judged.with_columns(threshold=broken.cast(pl.Float64), detail=detail).select(_SAID)


def _view(frame: pl.DataFrame, fields: pl.DataFrame) -> pl.DataFrame:
    """The filters' view of records: everything before the last assistant turn, and that turn.

    Samples of one question may lie in different batches, so no group is named.
    """
    element = pl.element().struct
    content, role = element.field("content").fill_null(""), element.field("role")
    asked = pl.col("messages").list.eval(content.filter(role != "assistant"))
    answered = pl.col("messages").list.eval(content.filter(role == "assistant"))
    texts = frame.select(
        "id",
        asked.list.join("\n\n").alias("prompt"),
        answered.list.last().fill_null("").alias("completion"),
        "finish_reason",
        "scores",
        *(["tools", _calls(frame)] if "tools" in frame.columns else []),
    )
    return view_of(texts.join(fields, on="id", how="left", maintain_order="left"))


def _calls(frame: pl.DataFrame) -> pl.Series:
    """The tool calls of the last assistant turn as JSON text."""
    element = pl.element().struct
    answers = pl.element().filter(element.field("role") == "assistant")
    last = pl.col("messages").list.eval(answers).list.last().struct.field("tool_calls")
    calls = [
        orjson.dumps(made).decode() if made else None for made in frame.select(last)["tool_calls"].to_list()
    ]
    return pl.Series("tool_calls", calls, pl.String)


def _bad_rows(bad: Sequence[BadRow], shape: RecordShape) -> pl.DataFrame:
    rows = [
        {
            "id": digest(["bad", row.where, row.problem]),
            "messages": [],
            "source": row.where,
            "row": digest(["bad", row.where]),
            "stage": "source",
            "reason": "malformed_row",
            "detail": row.problem,
        }
        for row in bad
    ]
    return pl.DataFrame(rows, schema=rejected_schema(shape))
