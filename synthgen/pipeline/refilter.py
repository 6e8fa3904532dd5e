"""Refining again, with no teacher anywhere: a run from its journal, or anybody's dataset.

In: a run folder, or Parquet and JSONL files. Out: a new folder with `data/`, `rejected/`, card and manifest.
`recut` walks the same trees as `generate` and uses the judgements in the journal; `filter_foreign` streams. A record
whose judge score is asked for and missing is rejected as `unjudged`: nothing is ever bought here.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from pathlib import Path

import orjson
import polars as pl

from synthgen.dataset import (
    BadRow,
    Batch,
    CardFilters,
    CardInfo,
    CardPolicy,
    Staging,
    check_target,
    dataset_card,
    detect_shape,
    open_inputs,
    publish,
)
from synthgen.errors import PolicyError, UsageError
from synthgen.journal import JournalIndex, lock_run
from synthgen.pipeline.admit import screen, settle
from synthgen.pipeline.gates import Gates, open_gates
from synthgen.pipeline.judging import JUDGE_STEP
from synthgen.pipeline.publishing import package_version, publish_run
from synthgen.pipeline.records import frames_of
from synthgen.pipeline.report import OUTCOMES, Report
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.rows import Counter, Row, row_from_entry
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.usage import usage_json
from synthgen.pipeline.verdicts import Counts, Target, Verdict
from synthgen.policy import (
    Ask,
    GateResult,
    Part,
    Registry,
    gate,
    licence_expression,
    licence_texts,
    load_registry,
    notice_lines,
    parse_uses,
    policy_json,
    refusal,
)
from synthgen.recipe.model import Actor, JudgeConfig, NearConfig
from synthgen.refine import VIEW, Chain, SeenTexts, judge_verdicts, load_chain, run_chain
from synthgen.schema import RecordShape, record_schema, rejected_schema
from synthgen.types import JSONValue, digest

__all__ = ["FilterOptions", "filter_foreign", "recut"]

_WAVE = 1024
_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """How to refine. None keeps what the run's recipe says, or the default for foreign data.

    `keep` with `score`: a comparison a stored score must satisfy (`">= 4"`). `use` and `origin`
    (`teacher@route`) let policy decide on foreign data; without them its output says `policy: unevaluated`.
    `dry_run`: look at the first rows only and write nothing.
    """

    chain: str | None = None
    near: bool | None = None
    keep: str | None = None
    score: str = JUDGE_STEP
    use: tuple[str, ...] = ()
    origin: str | None = None
    origin_column: str | None = None
    row_license: str = "own"
    rows_per_shard: int = 50_000
    test_share: float = 0.0
    dry_run: int | None = None
    today: date | None = None


def _today(options: FilterOptions) -> date:
    return options.today or date.today()  # noqa: DTZ011  # the user's calendar day, as in their lock file


def recut(run: Path, out: Path, options: FilterOptions) -> Report:
    """Refine a run anew from its journal into another folder.

    Raises:
        SynthgenError: not a run, the recipe's policy forbids the use, or `out` cannot be written.
    """
    started = time.monotonic()
    folder = RunFolder(run)
    if out.resolve() == run.resolve():
        raise UsageError(f"{out}: is the run itself; choose another folder with -o")
    loaded = folder.load_recipe()
    if options.use:
        loaded = replace(loaded, recipe=loaded.recipe.model_copy(update={"use": list(options.use)}))
    resolved = resolve(loaded, copies=folder.recipe_files)
    if options.chain is not None:
        resolved = replace(resolved, chain=load_chain(options.chain, Path.cwd()))
    if resolved.judge:
        rule = JudgeConfig(teacher="-", keep=options.keep).rule() if options.keep else resolved.judge.rule
        resolved = replace(resolved, judge=replace(resolved.judge, rule=rule, missing_is_pending=False))
    gates = open_gates(resolved, _today(options))
    gates.require()
    index = JournalIndex(folder.journal)
    counts, recipe = Counts(), loaded.recipe
    near = recipe.refine.dedup.near if options.near is not False else None
    rows = _plan_order(folder, index, resolved)
    target = Target(recipe.target)
    if options.dry_run is not None:
        with SeenTexts(near, None) as seen:
            for verdicts in _waves(
                resolved, gates, folder, index, islice(rows, options.dry_run), seen, target
            ):
                _count(counts, verdicts)
        return _report(out, recipe.name, counts, index, started)
    release = _claim(out)
    try:
        with (
            Staging(
                out,
                resolved.shape,
                rows_per_shard=recipe.output.rows_per_shard,
                test_share=recipe.output.test_share,
            ) as staging,
            SeenTexts(near, None) as seen,
        ):
            for verdicts in _waves(resolved, gates, folder, index, rows, seen, target):
                _count(counts, verdicts)
                frames = frames_of(verdicts, resolved.shape, gates.origin)
                staging.add("accepted", frames.accepted)
                staging.add("rejected", frames.rejected)
                staging.add("quarantine", frames.quarantined)
                staging.add("lineage", frames.lineage)
            publish_run(out, staging, resolved, gates, index, counts, lambda _: None)
    finally:
        release()
        index.close()
    return _report(out, recipe.name, counts, index, started)


def _plan_order(folder: RunFolder, index: JournalIndex, resolved: Resolved) -> Iterator[Row]:
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
    rows: Iterator[Row],
    seen: SeenTexts,
    target: Target,
) -> Iterator[list[Verdict]]:
    reply_of = folder.reply_of(index)
    while block := list(islice(rows, _WAVE)):
        leaves = [leaf for row in block for leaf in resolved.tree.leaves(row, reply_of)]
        verdicts = screen(leaves, gates.mismatch, resolved.chain, seen)
        judge = resolved.judge
        if judge:
            verdicts = [
                replace(v, judgement=reply_of(judge.request(v.leaf.messages).key()))
                if v.outcome is None
                else v
                for v in verdicts
            ]
        yield settle(verdicts, judge, target)


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
        sent=0,
        usage=usage_json(index.ledger, None) if index else None,
        elapsed_s=time.monotonic() - started,
    )


def filter_foreign(inputs: Sequence[Path], out: Path, options: FilterOptions) -> Report:
    """Refine Parquet or JSONL files of any known format; streams, and keeps every dropped row with its reason.

    Raises:
        SynthgenError: an input cannot be read, policy forbids the use, or `out` cannot be written.
    """
    started = time.monotonic()
    chain = load_chain(options.chain or "sft_default", Path.cwd())
    shape = detect_shape(inputs)
    policy = _ForeignPolicy(options)
    near = None if options.near is False else NearConfig()
    counts = Counts()
    batches = open_inputs(
        inputs,
        shape,
        score_column=options.score if options.score != JUDGE_STEP else None,
        origin_column=options.origin_column,
    )
    if options.dry_run is not None:
        with SeenTexts(near, None) as seen:
            for batch in _first(batches, options.dry_run):
                _refine(batch, shape, chain, seen, options, policy, counts)
        return _report(out, out.name, counts, None, started)
    release = _claim(out)
    try:
        with (
            Staging(
                out, shape, rows_per_shard=options.rows_per_shard, test_share=options.test_share
            ) as staging,
            SeenTexts(near, None) as seen,
        ):
            for batch in batches:
                accepted, rejected = _refine(batch, shape, chain, seen, options, policy, counts)
                staging.add("accepted", accepted)
                staging.add("rejected", rejected)
            if counts.planned == 0:
                raise UsageError(f"{', '.join(map(str, inputs))}: no rows found")
            staging.finish(metadata={"policy": policy.outcome})
            publish(
                out,
                staging,
                texts=policy.texts(out.name, staging, chain, counts),
                manifest=policy.manifest(chain, counts),
            )
    finally:
        release()
    return _report(out, out.name, counts, None, started)


def _claim(out: Path) -> Callable[[], None]:
    """Lock an output folder that is not a run; returns the function that gives it back."""
    release = lock_run(out / ".lock")
    try:
        check_target(out)
    except BaseException:
        release()
        raise

    def give_back() -> None:
        release()
        (out / ".lock" / "LOCK").unlink(missing_ok=True)
        (out / ".lock").rmdir()

    return give_back


def _first(batches: Iterator[Batch], rows: int) -> Iterator[Batch]:
    for batch in batches:
        yield replace(batch, frame=batch.frame.head(rows))
        rows -= batch.frame.height
        if rows <= 0:
            return


def _refine(
    batch: Batch,
    shape: RecordShape,
    chain: Chain,
    seen: SeenTexts,
    options: FilterOptions,
    policy: "_ForeignPolicy",
    counts: Counts,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Accepted and rejected rows of one batch, both in input order."""
    frame = policy.stamp(batch.frame)
    view = _view(frame)
    judged = run_chain(chain, view).select("id", "stage", "reason", "score", "detail")
    alive = view.filter(judged["reason"].is_null())
    dups = seen.add(alive).select("id", "stage", "reason", "score", pl.col("dup_of").alias("detail"))
    verdicts = pl.concat([judged.filter(pl.col("reason").is_not_null()), dups])
    if options.keep is not None:
        verdicts = pl.concat(
            [verdicts.filter(pl.col("reason").is_not_null()), _threshold(frame, verdicts, options)]
        )
    decided = frame.join(verdicts, on="id", how="left", maintain_order="left")
    accepted = decided.filter(pl.col("reason").is_null()).select(record_schema(shape).names())
    rejected = decided.filter(pl.col("reason").is_not_null()).select(rejected_schema(shape).names())
    rejected = pl.concat([rejected, _bad_rows(batch.bad, shape)])
    counts.outcomes["accepted"] = counts.outcomes.get("accepted", 0) + accepted.height
    counts.outcomes["rejected"] = counts.outcomes.get("rejected", 0) + rejected.height
    for stage, reason in rejected.select("stage", "reason").iter_rows():
        counts.reasons[stage, reason] = counts.reasons.get((stage, reason), 0) + 1
    return accepted, rejected


def _threshold(frame: pl.DataFrame, verdicts: pl.DataFrame, options: FilterOptions) -> pl.DataFrame:
    """Verdicts of the score rule for the rows nothing else rejected."""
    alive = verdicts.filter(pl.col("reason").is_null()).select("id")
    scores = alive.join(
        frame.select("id", "scores")
        .explode("scores")
        .unnest("scores")
        .filter(pl.col("name") == options.score)
        .select("id", "score"),
        on="id",
        how="left",
        maintain_order="left",
    )
    rule = JudgeConfig(teacher="-", keep=options.keep or ">= 0").rule()
    judged = judge_verdicts(scores, rule)
    return judged.select("id", "stage", "reason", "score", pl.lit(None, dtype=pl.String).alias("detail"))


def _view(frame: pl.DataFrame) -> pl.DataFrame:
    """The filters' view of records: everything before the last assistant turn, and that turn."""
    turns = frame.select("id", "finish_reason", "messages")
    element = pl.element().struct
    content, role = element.field("content").fill_null(""), element.field("role")
    asked = pl.col("messages").list.eval(content.filter(role != "assistant"))
    answered = pl.col("messages").list.eval(content.filter(role == "assistant"))
    return turns.select(
        "id",
        asked.list.join("\n\n").alias("prompt"),
        answered.list.last().fill_null("").alias("completion"),
        "finish_reason",
        pl.lit(None, dtype=pl.String).alias("response_schema"),
    ).cast(VIEW)


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


class _ForeignPolicy:
    """What policy says of data we did not generate: nothing, unless the user declares use and origin."""

    def __init__(self, options: FilterOptions) -> None:
        self.registry: Registry = load_registry()
        self.ask: Ask | None = None
        self.result: GateResult | None = None
        self._options = options
        if not options.use:
            return
        if not options.origin:
            raise UsageError(
                "--use needs --origin teacher@route: policy decides on who wrote the answers, and where"
            )
        teacher, _, route = options.origin.rpartition("@")
        part = Part(
            alias=teacher,
            provider="foreign",
            route=route,
            model=teacher,
            hf=None,
            row_license=options.row_license,
        )
        self.ask = Ask(parse_uses(options.use), Actor(), today=_today(options))
        self.result = gate(self.registry, [part], self.ask)
        if not self.result.passed:
            raise PolicyError(refusal(self.result, self.ask.uses))

    @property
    def outcome(self) -> str:
        """The decision, or `unevaluated`."""
        return self.result.outcome if self.result else "unevaluated"

    def stamp(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows with the declared origin where they name none of their own."""
        if not self.result:
            return frame
        item = self.result.parts[0]
        return frame.with_columns(
            pl.col("teacher").fill_null(item.part.model),
            pl.col("route").fill_null(item.part.route),
            pl.col("policy_id").fill_null(item.decision.policy_id),
        )

    def manifest(self, chain: Chain, counts: Counts) -> dict[str, JSONValue]:
        """The manifest's own entries."""
        return {
            "synthgen": package_version(),
            "policy_registry": self.registry.version,
            "policy": self.outcome,
            "chain": {"name": chain.name, "version": chain.version, "digest": chain.digest},
            "counts": {"planned": counts.planned, **counts.outcomes},
            "reasons": {"/".join(key): count for key, count in sorted(counts.reasons.items())},
        }

    def texts(self, name: str, staging: Staging, chain: Chain, counts: Counts) -> dict[str, bytes]:
        """Card and policy files."""
        rows = staging.rows
        card = CardInfo(
            name=name,
            version=package_version(),
            train_rows=_rows(rows, "data/train"),
            test_rows=_rows(rows, "data/test"),
            rejected_rows=_rows(rows, "rejected/"),
            counts={"planned": counts.planned, **counts.outcomes},
            license=licence_expression(self.registry, self.result) if self.result else None,
            filters=CardFilters(chain.name, str(chain.version), tuple(step.id for step in chain.steps)),
            policy=self._card_policy(),
            rejected_by={"/".join(key): count for key, count in sorted(counts.reasons.items())},
        )
        texts = {"README.md": dataset_card(card).encode()}
        if self.result and self.ask:
            policy = policy_json(self.registry, self.ask, self.result)
            texts["POLICY.json"] = orjson.dumps(policy, option=_PRETTY)
            texts["NOTICE"] = ("\n".join(notice_lines(self.registry, self.result)) + "\n").encode()
            for licence, text in licence_texts(self.registry, self.result).items():
                texts[f"LICENSES/{licence}"] = text.encode()
        return texts

    def _card_policy(self) -> CardPolicy | None:
        if not self.result or not self.ask:
            return None
        return CardPolicy(
            self.ask.uses,
            self.result.outcome,
            tuple(str(obligation) for obligation in self.result.obligations),
            self.registry.released.isoformat(),
        )


def _rows(rows: Mapping[str, int], prefix: str) -> int:
    return sum(count for path, count in rows.items() if path.startswith(prefix))
