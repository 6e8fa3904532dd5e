"""Lanes: limits that hold in every window, one queue, one timer, and no place lost. Time is simulated."""

import asyncio
from collections.abc import Coroutine
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synthgen.asking.lanes import Bucket, LaneStopped, Place
from synthgen.asking.outcome import SeenLimit
from synthgen.recipe.model import Limits
from synthgen.types import Usage
from tests.simulated import OneLane, Simulation, now, simulate


def lane_of(concurrency: int | None = 10, **limits: int) -> OneLane:
    return OneLane(Limits(concurrency=concurrency, **limits))


async def sent(lane: OneLane) -> Place:
    """A request that has been sent and answered; only its outcome is not yet known to the lane."""
    place = await lane.enter(0)
    lane.leave(place)
    return place


def most_in_a_minute(passed: list[tuple[float, float]]) -> float:
    """The largest sum of amounts in any 60 s, the end left out."""
    return max(sum(amount for at, amount in passed if start <= at < start + 60 - 1e-6) for start, _ in passed)


async def enter_all(
    lane: OneLane, arrivals: list[tuple[float, int]], hold_s: float
) -> list[tuple[float, float]]:
    """Requests that come after a gap and hold their place; when each passed, with its tokens."""
    passed: list[tuple[float, float]] = []

    async def one(tokens: int) -> None:
        place = await lane.enter(tokens)
        passed.append((now(), tokens))
        await asyncio.sleep(hold_s)
        lane.leave(place)

    async with asyncio.TaskGroup() as group:
        for gap_s, tokens in arrivals:
            await asyncio.sleep(gap_s)
            group.create_task(one(tokens))
    return passed


GAPS = st.one_of(st.just(0.0), st.floats(0, 90))


# Limits


@given(
    rpm=st.integers(1, 250),
    floods=st.lists(st.tuples(GAPS, st.integers(1, 200)), min_size=1, max_size=4),
    hold_s=st.floats(0, 5),
)
@example(rpm=200, floods=[(0.0, 450)], hold_s=0.0)
@settings(max_examples=100, deadline=None)
def test_no_minute_holds_more_than_rpm_requests(
    rpm: int, floods: list[tuple[float, int]], hold_s: float
) -> None:
    arrivals = [
        (gap_s if first else 0.0, 0) for gap_s, size in floods for first in [True] + [False] * (size - 1)
    ]

    async def story() -> list[tuple[float, float]]:
        return await enter_all(lane_of(64, rpm=rpm), arrivals, hold_s)

    passed = simulate(story())

    assert len(passed) == len(arrivals)
    assert most_in_a_minute([(at, 1) for at, _ in passed]) <= rpm


@given(tpm=st.integers(10, 50_000), shares=st.lists(st.floats(0, 1), min_size=1, max_size=60), gaps=st.data())
@settings(max_examples=100, deadline=None)
def test_no_minute_holds_more_than_tpm_tokens(tpm: int, shares: list[float], gaps: st.DataObject) -> None:
    arrivals = [(gaps.draw(GAPS), int(share * tpm / 60)) for share in shares]

    async def story() -> list[tuple[float, float]]:
        return await enter_all(lane_of(64, tpm=tpm), arrivals, 1.0)

    assert most_in_a_minute(simulate(story())) <= tpm


def test_a_full_queue_uses_the_whole_rate() -> None:
    async def story() -> float:
        started = now()
        await enter_all(lane_of(64, rpm=600), [(0.0, 0)] * 1200, 0.0)
        return now() - started

    assert simulate(story()) == pytest.approx(120, rel=0.03)


def test_a_request_larger_than_the_burst_passes_and_is_owed() -> None:
    async def story() -> list[tuple[float, float]]:
        return await enter_all(lane_of(tpm=1000), [(0.0, 500), (0.0, 10)], 0.0)

    (first, _), (second, _) = simulate(story())

    assert first == 1000.0
    assert second - first == pytest.approx((500 - 1000 / 60 + 10) / ((1001 - 1000 / 60) / 60))


def test_tokens_that_were_not_used_come_back() -> None:
    async def story() -> float:
        lane = lane_of(tpm=1000)
        lane.leave(await lane.enter(500), Usage(5))
        await lane.enter(10)
        return now()

    assert simulate(story()) == pytest.approx(1000.0, abs=1e-3)


def test_tokens_used_beyond_the_reservation_are_owed() -> None:
    async def story() -> float:
        lane = lane_of(tpm=1000)
        lane.leave(await lane.enter(0), Usage(1001))
        await lane.enter(10)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx((1001 - 1000 / 60 + 10) / ((1001 - 1000 / 60) / 60))


@given(per_minute=st.integers(1, 10_000), amounts=st.lists(st.integers(0, 20_000), max_size=30))
@settings(deadline=None)
def test_a_bucket_always_opens_again(per_minute: int, amounts: list[int]) -> None:
    bucket, at = Bucket(per_minute, 60.0, 0.0), 0.0
    for amount in amounts:
        at += bucket.wait_s(amount, at)
        assert bucket.wait_s(amount, at) == pytest.approx(0, abs=1e-3)
        bucket.take(amount)


# The queue


def test_requests_pass_in_order_of_arrival() -> None:
    async def story() -> list[float]:
        return [
            tokens for _, tokens in await enter_all(lane_of(2, rpm=60), [(0.0, n) for n in range(20)], 0.5)
        ]

    assert simulate(story()) == list(range(20))


def test_a_request_too_large_for_now_holds_up_no_small_one() -> None:
    async def story() -> list[float]:
        passed = await enter_all(lane_of(tpm=1000), [(0.0, 100), (0.0, 900), (0.0, 1)], 0.0)
        return [tokens for _, tokens in passed]

    assert simulate(story()) == [100, 1, 900]


@given(others=st.lists(st.integers(1, 16), min_size=40, max_size=60), at=st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_a_large_request_is_overtaken_by_eight_at_most(others: list[int], at: int) -> None:
    arrivals = [(0.0, tokens) for tokens in [*others[:at], 900, *others[at:]]]

    async def story() -> list[float]:
        return [tokens for _, tokens in await enter_all(lane_of(64, tpm=1000), arrivals, 0.0)]

    assert at <= simulate(story()).index(900) <= at + 8


def test_never_more_than_concurrency_are_in_flight() -> None:
    async def story() -> int:
        lane, most = lane_of(3), 0

        async def one() -> None:
            nonlocal most
            place = await lane.enter(0)
            most = max(most, lane.counts.in_flight)
            await asyncio.sleep(1)
            lane.leave(place)

        await asyncio.gather(*(one() for _ in range(20)))
        return most

    assert simulate(story()) == 3


def test_waiting_costs_one_timer_and_no_polling() -> None:
    async def story() -> int:
        await enter_all(lane_of(64, rpm=60), [(0.0, 0)] * 50, 0.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Simulation)
        return loop.simulated.jumps

    assert simulate(story()) <= 2 * 50


# Pauses


async def replies(lane: OneLane, *, answers: int, limited: int, wait_s: float = 30.0) -> None:
    places = [await sent(lane) for _ in range(answers + limited)]
    for place in places[:answers]:
        lane.succeeded(place)
    for place in places[answers:]:
        lane.was_limited(place, wait_s)


@pytest.mark.parametrize(
    ("answers", "limited", "pause_s"), [(16, 16, 0.0), (15, 17, 30.0), (0, 31, 0.0), (0, 32, 30.0)]
)
def test_a_lane_pauses_when_over_half_of_its_last_32_replies_were_429(
    answers: int, limited: int, pause_s: float
) -> None:
    async def story() -> float:
        lane = lane_of()
        await replies(lane, answers=answers, limited=limited)
        await lane.enter(0)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(pause_s)


def test_broken_replies_count_among_the_last_32() -> None:
    async def story() -> float:
        lane = lane_of()
        for _ in range(16):
            lane.failed(await sent(lane))
            await replies(lane, answers=0, limited=1)
        await lane.enter(0)
        return now()

    assert simulate(story()) == 1000.0


def test_a_lane_pauses_when_its_server_says_that_nothing_remains() -> None:
    async def story() -> float:
        lane = lane_of()
        lane.was_limited(await sent(lane), 7.0, exhausted=True)
        await lane.enter(0)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(7.0)


def test_a_later_shorter_pause_does_not_end_a_longer_one() -> None:
    async def story() -> float:
        lane = lane_of()
        first, second = await sent(lane), await sent(lane)
        lane.was_limited(first, 7.0, exhausted=True)
        lane.was_limited(second, 1.0, exhausted=True)
        await lane.enter(0)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(7.0)


def test_silence_is_counted_from_the_first_trouble_and_ends_with_an_answer() -> None:
    async def story() -> list[float]:
        lane, seen = lane_of(), []
        await asyncio.sleep(3600)
        seen.append(lane.silent_s)
        lane.failed(await sent(lane))
        await asyncio.sleep(10)
        lane.failed(await sent(lane))
        seen.append(lane.silent_s)
        lane.succeeded(await sent(lane))
        seen.append(lane.silent_s)
        return seen

    assert simulate(story()) == [0.0, 10.0, 0.0]


# The end


async def outcome_of(waiter: Coroutine[None, None, object]) -> str:
    try:
        await waiter
    except LaneStopped as stop:
        return f"{stop.reason} at {now() - 1000.0:g}"
    return f"passed at {now() - 1000.0:g}"


def test_a_stop_sends_all_waiters_away_at_once() -> None:
    async def story() -> list[str]:
        lane = lane_of(1, rpm=1)
        await lane.enter(0)
        waiting = [asyncio.ensure_future(outcome_of(lane.enter(0))) for _ in range(3)]
        waiting.append(asyncio.ensure_future(outcome_of(lane.wait_outside(900))))
        await asyncio.sleep(5)
        lane.stop("quota", "no credit")
        return [*await asyncio.gather(*waiting), await outcome_of(lane.enter(0))]

    assert simulate(story()) == ["quota at 5"] * 5


def test_an_end_leaves_the_endpoint_unblamed() -> None:
    async def story() -> tuple[str, bool]:
        lane = lane_of()
        lane.end("interrupted", "interrupted")
        return await outcome_of(lane.enter(0)), lane.stopped is None

    assert simulate(story()) == ("interrupted at 0", True)


def test_a_stopped_lane_does_not_collect_the_frames_of_those_it_sends_away() -> None:
    async def story() -> int:
        lane = lane_of()
        lane.stop("auth", "no")
        for _ in range(100):
            await outcome_of(lane.enter(0))
        with pytest.raises(LaneStopped) as caught:
            await lane.enter(0)
        return len(caught.traceback)

    assert simulate(story()) < 10


def test_waiting_outside_holds_no_place() -> None:
    async def story() -> str:
        lane = lane_of(1)
        waiting = asyncio.ensure_future(outcome_of(lane.wait_outside(60)))
        await asyncio.sleep(0)
        await sent(lane)
        return await waiting

    assert simulate(story()) == "passed at 60"


def test_a_cancelled_waiter_leaves_the_queue_moving() -> None:
    async def story() -> tuple[str, int]:
        lane = lane_of(tpm=1000)
        await lane.enter(10)
        blocked = asyncio.ensure_future(lane.enter(1000))
        small = asyncio.ensure_future(outcome_of(lane.enter(0)))
        await asyncio.sleep(0)
        blocked.cancel()
        return await small, lane.counts.in_flight

    assert simulate(story()) == ("passed at 0", 2)


def test_a_request_cancelled_as_it_is_admitted_gives_everything_back() -> None:
    async def story() -> tuple[int, int, str]:
        lane = lane_of(1, rpm=60, tpm=1000)
        first = await lane.enter(0)
        await asyncio.sleep(1)
        admitted = asyncio.ensure_future(lane.enter(15))
        await asyncio.sleep(0)
        lane.leave(first)  # admits it
        admitted.cancel()
        with pytest.raises(asyncio.CancelledError):
            await admitted
        return lane.counts.in_flight, lane.counts.sent, await outcome_of(lane.enter(15))

    assert simulate(story()) == (0, 1, "passed at 1")


def test_who_comes_after_a_cancelled_one_is_let_in() -> None:
    async def story() -> str:
        lane = lane_of(1)
        first = await lane.enter(0)
        cancelled = asyncio.ensure_future(lane.enter(0))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        lane.leave(first)
        return await outcome_of(asyncio.wait_for(lane.enter(0), 1))

    assert simulate(story()).startswith("passed")


@given(plan=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3), st.integers(0, 50)), max_size=40))
@settings(max_examples=100, deadline=None)
def test_no_cancellation_leaks_a_place(plan: list[tuple[float, float, int]]) -> None:
    async def story() -> tuple[int, str]:
        lane = lane_of(2, rpm=120, tpm=3000)

        async def one(start_s: float, tokens: int) -> None:
            await asyncio.sleep(start_s)
            place = await lane.enter(tokens)
            try:
                await asyncio.sleep(0.5)
            finally:
                lane.leave(place)

        async def cancelled(start_s: float, after_s: float, tokens: int) -> None:
            task = asyncio.ensure_future(one(start_s, tokens))
            await asyncio.wait([task], timeout=after_s)
            task.cancel()
            await asyncio.wait([task])

        await asyncio.gather(*(cancelled(*step) for step in plan))
        in_flight = lane.counts.in_flight
        await asyncio.sleep(120)
        return in_flight, await outcome_of(asyncio.wait_for(lane.enter(0), 1))

    in_flight, last = simulate(story())

    assert in_flight == 0
    assert last.startswith("passed")


# After a pause


def test_a_pause_ends_with_one_probe_and_a_ramp() -> None:
    async def story() -> list[tuple[float, int]]:
        lane, seen = lane_of(20), []
        lane.was_limited(await sent(lane), 10.0, exhausted=True)
        entered: list[Place] = []

        async def one() -> None:
            entered.append(await lane.enter(0))

        waiting = [asyncio.ensure_future(one()) for _ in range(20)]
        for at in (9.9, 10.1, 15.0):
            await asyncio.sleep(1000 + at - now())
            seen.append((at, len(entered)))
        lane.succeeded(entered[0])
        lane.leave(entered[0])
        for at in (16.05, 17.1):
            await asyncio.sleep(1000 + at - now())
            seen.append((at, len(entered)))
        for task in waiting:
            task.cancel()
        return seen

    # Refused once, so that 14 of 20 places are left.
    assert simulate(story()) == [(9.9, 0), (10.1, 1), (15.0, 1), (16.05, 1 + 8), (17.1, 1 + 14)]


def test_a_refused_probe_pauses_again() -> None:
    async def story() -> float:
        lane = lane_of()
        lane.was_limited(await sent(lane), 10.0, exhausted=True)
        lane.was_limited(await sent(lane), 3.0)
        await lane.enter(0)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(13.0)


def test_pauses_nobody_names_double_up_to_15_seconds() -> None:
    async def story() -> list[float]:
        lane, at = lane_of(), []
        lane.was_limited(await sent(lane), None, exhausted=True)
        for _ in range(6):
            probe = await sent(lane)
            at.append(now())
            lane.was_limited(probe, None)
        return [later - earlier for earlier, later in zip([1000.0, *at], at, strict=False)]

    assert simulate(story()) == pytest.approx([1, 2, 4, 8, 15, 15])


def test_a_cancelled_probe_lets_another_one_go() -> None:
    async def story() -> str:
        lane = lane_of()
        lane.was_limited(await sent(lane), 10.0, exhausted=True)
        lane.leave(await lane.enter(0))
        return await outcome_of(lane.enter(0))

    assert simulate(story()) == "passed at 10"


def test_rows_whose_wait_nobody_named_come_back_with_the_lane() -> None:
    async def story() -> list[str]:
        lane = lane_of()
        lane.was_limited(await sent(lane), 10.0, exhausted=True)
        waiting = [
            asyncio.ensure_future(outcome_of(lane.wait_outside(60, with_lane=w))) for w in (True, False)
        ]
        lane.succeeded(await sent(lane))
        return list(await asyncio.gather(*waiting))

    assert simulate(story()) == ["passed at 10", "passed at 60"]


# Concurrency


async def clean_round(lane: OneLane, count: int, *, seconds: float = 1) -> None:
    """So many at once, all answered after a second."""
    places = [await lane.enter(0) for _ in range(count)]
    await asyncio.sleep(seconds)
    for place in places:
        lane.succeeded(place)
    for place in places:
        lane.leave(place)


def test_concurrency_doubles_with_each_clean_and_full_round() -> None:
    async def story() -> list[int]:
        lane, seen = lane_of(None), []
        for _ in range(8):
            seen.append(lane.allowed)
            await clean_round(lane, lane.allowed)
        return seen

    assert simulate(story()) == [16, 32, 64, 128, 256, 512, 1024, 1024]


def test_concurrency_does_not_grow_where_it_is_not_used() -> None:
    async def story() -> int:
        lane = lane_of(None)
        for _ in range(10):
            await clean_round(lane, 12)
        return lane.allowed

    assert simulate(story()) == 16


@pytest.mark.parametrize(("ramp", "grown"), [(False, 94), (True, 91)], ids=["rate", "ramp"])
def test_a_burst_of_429s_cuts_once_and_growth_is_slow_afterwards(ramp: bool, grown: int) -> None:
    async def story() -> list[int]:
        lane = lane_of(None)
        for _ in range(3):
            await clean_round(lane, lane.allowed)
        before = lane.allowed
        for place in [await sent(lane) for _ in range(16)]:
            lane.was_limited(place, 1.0, ramp=ramp)
        after = lane.allowed
        await clean_round(lane, after)
        return [before, after, lane.allowed]

    assert simulate(story()) == [128, 89, grown]


@pytest.mark.parametrize(("overloaded", "allowed"), [(6, 16), (7, 11)])
def test_an_overloaded_server_cuts_only_above_a_fifth_of_the_replies(overloaded: int, allowed: int) -> None:
    async def story() -> int:
        lane = lane_of(None)
        for place in [await sent(lane) for _ in range(overloaded)]:
            lane.was_limited(place, 1.0, overloaded=True)
        return lane.allowed

    assert simulate(story()) == allowed


def test_a_burst_of_timeouts_cuts_once_and_a_few_cut_nothing() -> None:
    async def story() -> list[int]:
        lane, seen = lane_of(None), []
        for _ in range(3):
            await clean_round(lane, lane.allowed)
        places = [await lane.enter(0) for _ in range(64)]
        await asyncio.sleep(10)
        for place in places:
            lane.failed(place, timed_out=True)
            lane.leave(place)
            seen.append(lane.allowed)
        return seen

    seen = simulate(story())

    assert [seen[number] for number in (0, 5, 6)] == [128, 128, 89]
    assert set(seen[6:]) == {89}


@pytest.mark.parametrize(("slots", "allowed"), [(4, 40), (1024, 128)])
def test_a_queue_does_not_grow_to_where_answers_come_too_late(slots: int, allowed: int) -> None:
    async def story() -> int:
        lane = OneLane(Limits(), patience_s=10)
        for _ in range(3):
            seconds = 0.5 * max(1, lane.allowed / slots)
            await clean_round(lane, lane.allowed, seconds=seconds)
        return lane.allowed

    assert simulate(story()) == allowed


def test_answers_of_steps_with_different_patience_are_each_measured_against_their_own() -> None:
    async def story() -> int:
        lane = OneLane(Limits())
        for _ in range(3):
            places = [await lane.enter(0) for _ in range(lane.allowed)]
            for number, place in enumerate(places):
                place.patience_s = 10.0 if number % 2 else 30.0
            await asyncio.sleep(0.5 * lane.allowed / 4)
            for place in places:
                lane.succeeded(place)
            for place in places:
                lane.leave(place)
        return lane.allowed

    assert simulate(story()) == 60  # 7.5 s each: half of 10 s for one step, of 30 s for the other


def test_server_errors_hold_growth_but_cut_nothing() -> None:
    async def story() -> int:
        lane = lane_of(None)
        for _ in range(5):
            places = [await lane.enter(0) for _ in range(16)]
            await asyncio.sleep(1)
            for place in places[:15]:
                lane.succeeded(place)
            lane.failed(places[15])
            for place in places:
                lane.leave(place)
        return lane.allowed

    assert simulate(story()) == 16


# Counting


@pytest.mark.parametrize(
    ("limits", "passes_at"),
    [
        ({"itpm": 6000}, 2.0),
        ({"otpm": 6000}, 8.0),
        ({"tpm": 6000}, 10.0),
        ({"tpd": 6000}, 0.0),
        ({"rps": 2}, 0.5),
        ({"rpd": 2}, 0.5 * 86400),
    ],
)
def test_each_limit_counts_its_own(limits: dict[str, int], passes_at: float) -> None:
    async def story() -> float:
        lane = lane_of(**limits)
        lane.leave(await lane.enter(200, 800), Usage(200, output_tokens=800))
        await lane.enter(200, 800)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(passes_at, rel=0.05)


@pytest.mark.parametrize(("counting", "passes_at"), [("all", 4.0), ("uncached", 0.0)])
def test_cached_input_is_free_where_the_vendor_says_so(
    counting: Literal["all", "uncached"], passes_at: float
) -> None:
    async def story() -> float:
        lane = OneLane(Limits(itpm=6000), counting=counting)
        lane.leave(await lane.enter(100), Usage(400, cached_input_tokens=400))
        await lane.enter(0)
        await lane.enter(80)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(passes_at, abs=1.0)


@pytest.mark.parametrize(
    ("recipe", "reply", "every_s"), [(6000, 600, 0.1), (600, 6000, 0.1), (None, 6000, 0.01)]
)
def test_of_recipe_and_reply_the_stricter_limit_holds(recipe: int | None, reply: int, every_s: float) -> None:
    async def story() -> float:
        lane = lane_of(64, **({"rpm": recipe} if recipe else {}))
        place = await sent(lane)
        lane.saw(place, [SeenLimit("requests", reply, reply - 1, 60.0)])
        started = now()
        for _ in range(2000):
            await sent(lane)
        return (now() - started) / 2000

    assert simulate(story()) == pytest.approx(every_s, rel=0.06)


def test_a_limit_that_a_reply_raises_again_holds_as_far_as_the_recipe_allows() -> None:
    async def story() -> float:
        lane = lane_of(64, rpm=600)
        for limit in (60, 6000):
            lane.saw(await sent(lane), [SeenLimit("requests", limit, limit - 1, 60.0)])
        started = now()
        for _ in range(1000):
            await sent(lane)
        return (now() - started) / 1000

    assert simulate(story()) == pytest.approx(0.1, rel=0.05)


def test_what_others_used_up_is_missed_here_too() -> None:
    async def story() -> float:
        lane = lane_of(64, rpm=600)
        place = await sent(lane)
        lane.saw(place, [SeenLimit("requests", 600, 0, 60.0)])
        await sent(lane)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(0.1, rel=0.05)


def test_what_was_sent_after_a_reply_was_counted_is_not_in_its_remainder() -> None:
    async def story() -> float:
        lane = lane_of(64, rpm=600)
        places = [await lane.enter(0) for _ in range(5)]
        lane.saw(places[0], [SeenLimit("requests", 600, 4, 60.0)])
        lane.leave(places[0])
        await lane.enter(0)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(0.1, rel=0.05)


def test_a_refused_request_gives_back_nothing_that_its_server_never_counted() -> None:
    async def story() -> float:
        lane = lane_of(64, tpm=60_000)
        place = await lane.enter(500)
        lane.saw(place, [SeenLimit("tokens", 60_000, 0, 60.0)], refused=True)
        lane.leave(place, Usage())
        await lane.enter(500)
        return now() - 1000.0

    assert simulate(story()) == pytest.approx(0.5, rel=0.05)
