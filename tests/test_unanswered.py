"""Sends that may have been billed and brought no answer: how often one request is bought, and who is to blame."""

import asyncio
from pathlib import Path

import pytest
from tenacity import wait_none

from synthgen.asking.outcome import Outcome, Retry
from synthgen.asking.retry import RetryPolicy
from synthgen.types import Request
from tests.loopback import DROP_AFTER, MALFORMED, Act, Body, Loopback, refuse
from tests.runs import Result, cli, recipe, save
from tests.test_ask import ask, asking, end_of, ends_of, kinds, spec_of, text_of

GATEWAY_TIMEOUT = refuse(504)


def always(act: Act) -> Loopback:
    return Loopback(script=lambda _number, _body: act)


def generate(path: Path, run: Path) -> Result:
    """`synthgen generate`, without waiting between tries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synthgen.asking.ask.RetryPolicy", lambda: RetryPolicy(wait=wait_none()))
        return cli("generate", path, "-o", run, "--json")


@pytest.mark.parametrize("act", [MALFORMED, DROP_AFTER, GATEWAY_TIMEOUT], ids=lambda act: act.kind)
async def test_a_request_that_may_have_been_billed_is_sent_three_times(tmp_path: Path, act: Act) -> None:
    async with always(act) as server, asking(tmp_path, spec_of(server.url)) as asker:
        ends = [await end_of(ask(asker)) for _ in range(2)]

    assert (ends, len(server.requests)) == (["not asked: unanswered"] * 2, 3)
    assert "F" not in kinds(tmp_path)


async def test_who_waits_for_a_request_without_an_answer_does_not_buy_it_again(tmp_path: Path) -> None:
    async with always(MALFORMED) as server, asking(tmp_path, spec_of(server.url)) as asker:
        ends = await asyncio.gather(*(end_of(ask(asker)) for _ in range(3)))

    assert (ends, len(server.requests)) == (["not asked: unanswered"] * 3, 3)


async def test_a_later_session_may_try_again(tmp_path: Path) -> None:
    async with Loopback(script=[MALFORMED] * 3) as server:
        async with asking(tmp_path, spec_of(server.url)) as asker:
            first = await end_of(ask(asker))
        async with asking(tmp_path, spec_of(server.url)) as asker:
            later = await end_of(ask(asker))

    assert (first, later) == ("not asked: unanswered", "answer")


async def test_sends_that_cost_nothing_are_not_counted(tmp_path: Path) -> None:
    script = [MALFORMED, refuse(500), refuse(429), MALFORMED, refuse(500)]
    async with Loopback(script=script) as server, asking(tmp_path, spec_of(server.url)) as asker:
        assert await end_of(ask(asker)) == "answer"


async def test_where_others_are_answered_the_request_fails(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> Act | None:
        return MALFORMED if text_of(body) == "q0" else None

    async with (
        Loopback(script=script) as server,
        asking(tmp_path, spec_of(server.url, concurrency=2)) as asker,
    ):
        ends = await ends_of(asker, 30)

    assert ends == ["gave_up:bad_body"] + ["answer"] * 29
    assert len(server.payments) == 3 + 29


async def test_the_last_request_of_a_teacher_that_answered_all_others_fails(tmp_path: Path) -> None:
    async with (
        Loopback(script=lambda number, _body: MALFORMED if number > 1 else None) as server,
        asking(tmp_path, spec_of(server.url)) as asker,
    ):
        ends = [await end_of(ask(asker, text)) for text in ("good", "bad")]

    assert ends == ["answer", "gave_up:bad_body"]


async def test_a_teacher_that_answers_nobody_stops_and_its_rows_are_pending(tmp_path: Path) -> None:
    async with (
        always(MALFORMED) as server,
        asking(tmp_path, spec_of(server.url, concurrency=2)) as asker,
    ):
        ends = await ends_of(asker, 200)
        stopped = asker.queues["big"].stopped

    assert set(ends) == {"not asked: unanswered"}
    assert "10 requests brought no answer" in str(stopped)
    assert len(server.requests) < 20


async def test_a_teacher_whose_replies_are_all_lost_stops(tmp_path: Path) -> None:
    async with always(DROP_AFTER) as server, asking(tmp_path, spec_of(server.url)) as asker:
        ends = await ends_of(asker, 9)  # ten in a row would set the lane aside for a second
        stopped = asker.queues["big"].stopped

    assert set(ends) == {"not asked: unanswered"}
    assert "5 requests brought no answer" in str(stopped)


async def test_a_handful_of_bad_first_requests_does_not_stop_a_teacher(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> Act | None:
        return MALFORMED if text_of(body) in ("q0", "q1", "q2", "q3") else None

    async with (
        Loopback(script=script) as server,
        asking(tmp_path, spec_of(server.url, concurrency=4)) as asker,
    ):
        bad = await asyncio.gather(*(end_of(ask(asker, f"q{number}")) for number in range(4)))
        good = await asyncio.gather(*(end_of(ask(asker, f"q{number}")) for number in range(4, 40)))

    assert (bad, good) == (["not asked: unanswered"] * 4, ["answer"] * 36)


async def test_an_outage_fails_fewer_than_five_of_the_requests_it_meets(tmp_path: Path) -> None:
    def script(number: int, _body: Body) -> Act | None:
        return GATEWAY_TIMEOUT if number > 1 else None  # all were sent when the first is answered

    async with Loopback(script=script, hold=10) as server, asking(tmp_path, spec_of(server.url)) as asker:
        ends = await ends_of(asker, 10)

    assert ends.count("answer") == 1
    assert ends.count("not asked: unanswered") >= 5


@pytest.mark.parametrize(("act", "waits_s"), [(MALFORMED, [2, 8]), (refuse(500), [1, 2])])
async def test_the_few_sends_that_may_be_billed_are_spread(
    tmp_path: Path, act: Act, waits_s: list[int]
) -> None:
    asked: list[int] = []

    class Doubling(RetryPolicy):
        def backoff_s(
            self, attempt: int, server_wait_s: float | None = None, *, last_s: float = 0.0
        ) -> float:
            asked.append(2 ** (attempt - 1))
            return 0.0

    async with (
        Loopback(script=[act] * 2) as server,
        asking(tmp_path, spec_of(server.url), policy=Doubling()) as asker,
    ):
        await ask(asker)

    assert asked == waits_s


def test_a_run_whose_replies_cannot_be_read_stops_and_says_what_to_do(tmp_path: Path) -> None:
    with always(MALFORMED) as server:
        result = generate(save(tmp_path / "r.yaml", recipe(server, 5)), tmp_path / "run")

    assert (result.code, len(server.payments)) == (3, 15)
    assert (result.json["counts"]["failed"], result.json["counts"]["pending"]) == (0, 5)
    assert "synthgen show RUN --unusable" in result.json["problem"]
    assert "synthgen doctor" in result.json["problem"]


class Slow:
    """A teacher that never answers in time."""

    async def answer(self, request: Request) -> Outcome:
        return Retry("timeout", "no reply in time", maybe_paid=True)

    async def close(self) -> None:
        pass


async def test_a_teacher_slower_than_its_time_limit_is_told_of(tmp_path: Path) -> None:
    async with asking(tmp_path, spec_of(), through=lambda _: Slow()) as asker:
        ends = await ends_of(asker, 5)
        stopped, sent = asker.queues["big"].stopped, asker.sent

    assert (ends, sent) == (["not asked: unanswered"] * 5, 15)
    assert "raise `timeout_s` (now 900 s)" in str(stopped)


def test_a_request_that_stays_pending_after_its_tries_is_named(tmp_path: Path) -> None:
    with always(MALFORMED) as server:
        result = generate(save(tmp_path / "r.yaml", recipe(server, 1)), tmp_path / "run")

    assert (result.code, len(server.payments)) == (3, 3)
    assert "teacher qwen: 1 candidates stay pending: sent 3 times" in str(result.json["warnings"])
