"""Prompts that a vendor's content policy refuses: their rows fail, and too many of them stop the teacher."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from synthgen.asking.spec import TeacherSpec
from tests.batch_server import BatchLoopback
from tests.loopback import Act, Body, Loopback, refuse
from tests.test_ask import ask, asking, end_of, ends_of, question, spec_of, text_of
from tests.test_batches import batch_recipe, run

FLAGGED = refuse(400, {"error": {"code": "content_policy_violation", "message": "flagged"}})
INVALID = refuse(400, {"error": {"message": "unknown parameter"}})


def spec(url: str, **changes: float) -> TeacherSpec:
    one = spec_of(url, concurrency=4)
    return replace(one, config=one.config.model_copy(update=changes))


def first_of_each(ten: int, act: Act) -> Callable[[int, Body], Act | None]:
    """`act` for the first `ten` of every ten questions."""
    return lambda _number, body: act if int(text_of(body)[1:]) % 10 >= 10 - ten else None


async def test_too_many_refusals_stop_a_teacher_that_answers_others(tmp_path: Path) -> None:
    async with (
        Loopback(script=first_of_each(9, FLAGGED)) as server,
        asking(tmp_path, spec(server.url)) as asker,
    ):
        ends = await ends_of(asker, 600)
        stopped = str(asker.queues["big"].stopped)

    assert 20 <= ends.count("policy") <= 20 + 4
    assert len(server.requests) < 30
    assert ends.count("not asked: refused") == 600 - len(server.requests)
    assert "`stop_at_refusal_rate` (0.2)" in stopped


@pytest.mark.parametrize(
    ("ten", "act", "rate"),
    [(1, FLAGGED, 0.2), (5, FLAGGED, 0.7), (5, INVALID, 0.2)],
    ids=["below the rate", "a rate of one's own", "not for what they say"],
)
async def test_refusals_below_the_rate_fail_their_rows_alone(
    tmp_path: Path, ten: int, act: Act, rate: float
) -> None:
    async with (
        Loopback(script=first_of_each(ten, act)) as server,
        asking(tmp_path, spec(server.url, stop_at_refusal_rate=rate)) as asker,
    ):
        ends = await ends_of(asker, 300)

    assert (ends.count("answer"), len(server.requests)) == (300 - 30 * ten, 300)


async def test_refusals_of_long_ago_do_not_count(tmp_path: Path) -> None:
    async with (
        Loopback(
            script=lambda _number, body: FLAGGED if int(text_of(body)[1:]) % 200 < 15 else None
        ) as server,
        asking(tmp_path, spec(server.url)) as asker,
    ):
        ends = await ends_of(asker, 400)

    assert (ends.count("policy"), ends.count("answer")) == (30, 370)


async def refused_in_two_sessions(
    tmp_path: Path, first: int, *, answered: int = 0, between: Callable[[Path], object] = lambda _: None
) -> list[str]:
    """The ends of ten flagged prompts, asked behind so many flagged and then answered ones of the session before."""
    async with Loopback(script=lambda _, body: FLAGGED if text_of(body)[0] == "f" else None) as server:
        async with asking(tmp_path, spec(server.url)) as asker:
            for number in range(first):
                await end_of(ask(asker, f"flagged {number}"))
            await ends_of(asker, answered)
        between(tmp_path)
        async with asking(tmp_path, spec(server.url)) as asker:
            return [await end_of(ask(asker, f"flagged again {number}")) for number in range(10)]


async def test_a_teacher_stopped_for_refusals_is_stopped_by_the_next_one_in_a_later_session(
    tmp_path: Path,
) -> None:
    assert await refused_in_two_sessions(tmp_path, 20) == ["policy"] + ["not asked: refused"] * 9


async def test_refusals_add_up_over_sessions(tmp_path: Path) -> None:
    assert await refused_in_two_sessions(tmp_path, 15) == ["policy"] * 5 + ["not asked: refused"] * 5


async def test_answers_of_an_earlier_session_move_its_refusals_out_of_the_window(tmp_path: Path) -> None:
    assert await refused_in_two_sessions(tmp_path, 15, answered=90) == ["policy"] * 10


async def test_samples_that_came_with_one_request_count_as_one_in_a_later_session(tmp_path: Path) -> None:
    async with Loopback(script=lambda _, body: FLAGGED if text_of(body)[0] == "f" else None) as server:
        async with asking(tmp_path, spec(server.url)) as asker:
            for number in range(19):
                await end_of(ask(asker, f"flagged {number}"))
            for number in range(6):
                samples = [replace(question(f"q{number}"), sample=sample) for sample in range(16)]
                await asker.ask_samples(samples, step="answer", alias="big")
        async with asking(tmp_path, spec(server.url)) as asker:
            ends = [await end_of(ask(asker, f"flagged again {number}")) for number in range(2)]

    assert ends == ["policy", "not asked: refused"]


async def test_a_torn_tail_costs_nothing_of_the_window(tmp_path: Path) -> None:
    def tear(folder: Path) -> None:
        with (folder / "000001.jsonl").open("ab") as file:
            file.write(b'00000000 {"k":')

    assert (await refused_in_two_sessions(tmp_path, 19, between=tear)).count("policy") == 1


@pytest.mark.parametrize(("flagged", "reason"), [(20, "refused"), (19, "None")])
def test_a_batch_that_was_refused_too_often_is_the_last(tmp_path: Path, flagged: int, reason: str) -> None:
    with BatchLoopback(
        row=lambda number, _body: "flagged" if number <= flagged else "expired" if number == 25 else None
    ) as server:
        report = run(batch_recipe(tmp_path, server, 25), tmp_path / "run")

    assert report.counts["failed"] == flagged
    assert reason in str(report.problem)
    assert len(server.batches) == (1 if reason == "refused" else 2)
