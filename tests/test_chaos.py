"""The client under fire: servers that hang, dribble, flood, restart and lie, and what a run makes of them.

What one reply means is in `test_wires`, what one connection does in `test_client`; here is what remains after many of
them: sockets, double payments, rows, and the way back. Longer forms are marked `slow`.
"""

import asyncio
import errno
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from synthgen.asking.outcome import Answer, LaneStop, Retry
from tests.loopback import (
    ANSWER,
    CHUNKED,
    CLOSE,
    DRIBBLE,
    DROP_AFTER,
    DROP_BEFORE,
    ENDLESS,
    HANG,
    HTML,
    MALFORMED,
    TRUNCATE,
    Act,
    Body,
    Loopback,
    refuse,
)
from tests.runs import cli, published_bytes, questions, recipe, records, save, save_rows, teacher
from tests.test_ask import asking, ends_of, kinds, spec_of, until
from tests.test_cli import started, wait_for
from tests.test_client import KEY, Client, ask


@pytest.fixture(params=["openai-auto", "openai-aiohttp", "openai-sdk", "anthropic-aiohttp", "anthropic-sdk"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    for module in ("direct", "aiohttp_transport", "sdk"):
        monkeypatch.setattr(f"synthgen.asking.transport.{module}.BODY_CAP_BYTES", 4 * 2**20)
    provider, _, transport = str(request.param).partition("-")
    return Client(provider, transport)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# ---- one strange server, one reply


@pytest.mark.parametrize("act", [CHUNKED, CLOSE], ids=lambda act: act.kind)
async def test_an_answer_is_an_answer_however_it_is_framed(client: Client, act: Act) -> None:
    async with Loopback(script=lambda _n, _body: act) as server, client.teacher(server.url) as teacher:
        outcomes = [await teacher.answer(ask(str(number))) for number in range(3)]

    assert [type(outcome) for outcome in outcomes] == [Answer] * 3


async def test_a_body_that_dribbles_in_times_out_as_perhaps_paid(client: Client) -> None:
    async with Loopback(script=[DRIBBLE]) as server, client.teacher(server.url, timeout_s=0.2) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("timeout", True)


async def test_an_endless_body_is_given_up_at_the_cap(client: Client) -> None:
    async with Loopback(script=[ENDLESS]) as server, client.teacher(server.url, timeout_s=10) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("body", True)


@pytest.mark.parametrize(
    ("code", "kind"), [("invalid_api_key", LaneStop), ("server_error", Retry)], ids=["final", "temporary"]
)
async def test_an_error_inside_a_200_is_that_error(
    client: Client, code: str, kind: type[LaneStop | Retry]
) -> None:
    act = refuse(200, {"error": {"code": code, "message": "so it is"}})

    async with Loopback(script=[act]) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, kind)


ROUGH = [
    HANG, DRIBBLE, ENDLESS, HTML, TRUNCATE, MALFORMED, DROP_BEFORE, DROP_AFTER, CHUNKED, CLOSE, ANSWER,
    refuse(200, {"error": {"message": "no"}}), refuse(500), refuse(429),
]  # fmt: skip


async def test_no_socket_outlives_a_rough_reply(client: Client) -> None:
    def script(number: int, _body: Body) -> Act:
        return ROUGH[number % len(ROUGH)] if number > 1 else ANSWER

    async with Loopback(script=script) as server, client.teacher(server.url, timeout_s=0.2) as teacher:
        await teacher.answer(ask("first"))
        before = open_files()
        for number in range(3 * len(ROUGH)):
            await teacher.answer(ask(str(number)))
        async with asyncio.timeout(5):
            await until(lambda: open_files() <= before)


async def test_a_server_that_restarts_in_the_middle_costs_no_row(tmp_path: Path) -> None:
    server = Loopback(latency_s=0.005)
    await server.start()

    async with asking(tmp_path, spec_of(server.url, concurrency=8)) as asker:
        asked = asyncio.ensure_future(ends_of(asker, 80))
        await until(lambda: len(server.payments) >= 20)
        before = open_files()
        await server.stop()
        await until(lambda: asker.lanes["big"].counts.errors >= 8)
        await server.start()
        ends = await asked
        after = open_files()
    await server.stop()

    assert ends == ["answer"] * 80
    assert kinds(tmp_path).count("R") == 80
    assert server.paid_twice <= 8  # what was on the wire when it went
    assert after <= before


# ---- the mix


SHARES = [
    (0.05, DROP_AFTER), (0.05, refuse(429)), (0.03, refuse(500)), (0.02, refuse(529)), (0.02, TRUNCATE),
    (0.02, MALFORMED),
]  # fmt: skip
LOSES_A_PAID_ANSWER = {"drop_after", "truncate", "malformed"}


def mixed(tally: Counter[str]) -> Callable[[int, Body], Act]:
    """One of the acts of the mix; `tally` counts them by kind.

    Drawn by the question and how often it was asked, so that the order of arrival changes nothing: six faults of one
    request fail its row, as they should, and drawn anew in every run that happened to one run in thirty.
    """
    asked: Counter[str] = Counter()

    def script(_number: int, body: Body) -> Act:
        question = json.dumps(body["messages"])
        asked[question] += 1
        drawn = Random(f"{question} {asked[question]}").random()
        act = ANSWER
        for share, candidate in SHARES:
            if 0 <= drawn < share:
                act = candidate
            drawn -= share
        tally[act.kind] += 1
        return act

    return script


async def test_a_mix_of_faults_pays_twice_only_for_answers_that_were_lost(tmp_path: Path) -> None:
    tally: Counter[str] = Counter()

    async with (
        Loopback(script=mixed(tally)) as server,
        asking(tmp_path, spec_of(server.url, concurrency=64)) as asker,
    ):
        ends = await ends_of(asker, 1000)

    failed = [end for end in ends if end != "answer"]  # one request in 1,400 loses three answers
    assert all(end.startswith("gave_up:") for end in failed)
    assert len(failed) < 10
    assert (kinds(tmp_path).count("R"), kinds(tmp_path).count("F")) == (1000 - len(failed), len(failed))
    assert server.paid_twice == sum(tally[kind] for kind in LOSES_A_PAID_ANSWER) - len(failed) > 0
    assert max(Counter(payment.request for payment in server.payments).values()) == 3


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_run_of_5000_prompts_through_the_mix_has_one_record_each(tmp_path: Path, provider: str) -> None:
    tally: Counter[str] = Counter()

    with Loopback(script=mixed(tally)) as server:
        asked = teacher(server, provider=provider, limits={"concurrency": 256})
        content = recipe(
            server, 5000, teachers={"qwen": asked}, refine={"chain": "none", "dedup": {"near": None}}
        )
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    ids = [record["id"] for record in records(tmp_path / "run")]
    counts = result.json["counts"]
    assert (result.code, counts["accepted"] + counts["failed"]) == (0, 5000)
    assert counts["failed"] < 20  # one request in 1,400 loses three answers
    assert len(ids) == len(set(ids)) == counts["accepted"]
    assert len({payment.request for payment in server.payments}) == 5000
    assert server.paid_twice == sum(tally[kind] for kind in LOSES_A_PAID_ANSWER) - counts["failed"] > 0
    assert max(Counter(payment.request for payment in server.payments).values()) == 3
    print({"requests": len(server.requests), "paid_twice": server.paid_twice, **tally})


# ---- what never heals

FATAL = {
    "openai-quota": (
        "openai",
        refuse(429, {"error": {"code": "insufficient_quota", "message": "no credit"}}),
    ),
    "openai-401": ("openai", refuse(401, {"error": {"code": "invalid_api_key", "message": "bad key"}})),
    "openai-402": ("openai", refuse(402, {"error": {"message": "Insufficient Balance"}})),
    "anthropic-401": ("anthropic", refuse(401, {"type": "error", "error": {"type": "authentication_error"}})),
    "anthropic-402": ("anthropic", refuse(402, {"type": "error", "error": {"type": "billing_error"}})),
    "anthropic-400-credit": (
        "anthropic",
        refuse(
            400,
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "Your credit balance is too low to access the API.",
                },
            },
        ),
    ),
}


@pytest.mark.parametrize("name", FATAL)
def test_what_never_heals_stops_the_run_and_leaves_the_rest_pending(tmp_path: Path, name: str) -> None:
    provider, act = FATAL[name]
    in_flight = 4
    broken = {"on": True}

    def script(number: int, _body: Body) -> Act | None:
        return act if broken["on"] and number > 10 else None

    with Loopback(script=script) as server:
        asked = teacher(server, provider=provider, limits={"concurrency": in_flight})
        path = save(tmp_path / "r.yaml", recipe(server, 60, teachers={"qwen": asked}))
        stopped = cli("generate", path, "-o", tmp_path / "run", "--json")
        sent = len(server.requests)
        broken["on"] = False
        again = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert (stopped.code, stopped.json["counts"]["pending"]) == (3, 50)
    assert sent <= 10 + in_flight
    assert (again.code, again.json["counts"]["accepted"]) == (0, 60)
    assert server.paid_twice == 0


# ---- the way back


def finished(folder: Path, server: Loopback, rows: int = 12, **changes: object) -> Path:
    """A recipe whose run is complete, beside it."""
    limits = {"concurrency": 1}
    content = recipe(server, rows, teachers={"qwen": teacher(server, limits=limits, **changes)})
    path = save(folder / "r.yaml", content)
    assert cli("generate", path, "-o", folder / "run").code == 0
    assert len(server.requests) == rows
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_journal_cut_at_any_byte_of_its_last_two_records_loses_at_most_those(tmp_path: Path) -> None:
    with Loopback() as server:
        path = finished(tmp_path, server, rows=4)
        before = published_bytes(tmp_path / "run")
        whole = (tmp_path / "run" / "journal" / "000001.jsonl").read_bytes()
        lines = whole.splitlines(keepends=True)
        last = len(lines[-1])
        for cut in range(len(whole) - last - len(lines[-2]), len(whole)):
            shutil.copytree(tmp_path / "run", tmp_path / "cut")
            (tmp_path / "cut" / "journal" / "000001.jsonl").write_bytes(whole[:cut])
            sent = len(server.requests)
            assert cli("generate", path, "-o", tmp_path / "cut").code == 0
            assert len(server.requests) - sent <= 1, f"cut at byte {cut}"
            assert published_bytes(tmp_path / "cut") == before
            shutil.rmtree(tmp_path / "cut")


def test_a_flipped_bit_in_an_answer_is_reported_and_asks_one_row_again(tmp_path: Path) -> None:
    with Loopback() as server:
        path = finished(tmp_path, server)
        before = published_bytes(tmp_path / "run")
        segment = tmp_path / "run" / "journal" / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        hit = next(n for n, line in enumerate(lines) if n > len(lines) // 2 and b'"t":"R"' in line)
        lines[hit] = lines[hit][:-20] + bytes([lines[hit][-20] ^ 1]) + lines[hit][-19:]
        segment.write_bytes(b"".join(lines))
        again = cli("generate", path, "-o", tmp_path / "run")

    assert again.code == 0
    assert "what it held is asked again" in again.err
    assert len(server.requests) == 13
    assert published_bytes(tmp_path / "run") == before


def test_an_input_output_error_at_the_sync_is_exit_6_and_loses_no_acknowledged_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, left = os.fdatasync, [6]

    def failing(file: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(file)

    with Loopback() as server:
        asked = teacher(server, limits={"concurrency": 4})
        path = save(tmp_path / "r.yaml", recipe(server, 30, teachers={"qwen": asked}))
        monkeypatch.setattr("synthgen.journal.writer.os.fdatasync", failing)
        failed = cli("generate", path, "-o", tmp_path / "run")
        sent = len(server.requests)
        monkeypatch.undo()
        again = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert (failed.code, 0 < sent < 30) == (6, True)
    assert "Traceback" not in failed.err
    assert (again.code, again.json["counts"]["accepted"]) == (0, 30)
    assert server.paid_twice <= 4


def test_a_moved_run_asks_nothing(tmp_path: Path) -> None:
    with Loopback() as server:
        path = finished(tmp_path, server)
        before = published_bytes(tmp_path / "run")
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        again = cli("generate", path, "-o", tmp_path / "elsewhere")

    assert (again.code, len(server.requests)) == (0, 12)
    assert published_bytes(tmp_path / "elsewhere") == before


def test_another_host_of_the_pool_another_key_and_other_patience_ask_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRST_KEY", "first-0123456789")
    monkeypatch.setenv("SECOND_KEY", "second-0123456789")

    with Loopback() as server, Loopback() as other:
        finished(tmp_path, server, api_key_env="FIRST_KEY")
        changed = teacher(
            other, api_key_env="SECOND_KEY", timeout_s=7, connect_timeout_s=3, give_up_after_s=60
        )
        path = save(tmp_path / "r.yaml", recipe(other, 12, teachers={"qwen": changed}))
        again = cli("generate", path, "-o", tmp_path / "run")

    assert (again.code, len(server.requests), len(other.requests)) == (0, 12, 0)


def test_an_upgrade_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback() as server:
        path = finished(tmp_path, server)
        monkeypatch.setattr("synthgen.pipeline.publishing.package_version", lambda: "99.0.0")
        again = cli("generate", path, "-o", tmp_path / "run")

    assert (again.code, len(server.requests)) == (0, 12)


def test_a_renamed_column_the_prompt_does_not_read_asks_nothing(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    source = {"jsonl": str(rows), "license": "own"}

    with Loopback() as server:
        save_rows(rows, [{**question, "topic": "x"} for question in questions(5)])
        path = save(tmp_path / "r.yaml", recipe(server, source=source))
        cli("generate", path, "-o", tmp_path / "run")
        save_rows(rows, [{**question, "theme": "x"} for question in questions(5)])
        again = cli("generate", path, "-o", tmp_path / "run")

    assert (again.code, len(server.requests)) == (0, 5)


@pytest.mark.slow
def test_a_second_signal_ends_a_run_within_a_second(tmp_path: Path) -> None:
    with Loopback(hold=10_000) as server:
        process = started(save(tmp_path / "r.yaml", recipe(server, 30)), tmp_path / "run")
        wait_for(lambda: server.in_flight == 16, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        process.stderr.readline()
        signalled = time.perf_counter()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
        took_s = time.perf_counter() - signalled

    print(f"{took_s:.2f} s from the second signal to the end")
    assert process.returncode == 130
    assert "what this session did not settle counts as pending, its replies are stored" in said
    assert took_s < 1
