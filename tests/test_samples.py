"""Several samples in one request: who goes together, whose money is whose, and servers that have no such thing."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.asking.ask import Asker, NotAsked, TeacherSpec
from synthgen.asking.outcome import Answer, HttpReply, Outcome, Retry
from synthgen.asking.providers import OpenAIConfig
from synthgen.asking.wire.openai_chat import OpenAIChatWire
from synthgen.asking.wire.shares import share_usage
from synthgen.journal import JournalIndex, Reply
from synthgen.types import Completion, Request, Sampling, Usage
from tests.loopback import DROP_AFTER, MALFORMED, Act, Body, Loopback, every, refuse
from tests.test_ask import PRICE, asking, kinds, question, spec_of

NO_N = refuse(400, {"error": {"message": "n must be 1"}})


def samples(count: int, *, seed: int | None = None, text: str = "Name a colour.") -> list[Request]:
    sampling = Sampling(max_tokens=50, seed=seed)
    return [replace(question(text), sampling=sampling, sample=number) for number in range(count)]


async def replies(asker: Asker, requests: Sequence[Request]) -> list[Reply]:
    found = await asker.ask_samples(requests, step="answer", alias="big")
    assert all(isinstance(reply, Reply) for reply in found)
    return [reply for reply in found if isinstance(reply, Reply)]


def texts(found: Sequence[Reply]) -> list[str]:
    return [reply.completion.text for reply in found if reply.completion]


def asked_for(server: Loopback) -> list[object]:
    """The `n` of each request."""
    return [seen.body.get("n", 1) for seen in server.requests]


def openai_spec(url: str, **changes: object) -> TeacherSpec:
    config = OpenAIConfig.model_validate(
        {"provider": "openai", "model": "m", "base_url": url, "api_key_env": None, **changes}
    )
    return TeacherSpec("big", question().teacher, config, PRICE, "loopback")


# Together


async def test_samples_are_one_request_and_an_entry_each(tmp_path: Path) -> None:
    async with Loopback() as server, asking(tmp_path, spec_of(server.url)) as asker:
        found = await replies(asker, samples(4))

    assert asked_for(server) == [4]
    assert len(set(texts(found))) == 4
    assert kinds(tmp_path) == ["I"] * 4 + ["R"] * 4


async def test_only_the_missing_samples_are_asked_for(tmp_path: Path) -> None:
    async with Loopback() as server, asking(tmp_path, spec_of(server.url)) as asker:
        await replies(asker, samples(2))
        found = await replies(asker, samples(5))

    assert asked_for(server) == [2, 3]
    assert len(texts(found)) == 5


async def test_sixteen_go_together_at_most(tmp_path: Path) -> None:
    async with Loopback() as server, asking(tmp_path, spec_of(server.url)) as asker:
        await replies(asker, samples(40))

    assert sorted(map(str, asked_for(server))) == ["16", "16", "8"]


async def test_with_a_seed_each_sample_is_the_one_it_would_be_alone(tmp_path: Path) -> None:
    requests = samples(5, seed=7)
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    async with Loopback() as server:
        async with asking(tmp_path / "alone", spec_of(server.url)) as asker:
            alone = [await asker.ask(request, step="answer", alias="big") for request in requests]
        async with asking(tmp_path / "together", spec_of(server.url)) as asker:
            await replies(asker, requests[2:3])
            together = await replies(asker, requests)

    assert texts(together) == texts(alone)
    assert sorted(map(str, asked_for(server)[6:])) == ["2", "2"]  # the neighbours on either side


async def test_with_a_seed_an_openai_server_is_asked_singly(tmp_path: Path) -> None:
    async with Loopback() as server, asking(tmp_path, openai_spec(server.url)) as asker:
        await replies(asker, samples(2, seed=7))
        await replies(asker, samples(2))

    assert asked_for(server) == [1, 1, 2]


async def test_the_recipe_can_keep_them_apart(tmp_path: Path) -> None:
    spec = openai_spec("http://127.0.0.1:9", samples_per_request=1)
    async with Loopback() as server:
        config = spec.config.model_copy(update={"base_url": server.url})
        async with asking(tmp_path, replace(spec, config=config)) as asker:
            await replies(asker, samples(3))

    assert asked_for(server) == [1, 1, 1]


# Money


async def test_the_keys_together_cost_what_the_server_bills(tmp_path: Path) -> None:
    async with Loopback() as server, asking(tmp_path, spec_of(server.url)) as asker:
        found = await replies(asker, samples(3))
        spent = asker.budget.spent_usd
        reserved = asker.budget.reserved_usd

    billed = sum(payment.input_tokens + payment.output_tokens for payment in server.payments) / 1000
    assert sum(reply.cost_usd or 0 for reply in found) == pytest.approx(billed, rel=1e-12)
    assert (spent, reserved) == (pytest.approx(billed, rel=1e-12), 0.0)
    assert JournalIndex(tmp_path).ledger.spent_usd == pytest.approx(billed, rel=1e-12)


async def test_the_reservation_covers_every_sample(tmp_path: Path) -> None:
    alone = spec_of().worst_usd(samples(1)[0])
    async with (
        Loopback() as server,
        asking(tmp_path, spec_of(server.url), cap_usd=alone + 2 * 0.05 - 1e-9) as asker,
    ):
        await asker.ask_samples(samples(3), step="answer", alias="big")

    assert set(asked_for(server)) == {1}


async def test_what_does_not_fit_together_is_asked_singly_and_condemns_nobody(tmp_path: Path) -> None:
    first, each = spec_of().worst_shares(samples(1)[0], 2)
    async with (
        Loopback(words=1) as server,
        asking(tmp_path, spec_of(server.url), cap_usd=first + each) as asker,
    ):
        found = await asker.ask_samples(samples(3), step="answer", alias="big")
        asker.budget.cap_usd = 100.0
        await replies(asker, samples(2, text="Name a river."))

    assert any(isinstance(reply, Reply) for reply in found)
    assert asked_for(server)[-1] == 2
    assert set(asked_for(server)[:-1]) == {1}


async def test_a_lost_reply_keeps_the_reservation_of_every_sample(tmp_path: Path) -> None:
    async with (
        Loopback(script=[DROP_AFTER]) as server,
        asking(tmp_path, spec_of(server.url)) as asker,
    ):
        await replies(asker, samples(3))

    ledger = JournalIndex(tmp_path).ledger
    assert ledger.lost == 3
    assert ledger.lost_usd == pytest.approx(sum(spec_of().worst_shares(samples(1)[0], 3)))


async def test_a_kill_before_the_reply_is_stored_leaves_every_sample_as_lost_and_askable(
    tmp_path: Path,
) -> None:
    async with Loopback() as server:
        async with asking(tmp_path, spec_of(server.url)) as asker:
            await replies(asker, samples(3))
        segment = tmp_path / "000001.jsonl"
        intents = segment.read_bytes().splitlines(keepends=True)[:3]
        segment.write_bytes(b"".join(intents))

        async with asking(tmp_path, spec_of(server.url)) as asker:
            spent_usd = asker.budget.spent_usd
            await replies(asker, samples(3))

    assert spent_usd == pytest.approx(sum(spec_of().worst_shares(samples(1)[0], 3)))
    assert asked_for(server) == [3, 3]


async def test_an_unusable_reply_is_kept_once_and_counted_whole(tmp_path: Path) -> None:
    async with (
        Loopback(script=[MALFORMED]) as server,
        asking(tmp_path, spec_of(server.url)) as asker,
    ):
        await replies(asker, samples(3))

    ledger = JournalIndex(tmp_path).ledger
    assert (ledger.unusable, ledger.lost) == (1, 0)
    assert ledger.unusable_usd == pytest.approx(sum(spec_of().worst_shares(samples(1)[0], 3)))
    assert kinds(tmp_path) == ["I"] * 3 + ["X", "A", "A"] + ["I"] * 3 + ["R"] * 3


@given(
    usage=st.builds(
        Usage, st.integers(0, 9999), st.integers(0, 99), st.integers(0, 9999), st.integers(0, 9999)
    ),
    written=st.lists(st.integers(0, 5000), min_size=1, max_size=20),
)
def test_shares_add_up_to_the_bill(usage: Usage, written: list[int]) -> None:
    usage = replace(usage, reasoning_tokens=min(usage.reasoning_tokens, usage.output_tokens))

    shares = share_usage(usage, written)

    assert sum(shares, Usage()) == usage
    assert all(0 <= share.reasoning_tokens <= share.output_tokens for share in shares)


def test_the_first_carries_the_input_and_the_output_follows_the_text() -> None:
    shares = share_usage(Usage(10, 4, 9, 3), [100, 200, 0])

    assert shares == [Usage(10, 4, 3, 1), Usage(0, 0, 6, 2), Usage()]


# Servers without


async def test_fewer_choices_than_asked_for_leave_the_rest_to_be_asked(tmp_path: Path) -> None:
    async with Loopback(most_choices=3) as server, asking(tmp_path, spec_of(server.url)) as asker:
        found = await replies(asker, samples(7))

    assert asked_for(server) == [7, 4, 1]
    assert len(texts(found)) == 7
    assert JournalIndex(tmp_path).ledger.lost == 0


async def test_a_server_that_gives_one_of_several_twice_is_asked_singly(tmp_path: Path) -> None:
    async with Loopback(ignores=["n"]) as server, asking(tmp_path, spec_of(server.url)) as asker:
        await replies(asker, samples(4))
        await replies(asker, samples(3, text="Name a river."))

    assert asked_for(server) == [4, 3, 1, 1, 1, 1, 1]


async def test_a_server_that_refuses_several_is_asked_singly(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> Act | None:
        return NO_N if "n" in body else None

    async with Loopback(script=script) as server, asking(tmp_path, spec_of(server.url)) as asker:
        first = await replies(asker, samples(3))
        await replies(asker, samples(2, text="Name a river."))

    assert asked_for(server) == [3, 1, 1, 1, 1, 1]
    assert [reply.reason for reply in first] == [None] * 3


async def test_a_question_that_is_refused_either_way_fails_and_condemns_nobody(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> Act | None:
        return NO_N if "river" in str(body["messages"]) else None

    async with Loopback(script=script) as server, asking(tmp_path, spec_of(server.url)) as asker:
        refused = await replies(asker, samples(2, text="Name a river."))
        await replies(asker, samples(2))

    assert [reply.reason for reply in refused] == ["invalid"] * 2
    assert asked_for(server) == [2, 1, 1, 2]


async def test_rate_limits_and_broken_replies_are_retried_together(tmp_path: Path) -> None:
    async with (
        Loopback(script=every(2, refuse(429, retry_after="0.001"))) as server,
        asking(tmp_path, spec_of(server.url)) as asker,
    ):
        for number in range(3):
            await replies(asker, samples(2, text=f"q{number}"))

    assert set(asked_for(server)) == {2}
    assert server.paid_twice == 0


async def test_samples_that_cannot_be_asked_are_pending_each(tmp_path: Path) -> None:
    class Broken:
        async def answer(self, request: Request, samples: int = 1) -> Outcome:
            return Retry("reset", "gone", maybe_paid=True)

        async def close(self) -> None:
            pass

    async with asking(tmp_path, spec_of(give_up_after_s=1e-9), through=lambda _: Broken()) as asker:
        found = await asker.ask_samples(samples(3), step="answer", alias="big")

    assert [str(reply) for reply in found if isinstance(reply, NotAsked)] == ["given_up"] * 3


async def test_more_choices_than_asked_for_are_not_stored(tmp_path: Path) -> None:
    class Generous:
        async def answer(self, request: Request, samples: int = 1) -> Outcome:
            more = tuple(Completion(str(number), "stop") for number in range(samples))
            return Answer(Completion("first", "stop"), more=more)

        async def close(self) -> None:
            pass

    async with asking(tmp_path, spec_of(), through=lambda _: Generous()) as asker:
        found = await replies(asker, samples(2))

    assert texts(found) == ["first", "0"]


# Choices on the wire


def choices(*messages: object, **usage: int) -> HttpReply:
    listed = [
        {"index": place, "message": message, "finish_reason": "stop"}
        for place, message in enumerate(messages)
    ]
    return HttpReply(200, {}, json.dumps({"model": "m", "choices": listed[::-1], "usage": usage}).encode())


def read(sent: HttpReply) -> tuple[Completion, ...]:
    outcome = OpenAIChatWire().read(sent, question())
    assert isinstance(outcome, Answer)
    return outcome.completions


def test_choices_are_taken_in_the_order_of_their_index() -> None:
    sent = choices({"content": "a"}, {"content": "b"}, {"content": "c"})

    assert [completion.text for completion in read(sent)] == ["a", "b", "c"]


def test_a_broken_choice_and_those_behind_it_are_left_to_be_asked_again() -> None:
    sent = choices({"content": "a"}, None, {"content": "c"}, prompt_tokens=3, completion_tokens=9)

    (only,) = read(sent)

    assert (only.text, only.usage) == ("a", Usage(3, 0, 9))  # what the broken one cost is in the bill


def test_a_reply_whose_first_choice_is_broken_is_unusable() -> None:
    outcome = OpenAIChatWire().read(choices(None, {"content": "b"}), question())

    assert isinstance(outcome, Retry)
    assert outcome.body is not None


@given(
    choices_=st.lists(st.one_of(st.none(), st.integers(), st.dictionaries(st.text(max_size=5), st.none())))
)
def test_whatever_stands_among_the_choices_nothing_is_raised(choices_: list[object]) -> None:
    OpenAIChatWire().read(HttpReply(200, {}, json.dumps({"choices": choices_}).encode()), question())
