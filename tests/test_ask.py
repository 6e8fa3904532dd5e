"""The paid path against a loopback teacher: what is sent, what is stored, what is counted, and when it ends."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
from tenacity import stop_after_attempt, wait_fixed, wait_none

from synthgen.asking.ask import Asker, NotAsked, TeacherSpec
from synthgen.asking.budget import Budget
from synthgen.asking.connect import connect
from synthgen.asking.outcome import Answer, Gate, Outcome, Teacher
from synthgen.asking.providers import VllmConfig
from synthgen.asking.retry import RetryPolicy
from synthgen.journal import Entry, Journal, JournalIndex, Reply
from synthgen.journal.lines import scan
from synthgen.recipe.model import Limits, Price
from synthgen.types import Completion, Message, Request, Sampling, TeacherIdentity, Usage
from tests.loopback import DROP_AFTER, MALFORMED, Act, Body, Loopback, refuse

POLICY = RetryPolicy(wait=wait_none())
PRICE = Price(input=1000.0, output=1000.0)  # a tenth of a cent a token
QUOTA = refuse(429, {"error": {"code": "insufficient_quota", "message": "no credit"}})
UNAUTHORISED = refuse(401, {"error": {"code": "invalid_api_key", "message": "bad key"}})
BAD_REQUEST = refuse(400, {"error": {"message": "unknown parameter"}})


def question(text: str = "Name a colour.", max_tokens: int = 50) -> Request:
    identity = TeacherIdentity("vllm", "self-hosted", "farm", "m")
    return Request((Message("user", text),), identity, Sampling(max_tokens=max_tokens))


def spec_of(
    url: str = "http://127.0.0.1:9/v1",
    *,
    alias: str = "big",
    price: Price | None = PRICE,
    give_up_after_s: float = 1800.0,
    **limits: int,
) -> TeacherSpec:
    config = VllmConfig(
        provider="vllm",
        model="m",
        base_url=url,
        limits=Limits.model_validate(limits),
        give_up_after_s=give_up_after_s,
    )
    return TeacherSpec(alias, question().teacher, config, price, "loopback")


@asynccontextmanager
async def asking(
    folder: Path,
    *specs: TeacherSpec,
    cap_usd: float | None = None,
    policy: RetryPolicy = POLICY,
    through: Callable[[TeacherSpec], Teacher] = connect,
) -> AsyncIterator[Asker]:
    journal = Journal(folder)
    budget = Budget(cap_usd, journal.index.ledger.spent_usd)
    asker = Asker(journal, budget, {spec.alias: spec for spec in specs}, through, policy)
    try:
        yield asker
    finally:
        await asker.close()
        await journal.close()


async def ask(asker: Asker, text: str = "Name a colour.", alias: str = "big") -> Reply:
    return await asker.ask(question(text), step="answer", alias=alias)


async def end_of(asked: Awaitable[Reply]) -> str:
    """`answer`, the reason of a failure, or why it was not asked."""
    try:
        reply = await asked
    except NotAsked as problem:
        return f"not asked: {problem.reason}"
    return reply.reason or "answer"


async def until(fact: Callable[[], bool]) -> None:
    """Let the loop run until `fact` holds; the test's own time limit is the patience."""
    while not fact():  # noqa: ASYNC110  # facts of our objects, which have no events
        await asyncio.sleep(0)


async def ends_of(asker: Asker, count_: int) -> list[str]:
    return await asyncio.gather(*(end_of(ask(asker, f"q{number}")) for number in range(count_)))


def kinds(folder: Path) -> list[str]:
    return [str(entry["t"]) for entry in JournalIndex(folder).entries()]


def text_of(body: Body) -> str:
    messages = body["messages"]
    assert isinstance(messages, list)
    message = messages[-1]
    assert isinstance(message, dict)
    return str(message["content"])


# Once


async def test_a_failure_is_handed_out_as_a_later_ask_reads_it(tmp_path: Path) -> None:
    async with Loopback(script=[BAD_REQUEST]) as server, asking(tmp_path, spec_of(server.url)) as asker:
        failed = await ask(asker)

        read = await ask(asker)

    assert (read, read.reason is not None) == (failed, True)


async def test_a_request_is_sent_once_however_often_it_is_asked(tmp_path: Path) -> None:
    async with Loopback(latency_s=0.01) as server, asking(tmp_path, spec_of(server.url)) as asker:
        together = await asyncio.gather(*(ask(asker) for _ in range(5)))
        later = await ask(asker)

    assert len(server.requests) == 1
    assert [reply == later for reply in together] == [True] * 5


async def test_a_stored_reply_is_not_bought_again_by_a_later_session(tmp_path: Path) -> None:
    async with Loopback() as server:
        async with asking(tmp_path, spec_of(server.url)) as asker:
            bought = await ask(asker)
        async with asking(tmp_path, spec_of(server.url)) as asker:
            read = await ask(asker)

    assert (read, len(server.requests)) == (bought, 1)


async def test_who_waits_for_a_request_that_is_cancelled_asks_it_himself(tmp_path: Path) -> None:
    async with Loopback(latency_s=0.02) as server, asking(tmp_path, spec_of(server.url)) as asker:
        first = asyncio.ensure_future(ask(asker))
        second = asyncio.ensure_future(end_of(ask(asker)))
        await until(lambda: bool(server.requests))
        first.cancel()

        assert await second == "answer"


async def test_an_answer_is_in_the_journal_before_anyone_sees_it(tmp_path: Path) -> None:
    async with Loopback() as server, asking(tmp_path, spec_of(server.url)) as asker:
        reply = await ask(asker)

        assert reply.key in JournalIndex(tmp_path)


async def test_an_intent_is_durable_before_its_request_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced_bytes = 0
    sync = os.fdatasync

    def watched(file: int) -> None:
        nonlocal synced_bytes
        sync(file)
        synced_bytes = os.fstat(file).st_size

    monkeypatch.setattr("synthgen.journal.writer.os.fdatasync", watched)
    seen: list[bool] = []

    class Reader:
        """A teacher that looks into the journal when it is asked."""

        async def answer(self, request: Request) -> Outcome:
            with (tmp_path / "000001.jsonl").open("rb") as file:
                ends = [
                    offset + length
                    for offset, length, entry in scan(file)
                    if entry and (entry["k"], entry["t"]) == (request.key(), "I")
                ]
            seen.append(ends != [] and ends[-1] <= synced_bytes)
            return Gate("rate_limit") if len(seen) == 1 else Answer(Completion("x", "stop"))

        async def close(self) -> None:
            pass

    async with asking(tmp_path, spec_of(), through=lambda _: Reader()) as asker:
        await ask(asker)

    assert seen == [True, True]
    assert kinds(tmp_path) == ["I", "A", "I", "R"]


# Waiting


async def test_a_row_that_waits_for_its_retry_lets_the_others_go_on(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> Act | None:
        return (
            refuse(429, retry_after="0.02") if text_of(body) == "q0" and len(server.payments) < 11 else None
        )

    async with (
        Loopback(script=script) as server,
        asking(tmp_path, spec_of(server.url, concurrency=1)) as asker,
    ):
        ends = await ends_of(asker, 12)

    assert ends == ["answer"] * 12


async def test_rows_that_wait_hold_no_place(tmp_path: Path) -> None:
    def script(number: int, _body: Body) -> Act | None:
        return refuse(429, retry_after="3000") if number <= 2 else None

    async with (
        Loopback(script=script, latency_s=0.01) as server,
        asking(tmp_path, spec_of(server.url, concurrency=3, give_up_after_s=8000)) as asker,
    ):
        waiting = [asyncio.ensure_future(end_of(ask(asker, text))) for text in ("q0", "q1")]
        await until(lambda: asker.lanes["big"].counts.rate_limited == 2)
        server.max_in_flight = 0
        await asyncio.gather(*(ask(asker, f"other {number}") for number in range(6)))
        asker.halt("interrupted")
        await asyncio.gather(*waiting)

    assert server.max_in_flight == 2


async def test_a_rate_limit_is_no_attempt(tmp_path: Path) -> None:
    script = [refuse(429)] * 9
    async with Loopback(script=script) as server, asking(tmp_path, spec_of(server.url)) as asker:
        reply = await ask(asker)

    assert (reply.reason, reply.at.attempts) == (None, 1)


@pytest.mark.parametrize(("max_tokens", "patience_s"), [(50, 900.0), (32_000, 3200.0)])
async def test_the_lane_knows_how_long_a_request_is_waited_for(
    tmp_path: Path, max_tokens: int, patience_s: float
) -> None:
    class Looking(Fixed):
        async def answer(self, request: Request) -> Outcome:
            seen.extend(place.patience_s for place in asker.lanes["big"]._flying)
            return await super().answer(request)

    seen: list[float] = []
    async with asking(tmp_path, spec_of(), through=lambda _: Looking(None)) as asker:
        await asker.ask(question(max_tokens=max_tokens), step="answer", alias="big")

    assert seen == [patience_s]


async def test_an_idle_lane_is_not_given_up_at_its_first_rate_limit(tmp_path: Path) -> None:
    now = 0.0
    async with Loopback(script=[refuse(429)]) as server, asking(tmp_path, spec_of(server.url)) as asker:
        asker.lanes["big"].clock = lambda: now
        now = 1e6

        assert await end_of(ask(asker)) == "answer"


async def test_the_time_between_tries_is_the_policys(tmp_path: Path) -> None:
    policy = RetryPolicy(wait=wait_fixed(0.05))
    loop = asyncio.get_running_loop()
    async with (
        Loopback(script=[refuse(500)] * 2) as server,
        asking(tmp_path, spec_of(server.url), policy=policy) as asker,
    ):
        started = loop.time()
        reply = await ask(asker)

    assert reply.at.attempts == 3
    assert loop.time() - started >= 0.1


class Told(RetryPolicy):
    """Is told of earlier waits, and remembers."""

    said: ClassVar[list[float]]

    def backoff_s(self, attempt: int, server_wait_s: float | None = None, *, last_s: float = 0.0) -> float:
        self.said.append(last_s)
        return 0.05


@pytest.mark.parametrize("status", [500, 429])
async def test_the_policy_is_told_how_long_the_last_wait_was(tmp_path: Path, status: int) -> None:
    Told.said = []
    async with (
        Loopback(script=[refuse(status)] * 3, latency_s=0.01) as server,
        asking(tmp_path, spec_of(server.url), policy=Told()) as asker,
    ):
        await ask(asker)

    assert Told.said[0] == 0.0
    assert len(Told.said) == 3
    assert all(0.045 < said_s < 5 for said_s in Told.said[1:])


async def test_leftover_capacity_is_asked_for_again_after_doubling_waits(tmp_path: Path) -> None:
    asked: list[int] = []

    class Leftover(RetryPolicy):
        def flex_s(self, attempt: int) -> float:
            asked.append(attempt)
            return 0.001

    unavailable = refuse(429, {"error": {"code": "resource_unavailable", "message": "no capacity"}})
    async with (
        Loopback(script=[unavailable] * 3) as server,
        asking(tmp_path, spec_of(server.url), policy=Leftover()) as asker,
    ):
        reply = await ask(asker)

    assert (reply.reason, asked) == (None, [1, 2, 3])


def test_the_waits_for_leftover_capacity_double_from_half_a_minute() -> None:
    waits_s = [RetryPolicy().flex_s(attempt) for attempt in range(1, 8)]

    assert [int(wait_s // 30) for wait_s in waits_s] == [1, 2, 4, 8, 16, 32, 60]


# Giving up


async def test_a_request_that_fails_while_others_are_answered_is_a_failure(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> Act | None:
        return refuse(500) if text_of(body) == "bad" else None

    async with Loopback(script=script) as server, asking(tmp_path, spec_of(server.url)) as asker:
        bad = asyncio.ensure_future(ask(asker, "bad"))
        for number in count():
            if bad.done():
                break
            await ask(asker, f"good {number}")
        reply = await bad

    assert (reply.reason, reply.at.attempts >= 6) == ("gave_up:server_error", True)
    assert kinds(tmp_path).count("F") == 1


async def test_a_server_that_fails_everybody_makes_no_failures(tmp_path: Path) -> None:
    clock = count(0, 40).__next__  # seconds pass whenever somebody looks
    async with (
        Loopback(script=lambda _number, _body: refuse(500)) as server,
        asking(tmp_path, spec_of(server.url, give_up_after_s=8000)) as asker,
    ):
        asker.lanes["big"].clock = clock
        ends = await ends_of(asker, 3)

    assert ends == ["not asked: given_up"] * 3
    assert len(server.requests) > 3 * 6
    assert "F" not in kinds(tmp_path)


@pytest.mark.parametrize("status", [429, 503, 500])
async def test_a_time_beyond_patience_ends_the_lane_at_once(tmp_path: Path, status: int) -> None:
    later = refuse(status, retry_after="Mon, 01 Jan 2035 12:00:00 GMT")
    async with (
        Loopback(script=lambda _number, _body: later) as server,
        asking(tmp_path, spec_of(server.url, give_up_after_s=8000, concurrency=1)) as asker,
    ):
        ends = await ends_of(asker, 3)
        stopped = asker.queues["big"].stopped

    assert (ends, len(server.requests)) == (["not asked: given_up"] * 3, 3)
    assert "asks to come back at 2035-01-01" in str(stopped)
    assert "F" not in kinds(tmp_path)


async def test_a_lane_that_answers_others_is_not_ended_by_one_far_time(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> Act | None:
        return refuse(429, retry_after="9000") if text_of(body) == "refused" else None

    async with Loopback(hold=2, script=script) as server, asking(tmp_path, spec_of(server.url)) as asker:
        lane = asker.lanes["big"]
        refused = asyncio.ensure_future(ask(asker, "refused"))
        answered = await ask(asker, "answered")
        await until(lambda: lane.counts.rate_limited == 1)
        ended = lane.ended
        refused.cancel()
        await asyncio.wait([refused])

    assert answered.completion is not None
    assert not ended


async def test_a_server_that_dies_makes_no_failures_of_what_was_under_way(tmp_path: Path) -> None:
    async with Loopback() as server, asking(tmp_path, spec_of(server.url, give_up_after_s=8000)) as asker:
        await ask(asker, "first")
        await server.stop()
        asker.lanes["big"].clock = count(int(asker.lanes["big"].clock()) + 1, 40).__next__
        ends = await ends_of(asker, 3)
        sent = asker.sent

    assert ends == ["not asked: given_up"] * 3
    assert sent > 3 * 6
    assert "F" not in kinds(tmp_path)


async def test_a_refused_connection_is_no_attempt_and_costs_nothing(tmp_path: Path) -> None:
    async with Loopback() as server:
        async with asking(tmp_path, spec_of(server.url)) as asker:
            await server.stop()
            asked = asyncio.ensure_future(ask(asker))
            await until(lambda: asker.lanes["big"].counts.errors >= 8)
            await server.start()
            reply = await asked

        assert reply.at.attempts == 1
        assert asker.budget.spent_usd == reply.cost_usd


async def test_an_unusable_body_is_kept_and_asked_again(tmp_path: Path) -> None:
    async with Loopback(script=[MALFORMED]) as server, asking(tmp_path, spec_of(server.url)) as asker:
        reply = await ask(asker)
        kept = [entry for entry in JournalIndex(tmp_path).entries() if entry["t"] == "X"]

    assert [entry["k"] for entry in kept] == [reply.key]
    assert str(kept[0]["body"]).endswith(",,")
    assert reply.completion is not None


# Stopping


@pytest.mark.parametrize(
    ("act", "reason"),
    [(QUOTA, "quota"), (UNAUTHORISED, "auth"), (refuse(402), "quota"), (refuse(404), "model")],
)
async def test_a_lane_without_credit_key_or_model_stops_at_once(
    tmp_path: Path, act: Act, reason: str
) -> None:
    def script(number: int, _body: Body) -> Act | None:
        return act if number >= 10 else None

    async with (
        Loopback(script=script) as server,
        asking(tmp_path, spec_of(server.url, concurrency=4)) as asker,
    ):
        ends = await ends_of(asker, 60)
        later = await end_of(ask(asker, "later"))

    assert len(server.requests) <= 9 + 4
    assert (ends.count("answer"), ends.count(f"not asked: {reason}")) == (9, 51)
    assert later == f"not asked: {reason}"
    assert asker.exhausted(asker.lanes)


async def test_a_stopped_lane_sends_away_who_waits_for_a_retry(tmp_path: Path) -> None:
    script = [refuse(429, retry_after="3000"), QUOTA]
    async with (
        Loopback(script=script) as server,
        asking(tmp_path, spec_of(server.url, give_up_after_s=8000)) as asker,
    ):
        waiting = asyncio.ensure_future(end_of(ask(asker, "first")))
        await until(lambda: asker.lanes["big"].counts.rate_limited == 1)
        await end_of(ask(asker, "second"))

        assert await asyncio.wait_for(waiting, 1) == "not asked: quota"


async def test_a_row_that_waited_for_money_is_not_sent_down_a_stopped_lane(tmp_path: Path) -> None:
    cap_usd = 1.5 * spec_of().worst_usd(question("q0"))
    async with (
        Loopback(script=[QUOTA]) as server,
        asking(tmp_path, spec_of(server.url), cap_usd=cap_usd) as asker,
    ):
        ends = await ends_of(asker, 2)

    assert (ends, len(server.requests)) == (["not asked: quota"] * 2, 1)


async def test_a_lane_whose_first_twenty_requests_are_refused_stops(tmp_path: Path) -> None:
    async with (
        Loopback(script=lambda _number, _body: BAD_REQUEST) as server,
        asking(tmp_path, spec_of(server.url, concurrency=4)) as asker,
    ):
        ends = await ends_of(asker, 100)

    stopped = asker.lanes["big"].stopped
    assert 20 <= len(server.requests) <= 20 + 4
    assert set(ends) == {"invalid", "not asked: bad_requests"}
    assert stopped is not None
    assert "unknown parameter" in str(stopped)


async def test_refusals_after_an_answer_are_failures_of_their_rows_alone(tmp_path: Path) -> None:
    def script(number: int, _body: Body) -> Act | None:
        return BAD_REQUEST if number > 1 else None

    async with (
        Loopback(script=script) as server,
        asking(tmp_path, spec_of(server.url, concurrency=1)) as asker,
    ):
        ends = await ends_of(asker, 40)

    assert ends == ["answer"] + ["invalid"] * 39


async def test_another_lane_goes_on_when_one_stops(tmp_path: Path) -> None:
    async with Loopback(script=[QUOTA]) as server:
        specs = spec_of(server.url), spec_of(server.url, alias="small")
        async with asking(tmp_path, *specs) as asker:
            ends = [await end_of(ask(asker)), await end_of(ask(asker, alias="small"))]

            assert (ends, asker.exhausted(asker.lanes)) == (["not asked: quota", "answer"], False)


async def test_a_halt_sends_away_who_waits_and_stores_what_is_in_flight(tmp_path: Path) -> None:
    released = asyncio.Event()

    class Slow:
        """A teacher that limits its first request and keeps the others waiting."""

        async def answer(self, request: Request) -> Outcome:
            if request.messages[0].content == "q0":
                return Gate("rate_limit", 3000.0)
            await released.wait()
            return Answer(Completion("x", "stop"))

        async def close(self) -> None:
            pass

    specs = spec_of(concurrency=3), spec_of(alias="paced", rpm=1)
    async with asking(tmp_path, *specs, through=lambda _: Slow()) as asker:
        tasks = [asyncio.ensure_future(end_of(ask(asker, f"q{number}"))) for number in range(20)]
        tasks += [asyncio.ensure_future(end_of(ask(asker, f"p{number}", "paced"))) for number in range(5)]
        await until(lambda: sum(lane.counts.in_flight for lane in asker.lanes.values()) == 3)
        await until(lambda: asker.sent == 4)
        asker.halt("interrupted")
        flying = [tasks[1], tasks[2], tasks[20]]
        away = await asyncio.wait_for(asyncio.gather(*(task for task in tasks if task not in flying)), 5)
        still_flying = [task.done() for task in flying]
        released.set()
        ends = await asyncio.gather(*flying)

    assert (set(away), still_flying) == ({"not asked: interrupted"}, [False] * 3)
    assert ends == ["answer"] * 3
    assert kinds(tmp_path).count("R") == 3


async def test_a_halt_sends_away_who_waits_for_money(tmp_path: Path) -> None:
    with Loopback() as server:
        async with asking(tmp_path, spec_of(server.url), cap_usd=1.0) as asker:
            asker.budget.hold(1.0)  # of a batch that may take a day
            waiting = asyncio.ensure_future(end_of(ask(asker)))
            await until(lambda: asker.lanes["big"].counts.in_flight == 1)

            asker.halt("interrupted")

            assert (await waiting, server.requests) == ("not asked: interrupted", [])


async def test_a_full_disk_halts_the_asker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int, _rest: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with Loopback() as server, asking(tmp_path, spec_of(server.url, concurrency=2)) as asker:
        monkeypatch.setattr("synthgen.journal.writer.os.write", full)
        ends = await ends_of(asker, 10)

    assert ends == ["not asked: storage"] * 10
    assert (asker.halted, len(server.requests)) == ("storage", 0)


# Money


def ledger_of(folder: Path) -> tuple[int, float]:
    ledger = JournalIndex(folder).ledger
    return ledger.lost, ledger.spent_usd


async def test_a_lost_reply_keeps_its_reservation(tmp_path: Path) -> None:
    async with Loopback(script=[DROP_AFTER]) as server, asking(tmp_path, spec_of(server.url)) as asker:
        reply = await ask(asker)
    worst_usd = spec_of().worst_usd(question())

    assert reply.cost_usd is not None
    assert worst_usd == pytest.approx((len("Name a colour.") + 16 + 50) / 1000)
    assert asker.budget.spent_usd == pytest.approx(worst_usd + reply.cost_usd)
    assert ledger_of(tmp_path) == (1, asker.budget.spent_usd)


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_a_refused_request_releases_its_reservation(tmp_path: Path, status: int) -> None:
    script = [refuse(status)]
    async with Loopback(script=script) as server, asking(tmp_path, spec_of(server.url)) as asker:
        reply = await ask(asker)

    assert asker.budget.spent_usd == reply.cost_usd
    assert ledger_of(tmp_path) == (0, reply.cost_usd)


async def test_a_failed_row_costs_nothing(tmp_path: Path) -> None:
    async with Loopback(script=[BAD_REQUEST]) as server, asking(tmp_path, spec_of(server.url)) as asker:
        await ask(asker)

    assert asker.budget.spent_usd == 0.0
    assert ledger_of(tmp_path) == (0, 0.0)


async def test_an_answer_costs_what_its_usage_says(tmp_path: Path) -> None:
    async with Loopback() as server, asking(tmp_path, spec_of(server.url)) as asker:
        reply = await ask(asker)
        paid = server.payments[0]

    assert reply.cost_usd == pytest.approx((paid.input_tokens + paid.output_tokens) / 1000)


class Fixed:
    """A teacher that always answers alike."""

    def __init__(self, usage: Usage | None) -> None:
        self.usage = usage

    async def answer(self, request: Request) -> Outcome:
        return Answer(Completion("x", "stop", usage=self.usage))

    async def close(self) -> None:
        pass


async def test_an_answer_without_usage_costs_its_reservation(tmp_path: Path) -> None:
    async with asking(tmp_path, spec_of(), through=lambda _: Fixed(None)) as asker:
        reply = await ask(asker)

    assert reply.cost_usd == spec_of().worst_usd(question())


async def test_an_answer_without_a_price_has_no_cost(tmp_path: Path) -> None:
    async with asking(tmp_path, spec_of(price=None), through=lambda _: Fixed(None)) as asker:
        reply = await ask(asker)

    assert reply.cost_usd is None


async def test_the_cap_is_kept_and_what_was_bought_is_stored(tmp_path: Path) -> None:
    async with (
        Loopback() as server,
        asking(tmp_path, spec_of(server.url, concurrency=8), cap_usd=0.5) as asker,
    ):
        ends = await ends_of(asker, 40)
        paid_usd = sum(paid.input_tokens + paid.output_tokens for paid in server.payments) / 1000

    assert set(ends) == {"answer", "not asked: budget"}
    assert ends.count("answer") == len(server.payments)
    assert asker.budget.spent_usd == pytest.approx(paid_usd)
    assert 0.3 < paid_usd <= 0.5


async def test_a_reached_cap_sends_away_who_waits_and_leaves_free_teachers_alone(tmp_path: Path) -> None:
    async with Loopback() as server:
        free = spec_of(server.url, alias="free", price=Price(input=0, output=0))
        paced = spec_of(server.url, rpm=1)
        async with asking(tmp_path, paced, free, cap_usd=0.01) as asker:
            ends = await asyncio.wait_for(ends_of(asker, 5), 5)
            last = await end_of(ask(asker, alias="free"))

    assert (ends, last) == (["not asked: budget"] * 5, "answer")


async def test_a_request_cancelled_on_the_wire_keeps_its_reservation_and_leaves_its_place(
    tmp_path: Path,
) -> None:
    async with Loopback(latency_s=5) as server, asking(tmp_path, spec_of(server.url)) as asker:
        asked = asyncio.ensure_future(ask(asker))
        await until(lambda: bool(server.requests))
        asked.cancel()
        await asyncio.wait([asked])
        in_flight, reserved_usd = asker.lanes["big"].counts.in_flight, asker.budget.reserved_usd

    assert (in_flight, reserved_usd) == (0, 0.0)
    assert ledger_of(tmp_path) == (1, asker.budget.spent_usd)
    assert asker.budget.spent_usd == spec_of().worst_usd(question())


async def test_a_request_cancelled_before_its_send_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = asyncio.Event()
    commit = Journal.commit

    async def slow_commit(self: Journal, *entries: Entry) -> None:
        committed.set()
        await commit(self, *entries)

    monkeypatch.setattr(Journal, "commit", slow_commit)
    async with Loopback() as server, asking(tmp_path, spec_of(server.url)) as asker:
        asked = asyncio.ensure_future(ask(asker))
        await committed.wait()
        asked.cancel()
        await asyncio.wait([asked])

    assert (asker.budget.reserved_usd, asker.budget.spent_usd) == (0.0, 0.0)
    assert ledger_of(tmp_path) == (0, 0.0)
    assert server.requests == []


async def test_the_sums_of_a_rough_session_are_the_same_after_reopening(tmp_path: Path) -> None:
    acts = [DROP_AFTER, refuse(429), MALFORMED, refuse(500), BAD_REQUEST, Act()]
    policy = RetryPolicy(wait=wait_none(), stop=stop_after_attempt(50))

    async with (
        Loopback(script=lambda number, _body: acts[number % 6]) as server,
        asking(tmp_path, spec_of(server.url, concurrency=4), policy=policy) as asker,
    ):
        await ends_of(asker, 40)
        live = asker.journal.index.ledger
        spent_usd = asker.budget.spent_usd

    again = JournalIndex(tmp_path).ledger
    assert live == again
    assert again.spent_usd == pytest.approx(spent_usd)
    assert sum(tally.requests for tally in again.tallies.values()) == sum(
        1 for kind in kinds(tmp_path) if kind == "R"
    )
