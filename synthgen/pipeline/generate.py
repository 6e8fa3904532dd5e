"""The story of a run: plan, gate, ask, refine, publish.

    recipe -> resolve -> gate 1 -> lock the run -> waves: ask -> screen -> judge -> settle -> stage -> publish

In: a loaded recipe and a run folder. Out: a published dataset and a `Report`. The same call goes on where an earlier
one stopped: answers come from the journal, everything after the journal is computed anew from it.
"""

import asyncio
import gc
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from synthgen.asking import Asker, Budget
from synthgen.asking.batch import Batches, Pace, connect_batches
from synthgen.asking.connect import connect_all
from synthgen.asking.outcome import Teacher
from synthgen.asking.server_queue import follow_queues
from synthgen.asking.structured import Ignored
from synthgen.dataclasses import dataclass
from synthgen.dataset import TEXTS, check_target
from synthgen.errors import StorageError, SynthgenError, UsageError
from synthgen.journal import Journal, JournalIndex, lock_run, network_file_system, require_folder
from synthgen.pipeline.abilities import read_record, require_abilities
from synthgen.pipeline.ahead import Ahead
from synthgen.pipeline.calibrated import Standing, stale_calibration, standing
from synthgen.pipeline.counting import Counting
from synthgen.pipeline.gates import Gates, open_gates
from synthgen.pipeline.ignored_schemas import remember_ignored, require_schemas_kept
from synthgen.pipeline.intake import Intake
from synthgen.pipeline.modes import with_modes
from synthgen.pipeline.plan import Plan, make_plan, source_rows
from synthgen.pipeline.progress import EventLog, Progress
from synthgen.pipeline.report import Report, make_report
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.rows import Counter
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.unreadable import Unreadable
from synthgen.pipeline.usage import possibly_paid_said, usage_json
from synthgen.pipeline.verdicts import Counts, Target
from synthgen.pipeline.watchdog import Watchdog
from synthgen.pipeline.waves import Waves
from synthgen.recipe.load import LoadedRecipe
from synthgen.types import JSONValue

if TYPE_CHECKING:  # data frames: only where something is refined
    from synthgen.pipeline.decontamination import Decontamination

__all__ = ["Options", "generate"]

_EVENT_EVERY_S = 5.0
# What fits into one file of OpenAI, and into memory: about 10 KiB each while they wait.
_OPEN_REQUESTS = 50_000


@dataclass(frozen=True, slots=True)
class Options:
    """How to run, as opposed to what: nothing here changes an answer or a record.

    `wait` False: submit batches and end; the same command later collects them. `pace`: how often they are looked at.
    `quiet_s`: after so long without any movement the run says what it waits for.
    `still_s`: a teacher that has answered nothing for so long holds up no other: rows are asked ahead of those that wait.
    `drain_s`: how long a signal leaves the answers under way. Schedulers send one SIGTERM and kill 30 to 120 s later;
    what takes longer than 120 s is lost to a kill as it is to us, but for the account of it.
    """

    max_cost_usd: float | None = None
    ask_only: bool = False
    retry_failed: bool = False
    handle_signals: bool = False
    quiet_s: float = 60.0
    still_s: float = 15.0
    drain_s: float = 120.0
    today: date | None = None
    wait: bool = True
    pace: Pace = field(default_factory=Pace)
    progress: Progress = field(default_factory=Progress)
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)


async def generate(loaded: LoadedRecipe, out: Path, options: Options) -> Report:
    """Run a recipe into a run folder.

    Raises:
        SynthgenError: it could not start (recipe, policy, keys, source, storage, lock). Once it has started, what
            stopped it is in the report.
    """
    require_folder(out)
    cap_usd = loaded.recipe.budget_usd if options.max_cost_usd is None else options.max_cost_usd
    resolved = resolve(loaded, cap_usd=cap_usd)
    today = options.today or date.today()  # noqa: DTZ011  # the user's calendar day, as in their lock file
    gates = open_gates(resolved, today)
    gates.require()
    folder = RunFolder(out)
    require_abilities(resolved, read_record(folder), today)
    require_schemas_kept(resolved, folder, today)
    against = _references(resolved)
    plan = make_plan(resolved, gates, cap_usd)
    resolved = with_modes(resolved, plan.modes)
    teachers = connect_all(gates.pinned(resolved.specs))
    folder.require_free()
    release = lock_run(folder.journal)
    try:
        check_target(out, TEXTS)
        if kind := network_file_system(folder.journal):
            options.say(
                f"{out}: on a network file system ({kind}) the lock of a run may not hold between machines: start no "
                "other synthgen on this folder while this one runs"
            )
        run = _Run(resolved, gates, plan, teachers, folder, cap_usd, options, against)
        with _collecting_seldom():
            return await run.go()
    finally:
        release()


def _references(resolved: Resolved) -> "Decontamination | None":
    """The benchmarks no record may repeat, read before anything is asked."""
    if not resolved.loaded.recipe.refine.references():
        return None
    from synthgen.pipeline.decontamination import open_decontamination, references_of

    return open_decontamination(references_of(resolved))


class _Half(Protocol):
    """What becomes of closed waves: `refining.Refining`, or `counting.Counting` where only answers are wanted."""

    @property
    def under_way(self) -> int:
        """Waves that wait to be settled."""

    @property
    def storage(self) -> StorageError | None:
        """The write that failed, if one did."""

    async def run(self, waves: Waves, group: asyncio.TaskGroup) -> None:
        """Take every wave that closes, until there are no more."""

    async def finish(self, index: JournalIndex, rest: int) -> None:
        """Publish, if that is wanted; `rest` are rows that were never admitted."""


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Keep the garbage collector from what a run cannot change: a fifth of its CPU went there, 50 ms at a time.

    The libraries are loaded and stay. Of what a row needs, next to nothing is in a cycle; it is freed without help. Its
    80 objects live until their wave is counted: fewer than a wave's 20,000 would set off a pass that finds all of them
    alive, several times a wave (a tenth of the CPU at 1,024 in flight).
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 10, 200)  # more, and a pass would hold up the event loop
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class _Run:
    """One session of a run, holding its lock."""

    def __init__(
        self,
        resolved: Resolved,
        gates: Gates,
        plan: Plan,
        teachers: Mapping[str, Teacher],
        folder: RunFolder,
        cap_usd: float | None,
        options: Options,
        against: "Decontamination | None",
    ) -> None:
        recipe = resolved.loaded.recipe
        self.resolved, self.gates, self.plan, self.folder = resolved, gates, plan, folder
        self.teachers, self.against = teachers, against
        self.options = options
        self.progress = options.progress
        self.progress.name = recipe.name
        self.progress.rows_total, self.progress.target = plan.rows, recipe.target
        self.progress.counts, self.progress.rows_admitted, self.progress.rows_done = Counts(), 0, 0
        self.progress.rows_ahead, self.progress.still = 0, ()
        self.cap_usd = cap_usd
        self.target = Target(recipe.target)
        self.events = EventLog(folder.events, self.progress)
        self.standing: Standing | None = standing(folder.path, resolved.panel)
        self.calibration = self.standing.id if self.standing else None
        self.interrupts = 0
        self.cut_short = False  # the walk through rows of earlier sessions
        self.storage: StorageError | None = None
        self.unadmitted = 0  # rows
        # Verdicts decide what is asked next where there is a target or a judge, and what is published.
        judged = bool(resolved.judging.aliases)
        self.refines = not options.ask_only or recipe.target is not None or judged
        if self.refines:
            # Here, before signals are handled: polars puts a handler of its own in their place when it is loaded.
            import synthgen.pipeline.refining  # noqa: F401

    async def go(self) -> Report:
        """Ask, refine, publish, report."""
        self.journal = Journal(self.folder.journal)
        for damage in self.journal.index.damaged:
            self.options.say(f"journal: {damage}; what it held is asked again")
        self._tell_possibly_paid()
        if self.options.retry_failed:
            self.journal.index.forget_failures()
        self.budget = Budget(
            self.cap_usd, self.journal.index.ledger.spent_usd + read_record(self.folder).spent_usd
        )
        self.asker = Asker(
            self.journal, self.budget, self.resolved.specs, lambda spec: self.teachers[spec.alias]
        )
        self.asker.schemas.found = self._remember_ignored
        self.unreadable = Unreadable(self.asker, self.folder.path, self.options.say)
        recipe = self.resolved.loaded.recipe
        try:
            self.batches = Batches(
                self.asker,
                self.resolved.specs,
                connect_batches,
                run=recipe.name,
                pace=self.options.pace,
                wait=self.options.wait,
            )
        except BaseException:
            await self.journal.close()
            raise
        self.progress.lanes, self.progress.budget = self.asker.lanes, self.budget
        self.progress.batches = self.batches.under_way
        unstored = 0
        remove_handlers = self._handle_signals() if self.options.handle_signals else None
        try:
            self._require_prices()
            with self._half() as self.half:
                if self.folder.keep_files(self.resolved) or self.folder.recipe_changed(self.resolved.loaded):
                    self._announce_changes()
                self.folder.write_recipe(self.resolved.loaded)
                self.folder.write_plan(self.plan)
                self.folder.begin_order()
                await self._ask_and_refine()
                self.folder.write_usage(usage_json(self.journal.index.ledger, self.cap_usd))
                self.storage = self.storage or self.half.storage or self.journal.failure
                if self.storage is None and not self.cut_short:  # what an earlier session published is more
                    await self.half.finish(self.journal.index, self.unadmitted)
        except StorageError as problem:
            self.storage = problem
            if not self.progress.counts.outcomes:  # nothing was begun
                self._count_pending(self.plan.rows)
        except asyncio.CancelledError:
            if not self._stop_at_once():
                raise
            if not self.target.met:
                self._count_pending(self.plan.rows - self.waves.settled_rows)
        finally:
            try:
                with suppress(asyncio.CancelledError):
                    await self.asker.close()
                    await self.batches.close()
            finally:
                unstored = await self.journal.close()
            if remove_handlers:
                remove_handlers()
        self.events.phase("done")
        return make_report(
            self.folder.path,
            self.resolved,
            self.progress,
            self.asker,
            self.journal.index.ledger,
            interrupted=self.interrupts > 0,
            cut_short=self.interrupts > 1 or self.cut_short,
            storage=self.storage or self.journal.failure,
            unstored=unstored,
            batches=[way.said for way in self.batches.under_way.values()],
            warnings=(
                *self.gates.result.warnings,
                *self._orphans(),
                *stale_calibration(self.standing),
                *self.unreadable.warnings(),
            ),
            refined=self.refines,
        )

    def _tell_possibly_paid(self) -> None:
        """Money that earlier sessions may have spent for nothing, said before more is spent; not where all is free."""
        ledger = self.journal.index.ledger
        unpriced = any(spec.price is None for spec in self.resolved.specs.values())
        if ledger.lost and (ledger.lost_usd or unpriced):
            self.options.say(possibly_paid_said(ledger.lost, ledger.lost_usd, self.folder.path))

    def _remember_ignored(self, alias: str, seen: Ignored) -> None:
        """A server ignores its schema; a disk that cannot take that halts the session."""
        try:
            remember_ignored(self.folder, self.resolved, alias, seen, self.gates.ask.today)
        except StorageError as problem:
            self.storage = problem
            self.asker.halt("storage")

    def _orphans(self) -> list[str]:
        """Batches nobody of this recipe can collect."""
        return [
            f"{batch.said()}; no teacher of the recipe is at {batch.endpoint} now: its requests stay pending until one "
            f"is again, or until `synthgen cancel` gives them up"
            for batch in self.batches.orphans
        ]

    def _require_prices(self) -> None:
        """A cap over all sessions needs the price of every answer of all sessions."""
        if self.cap_usd is None:
            return
        for (_, teacher), tally in self.journal.index.ledger.tallies.items():
            if tally.unpriced:
                raise UsageError(
                    f"{self.folder.path}: {tally.unpriced} earlier answers of teacher {teacher!r} were bought while its "
                    "price was unknown, so no cap can count them; go on without a budget, or start another run folder"
                )

    def _announce_changes(self) -> None:
        """One line on what the changed recipe (or a prompt of it) leaves to be asked."""
        answered = missing = unjudged = 0
        seen, tree = Counter(), self.resolved.tree
        reply_of = self.folder.reply_of(self.journal.index)
        for row in source_rows(self.resolved):
            leaves = list(tree.leaves(tree.admit(row, seen), reply_of))
            missing += sum(leaf.state == "pending" for leaf in leaves)
            answered += sum(leaf.state != "pending" for leaf in leaves)
            asks = self.resolved.judging.asks(leaves)
            unjudged += sum(ask.request.key() not in self.journal.index for ask, _ in asks)
        judgements = f", and up to {unjudged} judgements" if unjudged else ""
        self.options.say(
            f"{self.folder.path}: the recipe has changed since the last run: {answered} of {answered + missing} "
            f"candidates have their answers; to be asked: {missing}{judgements}"
        )

    @contextmanager
    def _half(self) -> Iterator[_Half]:
        if not self.refines:
            yield Counting(self.progress.counts, self.gates.objection)
            return
        from synthgen.pipeline.refining import Refining, open_staging

        with open_staging(self.resolved, self.folder.path) as staging:
            yield Refining(
                self.resolved,
                self.gates,
                self.against,
                self.folder.path,
                staging,
                stages=not self.options.ask_only,
                asker=self.asker,
                batches=self.batches,
                target=self.target,
                progress=self.progress,
                enter=self.events.phase,
                calibration=self.calibration,
            )

    async def _ask_and_refine(self) -> None:
        recipe = self.resolved.loaded.recipe
        self.intake = Intake(
            source_rows(self.resolved, self.folder.journal), self.resolved.tree, self.journal
        )
        self.waves = Waves(
            self.intake,
            self.resolved.tree,
            self.asker,
            self.journal,
            self.progress,
            self.target,
            size=recipe.wave,
            leaves_per_row=self.resolved.leaves_per_row,
            note_order=self.folder.note_order,
            note_reply=self.unreadable.note,
            batches=self.batches,
            batch_rows=self._batch_rows(),
        )
        self.ahead = Ahead(
            self.intake,
            self.resolved.tree,
            self.asker,
            admitted=self.waves.not_begun,
            size=recipe.wave,
            still_s=self.options.still_s if self._may_ask_ahead() else math.inf,
            say=self.options.say,
        )
        self.events.phase("asking")
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._tick(self._watchdog())),
                    group.create_task(follow_queues(self.resolved.specs, self.asker.lanes)),
                    group.create_task(self.batches.run()),
                ]
                async with asyncio.TaskGroup() as work:
                    work.create_task(self._feed(work))
                    work.create_task(self.half.run(self.waves, work))
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as group_error:
            raise _only(group_error) from group_error
        finally:
            self._note_ahead()
            whole = self.waves.exhausted or self.target.met
            self.folder.end_order(whole=whole)
        self.cut_short = self.waves.cut_short
        if not whole:
            self.unadmitted = await self._rest()
            self._count_pending(self.unadmitted)

    async def _rest(self) -> int:
        """Rows that were not admitted; after a signal as planned, since to count them anew the source is read to its end."""
        if self.interrupts:
            return max(0, self.plan.rows - self.progress.rows_admitted)
        return await asyncio.to_thread(self.waves.rest)

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        self.ahead.begin(group)
        try:
            await self.waves.feed(group)
        finally:
            self.ahead.end()

    def _may_ask_ahead(self) -> bool:
        """Whether every row will be wanted and paid for; else what is asked ahead may be money for halves of records."""
        if self.target.wanted is not None or self.asker.batches is not None:
            return False
        usd = self.plan.usd()
        return self.cap_usd is None or (usd is not None and usd[2] <= self.cap_usd)

    def _batch_rows(self) -> int:
        """Rows that fill a batch of the first step's answers, or of later ones; 0 where all teachers are live."""
        if all(spec.mode == "live" for spec in self.resolved.specs.values()):
            return 0
        return max(1, _OPEN_REQUESTS // self.resolved.leaves_per_row)

    def _count_pending(self, rows: int) -> None:
        """Rows that never got a verdict are one pending candidate each."""
        if rows > 0:
            outcomes = self.progress.counts.outcomes
            outcomes["pending"] = outcomes.get("pending", 0) + rows

    async def _tick(self, watchdog: Watchdog) -> None:
        while True:
            await asyncio.sleep(min(_EVENT_EVERY_S, self.options.quiet_s, self.options.still_s))
            self.ahead.look()
            self._note_ahead()
            self.events.write()
            if not self.batches.under_way or self._asks_live():
                watchdog.check()

    def _note_ahead(self) -> None:
        self.progress.rows_ahead, self.progress.still = self.intake.ahead, self.ahead.still

    def _asks_live(self) -> bool:
        """Whether a request is sent or waits outside batches: those may stand still for a day; the live view names them."""
        queues = self.asker.queues.values()
        return any(q.waiting or any(lane.counts.in_flight for lane in q.lanes) for q in queues)

    def _watchdog(self) -> Watchdog:
        def state() -> dict[str, JSONValue]:
            return {
                "waves_open": self.waves.open_waves,
                "waves_settling": self.half.under_way,
                "rows_unfinished": self.progress.rows_admitted - self.progress.rows_done,
                "rows_held_back": self.waves.held_back,
                "rows_ahead": self.intake.ahead,
                "journal_lines_uncommitted": self.journal.uncommitted,
            }

        return Watchdog(
            self.asker.queues,
            state,
            quiet_s=self.options.quiet_s,
            say=self.options.say,
            note=lambda found: self.events.write(stalled=found),
        )

    def _stop_at_once(self) -> bool:
        """Whether we were cancelled by the user's second signal; then the session still ends in order."""
        task = asyncio.current_task()
        if self.interrupts < 2 or task is None:
            return False
        task.uncancel()
        return True

    def _handle_signals(self) -> Callable[[], None]:
        """First SIGINT or SIGTERM: send nothing more and drain, for `drain_s`. Then, or at the second: stop at once."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # we are inside a coroutine
        drained: asyncio.TimerHandle | None = None
        drain_s = self.options.drain_s

        def interrupt() -> None:
            nonlocal drained
            self.interrupts += 1
            if self.interrupts == 1:
                self.asker.halt("interrupted")
                self.options.say(
                    f"interrupted: waiting for the answers under way (they are paid), at most {drain_s:g} s (--drain); "
                    "once more to stop at once"
                )
                drained = loop.call_later(drain_s, give_up)
            else:
                if drained is not None:
                    drained.cancel()
                task.cancel()

        def give_up() -> None:
            if open_requests := self.asker.open_requests:  # else it is publishing, which ends by itself
                self.options.say(f"{open_requests} requests have no answer after {drain_s:g} s: stopping")
                interrupt()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)

        def restore() -> None:
            if drained is not None:
                drained.cancel()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

        return restore


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error inside nested groups, preferring one of ours."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack += error.exceptions
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, SynthgenError)), flat[0])
