"""A teacher that stands still holds up no other one: rows are asked ahead of those that wait for it, to the source's end.

The first teacher's server says when the other one comes back: once it has answered every row.
"""

import asyncio
import os
import signal
from pathlib import Path

import pytest

import synthgen
from synthgen.api import Options
from synthgen.pipeline.ahead import Standstill
from synthgen.pipeline.generate import generate
from synthgen.pipeline.progress import Progress
from synthgen.pipeline.report import Report
from synthgen.recipe.load import load_recipe
from synthgen.recipe.model import Limits
from tests.loopback import Act, Body, Loopback, refuse
from tests.runs import Recipe, cli, graded, published_bytes, questions, recipe, save, save_prompt, teacher
from tests.simulated import OneLane, simulate
from tests.test_task_count import Tasks

# With four places for each of two teachers 64 rows are on their way, and waves of 128 rows are open.
ROWS = 240
BUSY = refuse(503, retry_after_ms="50")


class Until:
    """A script: `act` until the other server has given `count` answers."""

    def __init__(self, other: Loopback, count: int, act: Act = BUSY) -> None:
        self._other, self._count, self._act = other, count, act
        self.refused = 0

    def __call__(self, _number: int, _body: Body) -> Act | None:
        if len(self._other.payments) >= self._count:
            return None
        self.refused += 1
        return self._act


def in_steps(folder: Path, *servers: Loopback, rows: int = ROWS, **changes: object) -> Recipe:
    """Each step asks a teacher of its own (`a`, `b`, ...) to rewrite what the one before wrote."""
    names = "abc"[: len(servers)]
    steps, of = [], "instruction"
    for name in names:
        written = "response" if name == names[-1] else f"draft_{name}"
        path = save_prompt(
            folder / f"{name}.yaml",
            f"Write: {{{{ {of} }}}}",
            reply={"text": written},
            inputs=[of],
            outputs=[written],
        )
        steps.append({"name": f"write_{name}", "prompt": str(path), "teacher": name})
        of = written
    teachers = {
        name: teacher(server, pool=name, give_up_after_s=120, limits={"concurrency": 4})
        for name, server in zip(names, servers, strict=True)
    }
    return recipe(servers[0], rows, **{"teachers": teachers, "steps": steps, "wave": 16, **changes})


def run(content: Recipe, out: Path, **options: object) -> Report:
    return synthgen.generate(content, out, options=Options(**{"still_s": 0.02, **options}))  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(("status", "wave"), [(503, 16), (429, 512)])
def test_the_first_step_is_asked_to_the_end_while_the_second_teacher_refuses(
    tmp_path: Path, status: int, wave: int
) -> None:
    with Loopback() as a:
        until = Until(a, ROWS, refuse(status, retry_after_ms="50"))
        with Loopback(script=until) as b:
            report = run(in_steps(tmp_path, a, b, wave=wave), tmp_path / "run")

    assert report.counts["accepted"] == ROWS
    assert until.refused
    assert (len(a.payments), len(b.payments), a.paid_twice, b.paid_twice) == (ROWS, ROWS, 0, 0)


def test_the_first_step_is_asked_to_the_end_while_the_second_teacher_hangs(tmp_path: Path) -> None:
    with Loopback(hold=10**9) as b:

        def release(number: int, _body: Body) -> None:
            if number == ROWS:
                b.release()

        with Loopback(script=release) as a:
            report = run(in_steps(tmp_path, a, b), tmp_path / "run")

    assert report.counts["accepted"] == ROWS
    assert b.max_in_flight == 4


@pytest.mark.parametrize("second", ["b", "a"], ids=["each its own teacher", "one teacher for both"])
def test_two_steps_are_asked_to_the_end_while_the_third_teacher_refuses(tmp_path: Path, second: str) -> None:
    with Loopback() as a, Loopback() as b:
        until = Until(b, 200) if second == "b" else Until(a, 400)
        with Loopback(script=until) as c:
            content = in_steps(tmp_path, a, b, c, rows=200)
            content["steps"][1]["teacher"] = second
            # Longer than `a` and `b` are ever silent.
            report = run(content, tmp_path / "run", still_s=1.0)

    assert report.counts["accepted"] == 200
    assert until.refused
    assert (a.paid_twice, b.paid_twice, c.paid_twice) == (0, 0, 0)


def test_answers_are_asked_to_the_end_while_the_judge_refuses(tmp_path: Path) -> None:
    with Loopback() as a:
        until = Until(a, ROWS)
        with Loopback(script=until, reply=graded) as judge:
            content = in_steps(tmp_path, a)
            content["teachers"]["judge"] = teacher(judge, pool="j", give_up_after_s=120)
            content["refine"]["judge"] = {"teacher": "judge", "prompt": "judge_helpfulness", "keep": ">= 1"}
            report = run(content, tmp_path / "run")

    assert report.counts["accepted"] == ROWS
    assert until.refused


def test_rows_asked_ahead_are_numbered_and_sampled_as_ever(tmp_path: Path) -> None:
    source = {"inline": questions(75) * 2}

    def content(a: Loopback, b: Loopback) -> Recipe:
        made = in_steps(tmp_path, a, b, source=source)
        made["steps"][0]["samples"] = 2
        return made

    with Loopback() as a, Loopback(script=Until(a, 300)) as b:
        run(content(a, b), tmp_path / "still")
    with Loopback() as other, Loopback() as another:
        run(content(other, another), tmp_path / "healthy")

    assert published_bytes(tmp_path / "still") == published_bytes(tmp_path / "healthy")
    assert (len(a.payments), len(b.payments)) == (len(other.payments), len(another.payments)) == (300, 300)


def test_the_same_command_buys_nothing_again_that_was_asked_ahead(tmp_path: Path) -> None:
    broken = {"on": True}
    with Loopback() as a, Loopback(script=lambda _n, _b: BUSY if broken["on"] else None) as b:
        content = in_steps(tmp_path, a, b)
        content["teachers"]["b"]["give_up_after_s"] = 1
        stopped = run(content, tmp_path / "run")
        broken["on"] = False
        again = run(content, tmp_path / "run")

    assert (stopped.exit_code, stopped.counts["pending"]) == (3, ROWS)
    assert (again.exit_code, again.counts["accepted"]) == (0, ROWS)
    assert (len(a.payments), len(b.payments)) == (ROWS, ROWS)


@pytest.mark.parametrize("budget_usd", [None, 1.0, 0.001], ids=["no cap", "enough", "not enough for all"])
def test_nothing_is_asked_ahead_where_the_cap_may_not_suffice(
    tmp_path: Path, budget_usd: float | None
) -> None:
    with Loopback() as a, Loopback(script=lambda _n, _b: BUSY) as b:
        content = in_steps(tmp_path, a, b, rows=200)
        content["teachers"]["a"]["price"] = {"input": 0.01, "output": 0.1}
        content["teachers"]["b"]["give_up_after_s"] = 1
        content |= {"budget_usd": budget_usd} if budget_usd else {}
        said: list[str] = []
        run(content, tmp_path / "run", say=said.append)

    ahead = any("b: no answer for 0.02 s" in line for line in said)
    assert ahead == (budget_usd != 0.001)


def test_rows_asked_ahead_are_no_tasks_that_wait(tmp_path: Path) -> None:
    tasks = Tasks()

    async def story(content: Recipe) -> Report:
        asyncio.get_running_loop().set_task_factory(tasks)
        path = save(tmp_path / "r.yaml", content)
        return await generate(load_recipe(path), tmp_path / "run", Options(still_s=0.02))

    with Loopback() as a, Loopback(script=Until(a, ROWS)) as b:
        report = asyncio.run(story(in_steps(tmp_path, a, b)))

    assert report.counts["accepted"] == ROWS
    # 64 rows on their way, two questions ahead for each of the four places of a teacher, and the run's own.
    assert tasks.most <= 64 + 2 * 4 + 12


def test_who_says_nothing_though_somebody_waits_stands_still() -> None:
    async def story() -> list[bool]:
        lane, now = OneLane(Limits(concurrency=1)), [0.0]
        standstill = Standstill({"big": lane.queue}, 15.0, lambda: now[0])

        def at(seconds: float) -> bool:
            now[0] = seconds
            return bool(standstill.look())

        seen = [at(100)]  # nobody waits
        place = await lane.enter(0)
        seen += [at(101), at(116)]
        lane.leave(place)
        place = await lane.enter(0)
        seen += [at(117), at(131), at(132)]
        return seen

    assert simulate(story()) == [False, False, True, False, False, True]


def test_an_interrupt_does_not_walk_through_what_was_asked_ahead(tmp_path: Path) -> None:
    """A million rows take minutes; the next run finds their answers."""
    progress = Progress()

    def interrupt(number: int, _body: Body) -> None:
        if number == ROWS:
            os.kill(os.getpid(), signal.SIGINT)

    with Loopback(script=lambda *_: BUSY) as b:
        with Loopback(script=interrupt) as a:
            content = in_steps(tmp_path, a, b)
            first = run(content, tmp_path / "run", handle_signals=True, progress=progress)
        assert (first.exit_code, first.counts["pending"]) == (130, ROWS)
        assert progress.rows_admitted < ROWS

    with Loopback(port=a.port) as again, Loopback(port=b.port) as b:
        report = run(content, tmp_path / "run")

    assert report.counts["accepted"] == ROWS
    assert (len(again.payments), len(b.payments)) == (0, ROWS)


def test_rows_asked_ahead_are_told_while_the_run_goes_on_at_its_end_and_by_show(tmp_path: Path) -> None:
    progress, seen = Progress(), list[tuple[int, tuple[str, ...]]]()

    def refuses(_number: int, _body: Body) -> Act:
        seen.append((progress.rows_ahead, progress.still))
        return BUSY

    def interrupts(number: int, _body: Body) -> None:
        if number == ROWS:
            os.kill(os.getpid(), signal.SIGINT)

    with Loopback(script=refuses) as b, Loopback(script=interrupts) as a:
        content = in_steps(tmp_path, a, b)
        stopped = run(content, tmp_path / "run", handle_signals=True, progress=progress)
    ahead = ROWS - progress.rows_admitted
    shown = cli("show", tmp_path / "run", "--samples", 0)
    with Loopback(port=a.port) as a, Loopback(port=b.port) as b:
        again = run(content, tmp_path / "run")

    assert any(rows > 0 and still == ("b",) for rows, still in seen)
    assert (stopped.rows_ahead, stopped.as_json()["rows_ahead"]) == (ahead, ahead)
    assert f"{ahead} further rows were asked ahead of their turn" in shown.out
    assert again.rows_ahead == 0
    assert synthgen.show(tmp_path / "run").as_json()["rows_ahead"] == 0
