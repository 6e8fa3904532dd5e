"""How a run ended: the exit code, why, and the numbers people and programs ask for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from synthgen.asking import Asker
from synthgen.dataclasses import dataclass
from synthgen.errors import BudgetReached, Interrupted, StoppedShort, StorageError, SynthgenError
from synthgen.journal import Ledger
from synthgen.pipeline.checked import checked, unchecked
from synthgen.pipeline.progress import Progress
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.usage import usage_json
from synthgen.pipeline.verdicts import HOLDOUT, SELECT, Counts
from synthgen.types import JSONValue

__all__ = ["OUTCOMES", "Report", "make_report"]


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a run or re-cut. `problem` None means finished; else its exit code and message say why not.

    `counts`: outcome -> candidates, with `planned` as their sum. `refined` False: only asked; what counts as accepted then
    has met no filter. `reasons`: `stage/reason` -> candidates dropped.
    `flags`: what accepted candidates are flagged with -> how many. `checked`: steps that compare an answer with a field of its row -> rows
    that had something to compare. `rows_ahead`: of what is pending, rows
    that were asked ahead of their turn; their replies are stored. `examples`: the keys of `reasons` -> the first candidate that failed or was quarantined for it, and what was said of it.
    """

    out: Path
    name: str
    counts: Mapping[str, int]
    reasons: Mapping[str, int]
    sent: int
    usage: JSONValue
    elapsed_s: float
    problem: SynthgenError | None = None
    warnings: tuple[str, ...] = ()
    examples: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    checked: Mapping[str, int] = field(default_factory=dict)
    refined: bool = True
    rows_ahead: int = 0

    @property
    def exit_code(self) -> int:
        """Exit code of the command; 0 also when candidates failed or were rejected."""
        return 0 if self.problem is None else self.problem.exit_code

    def as_json(self) -> dict[str, JSONValue]:
        """What `--json` prints."""
        return {
            "out": str(self.out),
            "name": self.name,
            "exit_code": self.exit_code,
            "problem": None if self.problem is None else str(self.problem),
            "warnings": list(self.warnings),
            "counts": dict(self.counts),
            "refined": self.refined,
            "reasons": dict(self.reasons),
            "flags": dict(self.flags),
            "checked": dict(self.checked),
            "examples": dict(self.examples),
            "rows_ahead": self.rows_ahead,
            "sent": self.sent,
            "usage": self.usage,
            "elapsed_s": round(self.elapsed_s, 3),
        }


# Judges of good models misspell a verdict now and then; from here on it is the judge, not the record.
_UNREAD_FROM, _UNREAD_SHARE = 5, 0.05
OUTCOMES = ("accepted", "rejected", "failed", "quarantined", "surplus", "pending")


def make_report(
    out: Path,
    resolved: Resolved,
    progress: Progress,
    asker: Asker,
    ledger: Ledger,
    *,
    interrupted: bool,
    cut_short: bool,
    storage: SynthgenError | None,
    unstored: int,
    batches: Sequence[str] = (),
    warnings: tuple[str, ...] = (),
    refined: bool = True,
) -> Report:
    """Decide how a session ended; what the disk says comes first, then the user's signal, the cap, the rest.

    `cut_short`: less was settled than was answered; whoever interrupted it is told so.
    """
    counts = {name: progress.counts.outcomes.get(name, 0) for name in OUTCOMES}
    problem: SynthgenError | None = None
    stopped = {alias: queue.stopped for alias, queue in asker.queues.items() if queue.stopped}
    target = resolved.loaded.recipe.target
    leaked = _withdrawn(progress.counts, f"decontaminate:{HOLDOUT}")
    reached = counts["accepted"]
    if resolved.loaded.recipe.refine.select is not None:  # then the target is what there was to select from
        reached += _withdrawn(progress.counts, SELECT) + leaked
        leaked = 0
    under_way = "".join(f"; {said}" for said in batches)
    if storage is not None:
        lost = f"; {unstored} paid answers could not be stored" if unstored else ""
        problem = StorageError(f"{storage}{lost}")
    elif interrupted:
        cut = "; what this session did not settle counts as pending, its replies are stored"
        problem = Interrupted(
            f"interrupted; the same command goes on where it stopped{cut if cut_short else ''}{under_way}"
        )
    elif asker.budget.reached is not None and counts["pending"]:
        problem = BudgetReached(f"{asker.budget.reached}{under_way}")
    elif stopped and counts["pending"]:
        reasons = "; ".join(f"teacher {alias}: {stop.reason}: {stop}" for alias, stop in stopped.items())
        problem = StoppedShort(f"stopped: {reasons}; {counts['pending']} candidates are pending{under_way}")
    elif counts["pending"]:
        problem = StoppedShort(
            f"{counts['pending']} candidates are pending; the same command collects their batches{under_way}"
            if batches
            else f"{counts['pending']} candidates are pending; the same command asks them again"
        )
    elif target is not None and reached < target:
        problem = StoppedShort(_missed(target, reached, leaked))
    return Report(
        out=out,
        name=resolved.loaded.recipe.name,
        counts={"planned": sum(counts.values()), **counts},
        reasons={
            "/".join(key): n
            for key, n in sorted(progress.counts.reasons.items(), key=lambda i: (-i[1], i[0]))
        },
        flags=dict(sorted(progress.counts.flags.items())),
        checked=checked(resolved.chain, progress.counts) if refined else {},
        sent=asker.sent,
        usage=usage_json(ledger, asker.budget.cap_usd),
        elapsed_s=progress.elapsed_s,
        problem=problem,
        warnings=(
            *warnings,
            *_lost_servers(asker),
            *_unanswered(asker),
            *_lost_in_bulk(out, progress.counts),
            *_unread_judges(out, progress.counts),
            *(unchecked(resolved.chain, progress.counts) if refined else ()),
        ),
        refined=refined,
        rows_ahead=progress.rows_ahead,
        examples={
            "/".join(key): f"{leaf_id}: {detail}" if detail else leaf_id
            for key, (leaf_id, detail) in progress.counts.examples.items()
        },
    )


def _withdrawn(counts: Counts, withdrawn_by: str) -> int:
    """Rows that a stage took back once all were known."""
    return sum(count for (stage, _), count in counts.reasons.items() if stage == withdrawn_by)


def _missed(target: int, accepted: int, leaked: int) -> str:
    missed = f"target missed: {accepted} of {target} records"
    if not leaked:
        return f"{missed}, and the plan is used up"
    why = f"withdrawn from train because they repeat a prompt of the test split: {leaked}"
    if accepted + leaked < target:
        return f"{missed}, and the plan is used up; {why}"
    return f"{missed}: {why}; `target: {target + leaked}` makes up for that"


def _lost_in_bulk(run: Path, counts: Counts) -> Iterator[str]:
    """Where over half of what was settled got no answer: exit code 0 hides it. `Unreadable` has those that cannot be read."""
    lost = {key: n for key, n in counts.reasons.items() if key[0] == "ask"}
    settled, together = counts.planned - counts.outcomes.get("pending", 0), sum(lost.values())
    if together < _UNREAD_FROM or 2 * together <= settled:
        return
    key, most = max(lost.items(), key=lambda item: item[1])
    example = counts.examples.get(key)
    row = f" --row {example[0]}" if example else ""
    yield (
        f"{together} of {settled} candidates are lost for their replies, most of them ({most}) as {'/'.join(key)}; "
        f"see why with `synthgen show {run}{row}`"
    )


def _unread_judges(run: Path, counts: Counts) -> Iterator[str]:
    """Judges of whose replies more than a few cannot be read: their records are lost for the judge's sake."""
    for name, read in counts.judges.items():
        if read.unreadable >= _UNREAD_FROM and read.unreadable > _UNREAD_SHARE * read.replies:
            cut = f" ({read.truncated} ended at `max_tokens`)" if read.truncated else ""
            yield (
                f"judge {name}: {read.unreadable} of {read.replies} replies could not be read{cut}; see one with "
                f"`synthgen show {run} --row {read.first}`, then give the judge another model, prompt or max_tokens"
            )


def _lost_servers(asker: Asker) -> list[str]:
    """Servers of a pool that stopped while others went on: nobody would miss them otherwise."""
    return [
        f"{lane.name} was not asked any more: {lane.stopped.reason}: {lane.stopped}"
        for queue in asker.queues.values()
        for lane in queue.lanes
        if lane.stopped and not queue.stopped
    ]


def _unanswered(asker: Asker) -> Iterator[str]:
    """Teachers that left some requests without an answer, if they were not stopped for it."""
    for alias, said in asker.unanswered.items():
        stop = asker.queues[alias].stopped
        if stop is None or stop.reason != "unanswered":
            yield f"teacher {alias}: {said}"
