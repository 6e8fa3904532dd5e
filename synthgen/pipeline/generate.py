"""The story of a run: plan, gate, ask, refine, publish.

    recipe -> resolve -> gate 1 -> lock the run -> waves: ask -> screen -> judge -> settle -> stage -> publish

In: a loaded recipe and a run folder. Out: a published dataset and a `Report`. The same call goes on where an earlier
one stopped: answers come from the journal, everything after the journal is computed anew from it.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from synthgen.asking import Asker, Budget, NotAsked
from synthgen.asking.connect import connect_all
from synthgen.asking.outcome import Teacher
from synthgen.dataset import Staging, check_target
from synthgen.errors import StorageError, SynthgenError
from synthgen.journal import Journal, lock_run
from synthgen.pipeline.admit import screen, settle
from synthgen.pipeline.gates import Gates, open_gates
from synthgen.pipeline.judging import JUDGE_STEP, Judge
from synthgen.pipeline.plan import Plan, make_plan, source_rows
from synthgen.pipeline.progress import EventLog, Progress
from synthgen.pipeline.publishing import TEXTS, publish_run
from synthgen.pipeline.records import frames_of
from synthgen.pipeline.report import Report, make_report
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.rows import Counter
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.usage import usage_json
from synthgen.pipeline.verdicts import Target, Verdict
from synthgen.pipeline.waves import Wave, Waves
from synthgen.recipe.load import LoadedRecipe
from synthgen.refine import SeenTexts

__all__ = ["Options", "generate"]

_EVENT_EVERY_S = 5.0
# Waves whose judgements are under way while the next one is screened.
_JUDGED_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Options:
    """How to run, as opposed to what: nothing here changes an answer or a record."""

    max_cost_usd: float | None = None
    ask_only: bool = False
    retry_failed: bool = False
    handle_signals: bool = False
    today: date | None = None
    progress: Progress = field(default_factory=Progress)
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)


async def generate(loaded: LoadedRecipe, out: Path, options: Options) -> Report:
    """Run a recipe into a run folder.

    Raises:
        SynthgenError: it could not start (recipe, policy, keys, source, storage, lock). Once it has started, what
            stopped it is in the report.
    """
    cap_usd = loaded.recipe.budget_usd if options.max_cost_usd is None else options.max_cost_usd
    resolved = resolve(loaded, cap_usd=cap_usd)
    today = options.today or date.today()  # noqa: DTZ011  # the user's calendar day, as in their lock file
    gates = open_gates(resolved, today)
    gates.require()
    plan = make_plan(resolved, gates, cap_usd)
    teachers = connect_all(resolved.specs)
    folder = RunFolder(out)
    folder.require_free()
    release = lock_run(folder.journal)
    try:
        check_target(out, TEXTS)
        run = _Run(resolved, gates, plan, teachers, folder, cap_usd, options)
        return await run.go()
    finally:
        release()


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
    ) -> None:
        recipe = resolved.loaded.recipe
        self.resolved, self.gates, self.plan, self.folder = resolved, gates, plan, folder
        self.teachers = teachers
        self.options = options
        self.progress = options.progress
        self.progress.name = recipe.name
        self.progress.rows_total, self.progress.target = plan.rows, recipe.target
        self.cap_usd = cap_usd
        self.target = Target(recipe.target)
        self.events = EventLog(folder.events, self.progress)
        self.interrupts = 0
        self.settling: asyncio.Queue[tuple[Wave, asyncio.Task[list[Verdict]]] | None] = asyncio.Queue(
            _JUDGED_AHEAD
        )

    async def go(self) -> Report:
        """Ask, refine, publish, report."""
        self.journal = Journal(self.folder.journal)
        for damage in self.journal.index.damaged:
            self.options.say(f"journal: {damage}; what it held is asked again")
        if self.options.retry_failed:
            self.journal.index.forget_failures()
        self.budget = Budget(self.cap_usd, self.journal.index.ledger.spent_usd)
        self.asker = Asker(
            self.journal, self.budget, self.resolved.specs, lambda spec: self.teachers[spec.alias]
        )
        self.progress.lanes, self.progress.budget = self.asker.lanes, self.budget
        unstored = 0
        error: SynthgenError | None = None
        recipe = self.resolved.loaded.recipe
        staging = Staging(
            self.folder.path,
            self.resolved.shape,
            rows_per_shard=recipe.output.rows_per_shard,
            test_share=recipe.output.test_share,
        )
        try:
            with staging:
                if self.folder.keep_files(self.resolved) or self.folder.recipe_changed(self.resolved.loaded):
                    self._announce_changes()
                self.folder.write_recipe(self.resolved.loaded)
                self.folder.write_plan(self.plan)
                await self._ask_and_refine(staging)
                self.folder.write_order(bytes(self.waves.order))
                self.folder.write_usage(usage_json(self.journal.index.ledger, self.cap_usd))
                if not self.options.ask_only and self.journal.failure is None:
                    await asyncio.to_thread(
                        publish_run,
                        self.folder.path,
                        staging,
                        self.resolved,
                        self.gates,
                        self.journal.index,
                        self.progress.counts,
                        self.events.phase,
                    )
        except StorageError as problem:
            error = problem
        except asyncio.CancelledError:
            if not self._stop_at_once():
                raise
            if not self.target.met:
                self._count_pending(self.plan.rows - self.waves.settled_rows)
        finally:
            with suppress(asyncio.CancelledError):
                await self.asker.close()
            unstored = await self.journal.close()
        self.events.phase("done")
        return make_report(
            self.folder.path,
            self.resolved,
            self.progress,
            self.asker,
            self.journal.index.ledger,
            interrupted=self.interrupts > 0,
            storage=error or self.journal.failure,
            unstored=unstored,
            warnings=self.gates.result.warnings,
        )

    def _announce_changes(self) -> None:
        """One line on what the changed recipe (or a prompt of it) leaves to be asked."""
        answered = missing = unjudged = 0
        seen, tree, judge = Counter(), self.resolved.tree, self.resolved.judge
        reply_of = self.folder.reply_of(self.journal.index)
        for row in source_rows(self.resolved):
            for leaf in tree.leaves(tree.admit(row, seen), reply_of):
                missing += leaf.state == "pending"
                answered += leaf.state != "pending"
                if judge and leaf.state == "candidate":
                    unjudged += judge.request(leaf.messages).key() not in self.journal.index
        judgements = f", and up to {unjudged} judgements" if unjudged else ""
        self.options.say(
            f"{self.folder.path}: the recipe has changed since the last run: {answered} of {answered + missing} "
            f"candidates have their answers; to be asked: {missing}{judgements}"
        )

    async def _ask_and_refine(self, staging: Staging) -> None:
        recipe = self.resolved.loaded.recipe
        self.waves = Waves(
            source_rows(self.resolved),
            self.resolved.tree,
            self.asker,
            self.journal,
            self.progress,
            self.target,
            size=recipe.wave,
            leaves_per_row=self.resolved.leaves_per_row,
        )
        self.events.phase("asking")
        remove_handlers = self._handle_signals() if self.options.handle_signals else None
        try:
            async with asyncio.TaskGroup() as group:
                ticker = group.create_task(self._tick())
                async with asyncio.TaskGroup() as work:
                    work.create_task(self.waves.feed(work))
                    work.create_task(self._screen_waves(work))
                    work.create_task(self._settle_waves(staging))
                ticker.cancel()
        except BaseExceptionGroup as group_error:
            raise _only(group_error) from group_error
        finally:
            if remove_handlers:
                remove_handlers()
        if not self.waves.exhausted and not self.target.met:
            self._count_pending(await asyncio.to_thread(self.waves.rest))

    def _count_pending(self, rows: int) -> None:
        """Rows that never got a verdict are one pending candidate each."""
        if rows > 0:
            outcomes = self.progress.counts.outcomes
            outcomes["pending"] = outcomes.get("pending", 0) + rows

    async def _screen_waves(self, group: asyncio.TaskGroup) -> None:
        near = self.resolved.loaded.recipe.refine.dedup.near
        with SeenTexts(near, None) as seen:
            while (wave := await self.waves.next_closed()) is not None:
                verdicts = await asyncio.to_thread(self._screen, wave, seen)
                judged = group.create_task(self._judge(verdicts))
                await self.settling.put((wave, judged))
        await self.settling.put(None)

    def _screen(self, wave: Wave, seen: SeenTexts) -> list[Verdict]:
        reply_of = self.folder.reply_of(self.journal.index)
        leaves = [leaf for row in wave.rows for leaf in self.resolved.tree.leaves(row, reply_of)]
        return screen(leaves, self.gates.mismatch, self.resolved.chain, seen)

    async def _judge(self, verdicts: list[Verdict]) -> list[Verdict]:
        """The verdicts with the judgements of those that got this far; one that cannot be bought stays out."""
        judge = self.resolved.judge
        waiting = [verdict for verdict in verdicts if verdict.outcome is None]
        if judge is None or not waiting or self.target.met:
            return verdicts
        self.events.phase("judging")
        judged = await asyncio.gather(*(self._judgement(judge, verdict) for verdict in waiting))
        by_id = {verdict.leaf.id: verdict for verdict in judged}
        return [by_id.get(verdict.leaf.id, verdict) for verdict in verdicts]

    async def _judgement(self, judge: Judge, verdict: Verdict) -> Verdict:
        try:
            request = judge.request(verdict.leaf.messages)
            reply = await self.asker.ask(request, step=JUDGE_STEP, alias=judge.spec.alias)
        except NotAsked:
            return verdict
        return replace(verdict, judgement=reply)

    async def _settle_waves(self, staging: Staging) -> None:
        while (item := await self.settling.get()) is not None:
            wave, judged = item
            final = settle(await judged, self.resolved.judge, self.gates.misjudged, self.target)
            frames = frames_of(final, self.resolved.shape, self.gates.origin)
            for kind, frame in (
                ("accepted", frames.accepted),
                ("rejected", frames.rejected),
                ("quarantine", frames.quarantined),
                ("lineage", frames.lineage),
            ):
                await asyncio.to_thread(staging.add, kind, frame)  # type: ignore[arg-type]  # the four kinds
            for verdict in final:
                self.progress.counts.add(verdict)
            self.waves.settled(wave)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_EVENT_EVERY_S)
            self.events.write()

    def _stop_at_once(self) -> bool:
        """Whether we were cancelled by the user's second signal; then the session still ends in order."""
        task = asyncio.current_task()
        if self.interrupts < 2 or task is None:
            return False
        task.uncancel()
        return True

    def _handle_signals(self) -> Callable[[], None]:
        """First SIGINT or SIGTERM: send nothing more and drain. Second: stop at once."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # we are inside a coroutine

        def interrupt() -> None:
            self.interrupts += 1
            if self.interrupts == 1:
                self.asker.halt("interrupted")
                self.options.say(
                    "interrupted: waiting for the answers under way (they are paid); once more to stop at once"
                )
            else:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)

        def restore() -> None:
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
