"""How many asyncio tasks a run has while many rows wait: a task holds a row's memory, so they follow the limit."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from synthgen.pipeline.generate import Options, generate
from synthgen.pipeline.report import Report
from synthgen.recipe.load import load_recipe
from tests.loopback import Loopback
from tests.runs import recipe, save, teacher

IN_FLIGHT = 64


class Tasks:
    """A task factory that knows how many have not ended, and how many that were at most."""

    def __init__(self) -> None:
        self.alive = self.most = self.made = 0

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        self.alive += 1
        self.made += 1
        self.most = max(self.most, self.alive)
        return asyncio.Task(self._until_its_end(coro), loop=loop, **more)

    async def _until_its_end(self, coro: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coro
        finally:
            self.alive -= 1


@pytest.mark.parametrize("ask_only", [True, False])
def test_while_many_rows_wait_there_are_at_most_two_tasks_for_each_place(
    tmp_path: Path, ask_only: bool
) -> None:
    tasks = Tasks()

    async def run(path: Path) -> Report:
        asyncio.get_running_loop().set_task_factory(tasks)
        return await generate(load_recipe(path), tmp_path / "run", Options(ask_only=ask_only))

    with Loopback(latency_s=0.01) as server:
        asked = teacher(server, limits={"concurrency": IN_FLIGHT})
        path = save(tmp_path / "r.yaml", recipe(server, 500, teachers={"qwen": asked}))
        report = asyncio.run(run(path))

    assert report.counts["accepted"] == 500
    assert IN_FLIGHT < tasks.most <= tasks.made <= 2 * IN_FLIGHT + 16  # one row after another
