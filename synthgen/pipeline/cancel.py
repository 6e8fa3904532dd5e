"""Cancelling a run's batches: what was answered until then is kept, the rest stays pending.

In: a run folder. Out: `Cancelled`, one entry a batch. Asks no teacher anything new; needs the credentials, since the
batches belong to them. The recipe is the one the run was last generated with, from its folder.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

from synthgen.asking import Asker, Budget, NotAsked
from synthgen.asking.batch import Batches, Harvest, Pace, Stopped, connect_batches
from synthgen.asking.connect import connect
from synthgen.dataclasses import dataclass
from synthgen.errors import StoppedShort, SynthgenError
from synthgen.journal import Journal, lock_run
from synthgen.pipeline.resolve import resolve
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.usage import usage_json
from synthgen.types import JSONValue

__all__ = ["Cancelled", "CancelledBatch", "cancel_run"]


@dataclass(frozen=True, slots=True)
class CancelledBatch:
    """One batch: what it brought (`answered` was paid, `usd` in all), what stays pending, and what went wrong."""

    teacher: str
    id: str | None
    answered: int
    failed: int
    pending: int
    usd: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of the batches of a run; `problem` says which of them could not be cancelled."""

    run: Path
    batches: tuple[CancelledBatch, ...]

    @property
    def problem(self) -> SynthgenError | None:
        """None where all were."""
        open_ones = [f"batch {batch.id}: {batch.problem}" for batch in self.batches if batch.problem]
        return StoppedShort(f"{self.run}: not cancelled: {'; '.join(open_ones)}") if open_ones else None

    def as_json(self) -> dict[str, JSONValue]:
        """What `--json` prints."""
        return {"run": str(self.run), "batches": [cast(JSONValue, asdict(batch)) for batch in self.batches]}


async def cancel_run(run: Path, pace: Pace, say: Callable[[str], None]) -> Cancelled:
    """Cancel all batches of a run, one after another, and journal what they brought.

    Raises:
        UsageError: not a run, or a credential is missing.
        RunLocked: somebody works on it.
        StorageError: its journal cannot be read or written.
    """
    folder = RunFolder(run)
    resolved = resolve(folder.load_recipe(), copies=folder.recipe_files)
    release = lock_run(folder.journal)
    try:
        journal = Journal(folder.journal)
        try:
            asker = Asker(journal, Budget(None, journal.index.ledger.spent_usd), resolved.specs, connect)
            batches = Batches(
                asker, resolved.specs, connect_batches, run=resolved.loaded.recipe.name, pace=pace
            )
            try:
                found = tuple([await _cancel(batches, name, say) for name in list(batches.under_way)])
                lost = tuple(
                    CancelledBatch(batch.teacher, batch.id, 0, 0, len(batch.requests), 0.0, _ORPHAN)
                    for batch in batches.orphans
                )
                await batches.give_up_orphans()
            finally:
                await batches.close()
            folder.write_usage(usage_json(journal.index.ledger, resolved.loaded.recipe.budget_usd))
        finally:
            await journal.close()
    finally:
        release()
    return Cancelled(run, found + lost)


_ORPHAN = "no teacher of the recipe is where it was sent; its requests count as possibly paid and may be asked again"


async def _cancel(batches: Batches, name: str, say: Callable[[str], None]) -> CancelledBatch:
    way = batches.under_way[name]
    say(f"cancelling {way.said}")
    problem = None
    try:
        harvest = await batches.cancel(way)
    except (Stopped, NotAsked) as stop:
        harvest, problem = Harvest(way.batch, unanswered=len(way.batch.requests)), f"{stop.reason}: {stop}"
    return CancelledBatch(
        way.batch.teacher,
        way.batch.id,
        harvest.answered,
        harvest.failed,
        harvest.unanswered,
        harvest.usd,
        problem,
    )
