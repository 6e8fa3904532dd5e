"""A run that does not move says why: what the watchdog tells, and when. Its clock is the test's."""

import asyncio
import json
from pathlib import Path

import synthgen
from synthgen.api import Options
from synthgen.asking.batch import Pace
from synthgen.pipeline.watchdog import Watchdog
from synthgen.recipe.model import Limits
from synthgen.types import JSONValue
from tests.batch_server import BatchLoopback
from tests.loopback import HANG, Loopback
from tests.runs import recipe, teacher
from tests.simulated import OneLane, simulate


class Watched:
    """A watchdog over one lane, with a clock to turn."""

    def __init__(self, lane: OneLane) -> None:
        self.now = 0.0
        self.rows = 0
        self.said: list[str] = []
        self.noted: list[dict[str, JSONValue]] = []
        self.watchdog = Watchdog(
            {"big": lane.queue},
            lambda: {"rows_unfinished": self.rows},
            quiet_s=60.0,
            say=self.said.append,
            note=self.noted.append,
            clock=lambda: self.now,
            wall=lambda: 0.0,
        )

    def at(self, now: float) -> int:
        """How often it has spoken by then."""
        self.now = now
        self.watchdog.check()
        return len(self.said)


def test_silence_is_told_once_it_is_long_and_each_time_it_has_doubled() -> None:
    async def story() -> list[int]:
        lane = OneLane(Limits(concurrency=1))
        watched = Watched(lane)
        await lane.enter(0)
        return [watched.at(at) for at in (1, 60, 62, 100, 121, 125, 181, 185, 300, 310)]

    # The send itself was seen at 1.
    assert simulate(story()) == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]


def test_a_row_that_ends_is_movement() -> None:
    async def story() -> list[int]:
        watched = Watched(OneLane(Limits()))
        spoken = []
        for at in (50, 100, 150, 200):
            watched.rows += 1
            spoken.append(watched.at(at))
        return [*spoken, watched.at(259), watched.at(260)]

    assert simulate(story()) == [0, 0, 0, 0, 0, 1]


def test_the_dump_names_what_is_in_flight_waiting_and_limited() -> None:
    async def story() -> tuple[str, dict[str, JSONValue]]:
        lane = OneLane(Limits(concurrency=1, rpm=60))
        watched = Watched(lane)
        await lane.enter(0)
        waiting = asyncio.ensure_future(lane.enter(0))
        await asyncio.sleep(90)
        watched.at(1)
        watched.at(61)
        waiting.cancel()
        return watched.said[0], watched.noted[0]

    said, noted = simulate(story())

    assert "nothing has moved for 60 s" in said
    for part in ("rows_unfinished 0", "waiting 1", "in_flight 1", "allowed 1", "oldest_in_flight_s 90.0"):
        assert part in said
    assert "requests per 60 s [1.0, 60]" in said
    assert json.loads(json.dumps(noted))["teachers"]["big"]["waiting"] == 1


def test_a_known_pause_is_one_line_a_minute_instead() -> None:
    async def story() -> list[str]:
        lane = OneLane(Limits())
        watched = Watched(lane)
        lane.failed(await lane.enter(0), "connect: refused \x1b[2J")
        resting = asyncio.ensure_future(lane.wait_outside(3000))
        await asyncio.sleep(0)
        for at in (1, 61, 70, 110, 121, 180):
            watched.at(at)
        resting.cancel()
        return watched.said

    said = simulate(story())

    assert len(said) == 2
    assert all("big: waits until" in line and "(3000 s)" in line for line in said)
    assert said[0].endswith("last trouble: 'connect: refused \\x1b[2J'")


def test_a_run_whose_server_hangs_says_what_it_waits_for(tmp_path: Path) -> None:
    said: list[str] = []
    with Loopback(script=[HANG]) as server:
        content = recipe(server, 2)
        content["teachers"]["qwen"]["timeout_s"] = 0.4
        options = Options(ask_only=True, quiet_s=0.1, say=said.append)

        report = synthgen.generate(content, tmp_path / "run", options=options)

    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    stalled = [event["stalled"] for event in events if "stalled" in event]
    assert report.exit_code == 0
    assert "in_flight 1" in said[0]
    assert stalled[0]["teachers"]["qwen"]["lanes"]["qwen"]["in_flight"] == 1


def test_a_live_teacher_that_hangs_is_told_of_also_while_anothers_batch_is_under_way(tmp_path: Path) -> None:
    said: list[str] = []
    with BatchLoopback(polls=1_000_000, script=[HANG]) as server:
        live = teacher(server, model="qwen3-quick", hf="Qwen/Qwen3-8B", timeout_s=0.6)
        batched = teacher(server, provider="openai", mode="batch")
        steps = [{"name": "answer", "prompt": "answer", "teacher": {"batched": 1, "live": 1}}]
        content = recipe(server, 12, teachers={"batched": batched, "live": live}, steps=steps)
        pace = Pace(poll_s=0.002, longest_poll_s=0.02, linger_s=0.02, settle_s=0.1)
        options = Options(ask_only=True, quiet_s=0.1, say=said.append, wait=False, pace=pace)

        report = synthgen.generate(content, tmp_path / "run", options=options)

    assert (report.exit_code, len(server.batches)) == (3, 1)
    assert "nothing has moved" in said[0]
    assert "in_flight 1" in said[0]
