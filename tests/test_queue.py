"""Who is sent next, and down which lane: turns, shares, the retry budget, lanes that die. Time is simulated."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.asking.lanes import Lane, LaneStopped, Place, Queue, Turn
from synthgen.recipe.model import Limits
from synthgen.types import Usage
from tests.simulated import START, OneLane, now, simulate

Request = tuple[str, Turn, int]  # step, turn, tokens


async def order_of(lane: OneLane, requests: list[Request], *, hold_s: float = 1.0) -> list[Request]:
    """All come at once while the lane is full; the order in which they are sent."""
    sent: list[Request] = []
    first = await lane.enter(0)

    async def one(request: Request) -> None:
        step, turn, tokens = request
        place = await lane.enter(tokens, step=step, turn=turn)
        sent.append(request)
        await asyncio.sleep(hold_s)
        lane.leave(place, Usage(tokens))

    async with asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(one(request))
        await asyncio.sleep(0)
        lane.leave(first)
    return sent


def order(requests: list[Request]) -> list[Request]:
    """Their order through a lane with one place."""

    async def story() -> list[Request]:
        return await order_of(OneLane(Limits(concurrency=1)), requests)

    return simulate(story())


def of(step: str, count: int, tokens: int = 10, turn: Turn = "new") -> list[Request]:
    return [(step, turn, tokens)] * count


# Turns


@pytest.mark.parametrize("turn", ["gated", "retry"])
def test_what_was_sent_before_goes_first_but_takes_only_every_second_turn(turn: Turn) -> None:
    sent_in = order(of("a", 6) + of("a", 3, turn=turn))

    assert [sent for _, sent, _ in sent_in] == [turn, "new"] * 3 + ["new"] * 3


def test_retries_follow_one_another_where_nothing_new_waits() -> None:
    assert len(order(of("a", 5, turn="retry"))) == 5


# Shares


def test_a_long_first_step_starves_neither_a_later_one_nor_the_judge() -> None:
    sent_in = order(of("first", 200) + of("second", 5) + of("judge", 5))

    assert Counter(step for step, _, _ in sent_in[:15]) == {"first": 5, "second": 5, "judge": 5}


def test_steps_share_by_tokens_not_by_requests() -> None:
    sent_in = order(of("long", 20, 1000) + of("short", 200, 100))

    tokens = Counter[str]()
    for step, _, size in sent_in[:110]:
        tokens[step] += size
    assert tokens["long"] == pytest.approx(tokens["short"], rel=0.3)


def test_a_step_that_comes_late_claims_nothing_for_the_time_it_was_away() -> None:
    async def story() -> list[str]:
        lane = OneLane(Limits(concurrency=1))
        await order_of(lane, of("old", 50))
        return [step for step, _, _ in await order_of(lane, of("old", 20) + of("late", 20))]

    assert 4 <= simulate(story())[:10].count("late") <= 6


def test_shares_follow_what_requests_turn_out_to_take() -> None:
    async def story() -> Counter[str]:
        lane, taken = OneLane(Limits(concurrency=4)), Counter[str]()

        async def one(step: str, max_tokens: int) -> None:
            while now() < START + 300:
                place = await lane.enter(0, max_tokens, step=step)
                await asyncio.sleep(1)
                taken[step] += 100
                lane.leave(place, Usage(0, output_tokens=100))

        cautious = [one("cautious", 8000) for _ in range(8)]
        exact = [one("exact", 100) for _ in range(8)]
        await asyncio.gather(*cautious, *exact)
        return taken

    taken = simulate(story())

    assert taken["cautious"] == pytest.approx(taken["exact"], rel=0.3)


@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "judge"]),
            st.sampled_from(["new", "gated", "retry"]),
            st.integers(0, 2000),
        ),
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_everybody_is_sent_at_last(requests: list[Request]) -> None:
    async def story() -> list[Request]:
        return await order_of(OneLane(Limits(concurrency=3, tpm=1000, rpm=100)), requests)

    assert sorted(simulate(story())) == sorted(requests)


# The retry budget


def test_retries_beyond_a_fifth_of_the_last_minute_wait_and_then_go() -> None:
    async def story() -> list[tuple[float, Turn]]:
        lane, sent = OneLane(Limits(concurrency=64)), list[tuple[float, Turn]]()

        async def one(turn: Turn) -> None:
            place = await lane.enter(1, turn=turn)
            sent.append((now() - START, turn))
            lane.leave(place)

        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(one("new"))
            await asyncio.sleep(0)
            for _ in range(500):
                group.create_task(one("retry"))
        return sent

    sent = simulate(story())

    retried = [at for at, turn in sent if turn == "retry"]
    assert len([at for at in retried if at < 1]) == 250  # of 1250
    assert len([at for at in retried if at <= 122]) == 450
    assert len(retried) == 500


def test_a_small_run_may_retry_all_it_has() -> None:
    async def story() -> float:
        lane = OneLane(Limits(concurrency=64))
        turns: list[Turn] = ["new", "retry", "retry", "retry"]
        for turn in turns:
            for _ in range(30):
                lane.leave(await lane.enter(1, turn=turn))
        return now()

    assert simulate(story()) == START


def test_retries_above_the_budget_hold_up_nothing_new() -> None:
    async def story() -> float:
        lane = OneLane(Limits(concurrency=1))
        for _ in range(100):
            lane.leave(await lane.enter(1, turn="retry"))
        over = asyncio.ensure_future(lane.enter(1, turn="retry"))
        await asyncio.sleep(0)
        await lane.enter(1)
        at = now()
        over.cancel()
        return at

    assert simulate(story()) == START


# Several lanes


class Pool:
    """Lanes of one queue, in front of servers that answer after their latency while they are up."""

    def __init__(self, latencies_s: list[float], **limits: int) -> None:
        self.latency_s = {f"lane{n}": latency_s for n, latency_s in enumerate(latencies_s)}
        self.lanes = {name: Lane(name, Limits(**limits), clock=now) for name in self.latency_s}
        self.queue = Queue(list(self.lanes.values()))
        self.down: set[str] = set()
        self.sent: list[tuple[float, str]] = []
        self.answered = Counter[str]()

    async def ask(self) -> str:
        """The lane that answered."""
        turn: Turn = "new"
        avoid: Lane | None = None
        while True:
            lane, place = await self.queue.enter(10, turn=turn, avoid=avoid)
            self.sent.append((now() - START, lane.name))
            await asyncio.sleep(self.latency_s[lane.name])
            if lane.name not in self.down:
                lane.succeeded(place)
                self.queue.leave(lane, place)
                self.answered[lane.name] += 1
                return lane.name
            lane.failed(place)
            self.queue.leave(lane, place)
            turn, avoid = "gated", lane
            await self.queue.wait_outside(1)

    async def ask_many(self, count: int) -> list[str]:
        return await asyncio.gather(*(self.ask() for _ in range(count)))


def test_a_pool_gives_each_server_what_it_can_do() -> None:
    async def story() -> Counter[str]:
        pool = Pool([0.1, 1.0], concurrency=4)
        await pool.ask_many(440)
        return pool.answered

    answered = simulate(story())

    assert answered["lane0"] == pytest.approx(10 * answered["lane1"], rel=0.15)


def test_what_fits_the_fast_server_does_not_go_to_the_slow_one() -> None:
    async def story() -> Counter[str]:
        pool = Pool([0.1, 1.0], concurrency=8)
        await pool.ask_many(16)
        pool.answered.clear()
        for _ in range(20):
            await pool.ask_many(2)
        return pool.answered

    assert simulate(story()) == {"lane0": 40}


def test_servers_alike_get_alike() -> None:
    async def story() -> Counter[str]:
        pool = Pool([0.5, 0.5, 0.5])
        await pool.ask_many(600)
        return pool.answered

    assert min(simulate(story()).values()) >= 150


def test_limits_hold_for_each_server_of_a_pool() -> None:
    async def story() -> float:
        await Pool([0.1, 0.1], concurrency=64, rpm=600).ask_many(1200)
        return now() - START

    assert simulate(story()) == pytest.approx(60, rel=0.05)


def test_a_request_that_failed_goes_to_another_server() -> None:
    async def story() -> list[str]:
        pool = Pool([0.1, 0.1], concurrency=1)
        pool.down.add("lane0")
        await pool.ask()
        return [name for _, name in pool.sent]

    assert simulate(story()) == ["lane0", "lane1"]


def test_a_dead_server_is_set_aside_probed_and_comes_back() -> None:
    async def story() -> tuple[list[float], int, float]:
        pool = Pool([0.1, 0.1], concurrency=4)
        pool.down.add("lane0")

        async def load() -> None:
            while now() < START + 100:
                await pool.ask()

        load_ = asyncio.gather(*(load() for _ in range(8)))
        await asyncio.sleep(60)
        tried = [at for at, name in pool.sent if name == "lane0"]
        pool.down.clear()
        await load_
        back_at = min(at for at, name in pool.sent if name == "lane0" and at > 60)
        return tried, pool.answered["lane0"], back_at

    tried, answered, back_at = simulate(story())

    assert len(tried) <= 12 + 7  # until it was set aside, then at 1, 3, 7, 15, 30, 45 s
    assert back_at <= 60 + 16
    assert answered >= 4 * 10 * 20


@pytest.mark.parametrize(("turn", "set_aside"), [("new", True), ("gated", True), ("retry", False)])
def test_requests_that_fail_again_and_again_set_no_lane_aside(turn: Turn, set_aside: bool) -> None:
    async def story() -> bool:
        lane = OneLane(Limits(concurrency=64))
        for _ in range(10):
            place = await lane.enter(1, turn=turn)
            lane.failed(place)
            lane.leave(place)
        return lane.probing

    assert simulate(story()) == set_aside


def test_a_pool_without_any_server_waits_and_loses_nothing() -> None:
    async def story() -> list[str]:
        pool = Pool([0.1, 0.1], concurrency=4)
        pool.down.update(pool.lanes)
        asked = asyncio.ensure_future(pool.ask_many(40))
        await asyncio.sleep(300)
        pool.down.clear()
        return await asked

    assert len(simulate(story())) == 40


def test_a_stopped_lane_leaves_the_others_and_the_last_one_ends_the_queue() -> None:
    async def story() -> tuple[str, bool, str]:
        pool = Pool([0.1, 0.1], concurrency=1)
        pool.queue.stop(pool.lanes["lane0"], "auth", "bad key")
        answered, open_still = await pool.ask(), pool.queue.stopped is None
        full = asyncio.ensure_future(pool.ask_many(3))
        await asyncio.sleep(0)
        pool.queue.stop(pool.lanes["lane1"], "quota", "no credit")
        try:
            await full
        except LaneStopped as stop:
            return answered, open_still, stop.reason
        return answered, open_still, "answered"

    assert simulate(story()) == ("lane1", True, "quota")


COMINGS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "judge"]),
        st.sampled_from(["new", "gated", "retry"]),
        st.integers(0, 200),  # tokens
        st.floats(0, 3),  # when it comes
        st.none() | st.floats(0, 3),  # after how long it is cancelled
    ),
    max_size=40,
)


@given(comings=COMINGS, servers=st.integers(1, 3), concurrency=st.integers(1, 4), rpm=st.integers(30, 600))
@settings(max_examples=60, deadline=None)
def test_whoever_is_cancelled_the_others_are_sent_and_no_place_is_lost(
    comings: list[tuple[str, Turn, int, float, float | None]], servers: int, concurrency: int, rpm: int
) -> None:
    async def story() -> tuple[int, int, int]:
        pool = Pool([0.5] * servers, concurrency=concurrency, rpm=rpm, tpm=3000)
        lost = 0

        async def send(step: str, turn: Turn, tokens: int) -> None:
            lane, place = await pool.queue.enter(tokens, step=step, turn=turn)
            try:
                await asyncio.sleep(0.5)
            finally:
                pool.queue.leave(lane, place)

        async def one(step: str, turn: Turn, tokens: int, at: float, until: float | None) -> None:
            nonlocal lost
            await asyncio.sleep(at)
            task = asyncio.ensure_future(send(step, turn, tokens))
            await asyncio.wait([task], timeout=3600 if until is None else until)
            lost += until is None and not task.done()
            task.cancel()
            await asyncio.wait([task])

        await asyncio.gather(*(one(*coming) for coming in comings))
        return lost, sum(lane.counts.in_flight for lane in pool.lanes.values()), pool.queue.waiting

    assert simulate(story()) == (0, 0, 0)


def test_short_waits_end_on_the_loop_that_runs_use() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def story() -> int:
        lane = Lane("big", Limits(rps=2000))
        queue = Queue([lane])

        async def one() -> None:
            place = await queue.enter(1)
            await asyncio.sleep(0)
            queue.leave(*place)

        await asyncio.gather(*(one() for _ in range(80)))
        return lane.counts.sent

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story()) == 80


def test_place_is_compared_by_identity() -> None:
    assert Place(1, 1) != Place(1, 1)
