"""The refining half of a running `generate`: closed waves in, verdicts counted, records staged and published.

In: closed waves in plan order. Out: counts, and shards in the staging folder. Guarantee: a wave is screened while the
judgements of earlier ones are bought, and settled in plan order. `counting` takes its place where nobody asks for
verdicts: a run that only asks then never loads what refines.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from synthgen.asking import Asker
from synthgen.asking.batch import Batches
from synthgen.dataset import Staging
from synthgen.errors import StorageError
from synthgen.journal import JournalIndex
from synthgen.pipeline.admit import screen, settle
from synthgen.pipeline.captured import logprobs_frame
from synthgen.pipeline.decontamination import Decontamination
from synthgen.pipeline.gates import Gates
from synthgen.pipeline.judged import ask_judges
from synthgen.pipeline.judgements import judgements_frame
from synthgen.pipeline.progress import Progress
from synthgen.pipeline.publishing import publish_run
from synthgen.pipeline.records import frames_of
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.verdicts import Target, Verdict
from synthgen.pipeline.waves import Wave, Waves
from synthgen.refine import SeenTexts

__all__ = ["Refining", "open_staging"]

# Waves whose judgements are under way while the next one is screened.
_JUDGED_AHEAD = 2


class Refining:
    """See the module. `storage`: the write that failed, if one did."""

    def __init__(
        self,
        resolved: Resolved,
        gates: Gates,
        against: Decontamination | None,
        out: Path,
        staging: Staging,
        *,
        stages: bool,
        asker: Asker,
        batches: Batches,
        target: Target,
        progress: Progress,
        enter: Callable[[str], None],
        calibration: str | None,
    ) -> None:
        """`stages`: what is admitted becomes a dataset. `enter` is told the phase."""
        self._walked = 0  # leaves seen in closed waves: what the counts must add up to
        self._out = out
        self.storage: StorageError | None = None
        self._resolved, self._gates, self._against = resolved, gates, against
        self._staging, self._stages = staging, stages
        self._asker, self._batches, self._target = asker, batches, target
        self._progress, self._enter = progress, enter
        self._calibration = calibration
        in_batches = any(resolved.specs[alias].mode == "batch" for alias in resolved.judging.aliases)
        self._settling: asyncio.Queue[tuple[Wave, asyncio.Task[list[Verdict]]] | None] = asyncio.Queue(
            0 if in_batches else _JUDGED_AHEAD
        )

    @property
    def under_way(self) -> int:
        """Waves that wait to be settled."""
        return self._settling.qsize()

    async def run(self, waves: Waves, group: asyncio.TaskGroup) -> None:
        """Refine every wave that closes, until there are no more."""
        group.create_task(self._settle_waves(waves))
        try:
            with SeenTexts(self._resolved.loaded.recipe.refine.dedup.near, self._staging.folder) as seen:
                while (wave := await waves.next_closed()) is not None:
                    with self._batches.expecting():
                        verdicts = await asyncio.to_thread(self._screen, wave, seen)
                        judged = group.create_task(self._judge(verdicts))
                    await self._settling.put((wave, judged))
        except StorageError as error:
            self._drain(waves, error)
            while await waves.next_closed() is not None:
                pass
        await self._settling.put(None)

    async def finish(self, index: JournalIndex, rest: int) -> None:
        """Publish what was staged; `rest` are rows that were never admitted.

        In a thread that is waited for, whatever signal comes: half a swap is no dataset.
        """
        if not self._stages:
            return
        work = asyncio.ensure_future(
            asyncio.to_thread(
                publish_run,
                self._out,
                self._staging,
                self._resolved,
                self._gates,
                index,
                self._progress.counts,
                self._walked + rest,
                self._enter,
                self._against,
                calibration=self._calibration,
            )
        )
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work
            raise

    def _drain(self, waves: Waves, error: StorageError) -> None:
        """The disk fails while refining: ask nothing more, but let what is in flight end; it is paid."""
        self.storage = self.storage or error
        self._asker.halt("storage")
        waves.stop()

    def _screen(self, wave: Wave, seen: SeenTexts) -> list[Verdict]:
        leaves = [leaf for row in wave.leaves for leaf in row]
        self._walked += len(leaves)
        return screen(leaves, self._gates.objection, self._resolved.chain, seen, self._against)

    async def _judge(self, verdicts: list[Verdict]) -> list[Verdict]:
        """The verdicts, decided by the judges where they got this far; one that cannot be judged now is pending."""
        judging = self._resolved.judging
        waiting = any(verdict.outcome is None for verdict in verdicts)
        if not judging.aliases or not waiting or self._target.met:
            return verdicts
        self._enter("judging")
        rounds = judging.rounds(verdicts, self._gates.misjudged)
        return await ask_judges(rounds, self._asker, self._asker.journal.index)

    async def _settle_waves(self, waves: Waves) -> None:
        while (item := await self._settling.get()) is not None:
            wave, judged = item
            if self.storage is not None:
                await judged
                continue
            try:
                verdicts = await judged
                with self._batches.expecting():
                    await self._settle_wave(verdicts)
                    waves.settled(wave)
            except StorageError as error:
                self._drain(waves, error)

    async def _settle_wave(self, judged: list[Verdict]) -> None:
        final = settle(judged, self._target)
        if self._stages:
            await self._stage(final)
        for verdict in final:
            self._progress.counts.add(verdict)

    async def _stage(self, final: list[Verdict]) -> None:
        staging = self._staging
        frames = await asyncio.to_thread(frames_of, final, self._resolved.shape, self._gates.origin)
        for kind, frame in (
            ("accepted", frames.accepted),
            ("rejected", frames.rejected),
            ("quarantine", frames.quarantined),
            ("lineage", frames.lineage),
        ):
            await asyncio.to_thread(staging.add, kind, frame)  # type: ignore[arg-type]  # the four kinds
        if self._resolved.captures:
            await asyncio.to_thread(self._stage_logprobs, final)
        if self._resolved.judging.ships:
            said = await asyncio.to_thread(judgements_frame, final, self._resolved.judging, self._calibration)
            await asyncio.to_thread(staging.add, "judgements", said)

    def _stage_logprobs(self, final: list[Verdict]) -> None:
        index = self._asker.journal.index
        self._staging.add("logprobs", logprobs_frame(final, index, self._resolved.specs))


def open_staging(resolved: Resolved, out: Path) -> Staging:
    """Where the records of a run wait for being published."""
    output = resolved.loaded.recipe.output
    return Staging(out, resolved.shape, rows_per_shard=output.rows_per_shard, test_share=output.test_share)
