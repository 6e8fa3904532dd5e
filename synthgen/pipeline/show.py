"""What is in a run: its counts and samples, or the whole story of one record.

In: a run folder. Out: plain values for faces to print. Published rows are read from the shards; failed, pending and
surplus candidates from the journal. Calls no teacher and writes nothing.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import cast

import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset import is_published, read_manifest
from synthgen.errors import UsageError
from synthgen.journal import JournalIndex, is_locked
from synthgen.pipeline.admit import screen
from synthgen.pipeline.calibrated import standing
from synthgen.pipeline.gates import open_gates
from synthgen.pipeline.progress import last_event
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.rows import Counter, row_from_entry
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.show_published import find_published, published_story
from synthgen.pipeline.stories import Record, RowStory, StepStory, said, score_lines
from synthgen.pipeline.tree import Leaf
from synthgen.pipeline.usage import usage_json
from synthgen.pipeline.verdicts import SELECT
from synthgen.types import JSONValue

__all__ = ["RowStory", "RunSummary", "StepStory", "row_story", "summarise"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """`samples` and `rejects` are records as stored; `published` is false for a folder without a manifest; `batches` say
    what is under way at vendors.

    `examples`: reason -> the id of a candidate that failed or was quarantined for it, for `row_story`. `generations`:
    rounds of distillation behind the accepted rows -> how many have them. `judge` says whether the scores can be trusted.
    `usage` is the journal's, also of a run that was killed. `running`: a process works on it now, so that what `usage`
    calls lost may be on the wire. `rows_ahead`: rows that the last session had asked ahead of their turn when it ended, or
    said so last; their replies are stored.
    """

    run: Path
    published: bool
    counts: Mapping[str, int]
    reasons: Mapping[str, int]
    usage: JSONValue
    samples: tuple[Record, ...]
    rejects: tuple[Record, ...]
    examples: Mapping[str, str]
    generations: Mapping[str, int]
    flags: Mapping[str, int]
    batches: tuple[str, ...] = ()
    judge: str | None = None
    running: bool = False
    rows_ahead: int = 0

    def as_json(self) -> dict[str, JSONValue]:
        """What `--json` prints."""
        return {
            "run": str(self.run),
            "published": self.published,
            "counts": dict(self.counts),
            "reasons": dict(self.reasons),
            "usage": self.usage,
            "samples": [dict(record) for record in self.samples],
            "rejects": [dict(record) for record in self.rejects],
            "flags": dict(self.flags),
            "examples": dict(self.examples),
            "generations": dict(self.generations),
            "batches": list(self.batches),
            "judge": self.judge,
            "running": self.running,
            "rows_ahead": self.rows_ahead,
        }


def summarise(run: Path, samples: int) -> RunSummary:
    """Counts, reasons, spend, the first records of each shard folder.

    Raises:
        UsageError: neither a run nor a published dataset.
    """
    published = is_published(run)
    if not published:
        RunFolder(run).require()
    manifest = read_manifest(run) if published else {}
    usage, batches = _account(run)
    return RunSummary(
        run=run,
        published=published,
        counts=cast(dict[str, int], manifest.get("counts", {})),
        reasons=cast(dict[str, int], manifest.get("reasons", {})),
        usage=usage,
        samples=tuple(_head(run / "data", samples)),
        rejects=tuple(_head(run / "rejected", 1)),
        examples=cast(dict[str, str], manifest.get("examples", {})),
        generations=cast(dict[str, int], manifest.get("generations", {})),
        flags=cast(dict[str, int], manifest.get("flags", {})),
        batches=batches,
        judge=_calibration(run),
        running=is_locked(run / "journal"),
        rows_ahead=cast(int, last_event(RunFolder(run).events).get("rows_ahead", 0)),
    )


def _calibration(run: Path) -> str | None:
    """Whether the judges of a run were compared with people; None: it has none that score."""
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        return None
    panel = resolve(folder.load_recipe(), copies=folder.recipe_files).panel
    if panel is None:
        return None
    stands = standing(run, panel)
    return (
        "not calibrated against people: see `synthgen judge calibrate`" if stands is None else stands.said()
    )


def _account(run: Path) -> tuple[JSONValue, tuple[str, ...]]:
    """Tokens and money, and what is under way at vendors: from the journal; of a folder without one, as it was stored."""
    folder = RunFolder(run)
    usage, plan = _stored(run / "usage.json"), _stored(folder.plan)
    if not folder.journal.is_dir():
        return usage, ()
    cap = usage["cap_usd"] if isinstance(usage, dict) else None
    if usage is None and isinstance(plan, dict):  # a first session that did not come to its end
        cap = plan["budget_usd"]
    index = JournalIndex(folder.journal)
    try:
        batches = tuple(batch.said() for batch in index.open_batches.values())
        return usage_json(index.ledger, cast(float | None, cap)), batches
    finally:
        index.close()


def _stored(path: Path) -> JSONValue:
    return cast(JSONValue, orjson.loads(path.read_bytes())) if path.is_file() else None


def _head(folder: Path, rows: int) -> list[Record]:
    files = sorted(folder.glob("*.parquet"))
    return pl.scan_parquet(files).head(rows).collect().to_dicts() if files and rows else []


def row_story(run: Path, prefix: str) -> RowStory:
    """The story of the record whose id starts with `prefix`.

    Raises:
        UsageError: not a run, no such candidate, or several.
    """
    folder = RunFolder(run)
    if is_published(run) and not folder.journal.is_dir():
        return published_story(run, prefix)
    resolved = resolve(folder.load_recipe(), copies=folder.recipe_files)
    index = JournalIndex(folder.journal)
    try:
        found = _find(folder, resolved, index, prefix)
        return _story(run, folder, resolved, index, *found)
    finally:
        index.close()


def _find(folder: RunFolder, resolved: Resolved, index: JournalIndex, prefix: str) -> tuple[Leaf, list[Leaf]]:
    """The candidate, and all of its row: filters that compare samples look at those too."""
    reply_of = folder.reply_of(index)
    seen = Counter()
    found: list[tuple[Leaf, list[Leaf]]] = []
    for key in folder.read_order():
        entry = index.row(key)
        if entry is None:
            continue
        asks = resolved.tree.admit(row_from_entry(entry), seen)
        leaves = list(resolved.tree.leaves(asks, reply_of))
        found += [(leaf, leaves) for leaf in leaves if leaf.id.startswith(prefix)]
    if not found:
        raise UsageError(f"{folder.path}: no candidate whose id starts with {prefix!r}")
    if len(found) > 1:
        raise UsageError(f"{folder.path}: {len(found)} candidates start with {prefix!r}; give more of the id")
    return found[0]


def _story(
    run: Path, folder: RunFolder, resolved: Resolved, index: JournalIndex, leaf: Leaf, siblings: list[Leaf]
) -> RowStory:
    steps = [
        StepStory(a.ask.step.name, a.ask.alias, a.ask.request.messages, a.reply.key, a.reply)
        for a in leaf.asked
    ]
    reply_of = folder.reply_of(index)
    for ask, about in resolved.judging.asks(siblings):
        reply = reply_of(ask.request.key()) if about.id == leaf.id else None
        if reply is not None:
            steps.append(StepStory(ask.step, ask.alias, ask.request.messages, reply.key, reply))
    outcome, record = next(iter(find_published(run, pl.col("id") == leaf.id)), (None, None))
    costs = [step.reply.cost_usd for step in steps if step.reply]
    return RowStory(
        id=leaf.id,
        outcome=outcome
        or _unlisted(run, leaf, judged=not resolved.judging.aliases or len(steps) > len(leaf.asked)),
        source=leaf.row.where,
        fields=leaf.fields,
        steps=tuple(steps),
        verdicts=tuple(_verdicts(resolved, leaf, siblings, record)),
        record=record,
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def _unlisted(run: Path, leaf: Leaf, *, judged: bool) -> str:
    """What became of a candidate that is in no shard."""
    if leaf.state in ("failed", "pending"):
        return leaf.state
    if not is_published(run):
        return "not published"
    counts = cast(dict[str, int], read_manifest(run).get("counts", {}))
    return "pending" if counts.get("pending") and not judged else "surplus"


def _verdicts(resolved: Resolved, leaf: Leaf, siblings: list[Leaf], record: Record | None) -> list[str]:
    """What each stage said: the filters are asked again (they are pure), the rest stands in the record."""
    lines: list[str] = []
    if leaf.state != "candidate":
        lines.append(f"{leaf.stage}: {leaf.reason}" + (f" ({leaf.detail})" if leaf.detail else ""))
    else:
        gates = open_gates(resolved, date.today())  # noqa: DTZ011  # only names are compared here
        problem = gates.objection(leaf)
        lines.append(f"policy: {problem or 'served by the teacher that was asked'}")
        screened = screen(
            siblings,
            lambda other: None if other.id == leaf.id else gates.objection(other),
            resolved.chain,
            None,
        )
        verdict = next(verdict for verdict in screened if verdict.leaf.id == leaf.id)
        for step in resolved.chain.steps:
            if verdict.stage == f"filter:{step.id}":
                lines.append(
                    said(verdict.stage, verdict.reason, verdict.score, verdict.threshold, verdict.detail)
                )
                break
            lines.append(f"filter:{step.id}: kept")
        lines += [f"flag: {flag}" for flag in verdict.flags]
    later = ("judge", "best_of", "decontaminate:", SELECT)
    if leaf.state == "candidate" and record and str(record.get("stage") or "judge").startswith(later):
        lines.append("dedup: kept")
    if record and record.get("stage"):
        why = (record.get(key) for key in ("stage", "reason", "score", "threshold", "detail"))
        lines.append(said(*why))
    lines += score_lines(record or {})
    return list(dict.fromkeys(lines))
