"""What a long job has to get through: servers whose waiting times lie, estimates that are wrong, a few slow answers,
and a process that is killed again and again. Hours are simulated, sockets are real; the longest form is `slow`.
"""

import asyncio
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

import synthgen
from synthgen.asking.outcome import SeenLimit
from synthgen.recipe.model import Limits
from synthgen.types import Usage
from tests import test_crash
from tests.loopback import Act, Body, Loopback, LoopbackProcess, refuse
from tests.runs import published_bytes, recipe, records, teacher
from tests.simulated import START, OneLane, Server, drive, now, simulate
from tests.test_ask import asking, ends_of, spec_of

# ---- how long a server says to wait


def gone(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(1_700_000_000 - seconds, UTC), usegmt=True)


@pytest.mark.parametrize(
    "said",
    [
        {"retry-after": "0"},
        {"retry-after": "-7"},
        {"retry-after": "soon"},
        {"retry-after": ""},
        {"retry-after": gone(3600)},
        {"retry-after-ms": "20"},
        {"retry-after-ms": "0", "retry-after": "1e9"},
        {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "1h"},
    ],
    ids=lambda said: " ".join(f"{name}={value}" for name, value in said.items()),
)
async def test_no_spelling_of_a_short_wait_costs_a_row_or_an_hour(
    tmp_path: Path, said: dict[str, str]
) -> None:
    act = Act("refuse", 429, {"error": {"message": "slow down"}}, said)

    async with (
        Loopback(script=[act] * 4) as server,
        asking(tmp_path, spec_of(server.url, concurrency=4)) as asker,
    ):
        async with asyncio.timeout(10):
            ends = await ends_of(asker, 12)

    assert ends == ["answer"] * 12
    assert len(server.requests) == 16


@dataclass
class Watched(Server):
    """Remembers when each request came, and until when it had told everybody to wait."""

    came: list[float] = field(default_factory=list)
    early: list[float] = field(default_factory=list)
    waits_until: float = 0.0

    async def serve(self) -> tuple[Usage | None, tuple[SeenLimit, ...]]:
        self.came.append(now())
        if now() < self.waits_until:
            self.early.append(now())
        usage, headers = await super().serve()
        if usage is None:
            self.waits_until = max(self.waits_until, now() + (self.retry_after_s or 0.0))
        return usage, headers


def test_inside_a_pause_nothing_is_sent_and_behind_it_one_probe() -> None:
    server = Watched(down=lambda at: START + 30 <= at < START + 90, retry_after_s=10.0)

    async def story() -> None:
        await drive(OneLane(Limits(concurrency=32)), server, for_s=150)

    simulate(story())

    settled = START + 41  # those on the wire when it went down have come back, and the lane knows
    assert [at for at in server.early if at > settled] == []
    probes = [at for at in server.came if settled < at < START + 90]
    assert 4 <= len(probes) <= 6
    first = min(at for at in server.answered if at > START + 90)
    last_pause_ends = max(probes) + 10.0
    assert first <= last_pause_ends + 2.0


# ---- wrong estimates


@dataclass
class Underestimated(Server):
    """Counts ten times the input that a prompt looks like."""

    factor: int = 10

    async def serve(self) -> tuple[Usage | None, tuple[SeenLimit, ...]]:
        usage, headers = await super().serve()
        if usage is None:
            return usage, headers
        more = (self.factor - 1) * usage.input_tokens
        self._tokens.append((now(), more))
        return Usage(usage.input_tokens + more, output_tokens=usage.output_tokens), headers


def test_prompts_ten_times_as_long_as_estimated_are_no_storm() -> None:
    server = Underestimated(tpm=100_000, retry_after_s=1.0, input_tokens=100, output_tokens=(40, 60))

    async def story() -> None:
        await drive(OneLane(Limits(tpm=100_000)), server, for_s=300, max_tokens=60)

    simulate(story())

    most_a_second = 100_000 / 1050 / 60
    print(f"{server.rate(60, 300) / most_a_second:.3f} of the limit, {len(server.refused)} refused")
    assert server.rate(60, 300) >= 0.9 * most_a_second
    assert len(server.refused) <= 0.02 * len(server.answered)


# ---- slow answers and retries


def test_a_few_slow_answers_do_not_hold_up_the_end() -> None:
    rows, in_flight, usual_s, slow_s = 4000, 64, 0.5, 10.0
    draw = random.Random(5)
    latencies = [slow_s if draw.random() < 0.01 else usual_s for _ in range(rows)]

    async def story() -> float:
        lane = OneLane(Limits(concurrency=in_flight))

        async def row(latency_s: float) -> None:
            place = await lane.enter(10)
            await asyncio.sleep(latency_s)
            lane.succeeded(place)
            lane.leave(place, Usage(10))

        started = now()
        await asyncio.gather(*map(row, latencies))
        return now() - started

    took_s = simulate(story())

    ideal_s = sum(latencies) / in_flight
    print(f"{took_s:.1f} s, ideal {ideal_s:.1f} s")
    assert took_s <= 1.1 * ideal_s + slow_s


def test_retries_go_out_before_the_first_pass_ends(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> Act | None:
        text = str(body["messages"])
        seen[text] += 1
        return refuse(500, retry_after="0.1") if seen[text] == 1 and "number 7?" in text else None

    seen: Counter[str] = Counter()
    with Loopback(script=script, latency_s=0.005) as server:
        asked = teacher(server, limits={"concurrency": 2})
        report = synthgen.generate(recipe(server, 200, teachers={"qwen": asked}), tmp_path / "run")

    order = [str(seen.body["messages"]) for seen in server.requests]
    again = len(order) - 1 - order[::-1].index(next(text for text in order if "number 7?" in text))
    assert report.counts["accepted"] == 200
    assert again < len(order) - 40


# ---- other machines


def test_a_machine_without_uvloop_makes_the_same_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loopback() as server:
        synthgen.generate(recipe(server, 20), tmp_path / "with")
        monkeypatch.setitem(sys.modules, "uvloop", None)
        report = synthgen.generate(recipe(server, 20), tmp_path / "without")

    assert report.exit_code == 0
    assert published_bytes(tmp_path / "without") == published_bytes(tmp_path / "with")


# ---- killed again and again


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_5000_prompts_and_20_kills_pay_twice_only_for_what_was_on_the_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, kills, in_flight = 5000, 20, 64
    monkeypatch.setattr(test_crash, "ROWS", rows)
    monkeypatch.setattr(test_crash, "IN_FLIGHT", in_flight)
    draw = random.Random(20)
    recipe_path = test_crash.write_recipe(tmp_path / "killed")
    log, run = tmp_path / "killed.log", tmp_path / "killed" / "run"
    with LoopbackProcess("--judge-model", "judge", log=log) as server:
        # 10,000 requests, answers and judgements: somewhere in each twentieth of what is still to do.
        for left in range(kills, 0, -1):
            process = test_crash.start(recipe_path, run, server.url)
            before = sum(test_crash.paid_lines(log).values())
            due = before + draw.randint(1, max(2, (2 * rows - before) // left))
            while process.poll() is None and sum(test_crash.paid_lines(log).values()) < due:
                pass
            process.kill()
            process.communicate()
        test_crash.finish(recipe_path, run, server.url)
        payments = server.payments()
    with LoopbackProcess("--judge-model", "judge", log=tmp_path / "whole.log") as server:
        whole = test_crash.write_recipe(tmp_path / "whole")
        test_crash.finish(whole, tmp_path / "whole" / "run", server.url)

    unique = {payment.request for payment in payments}
    extra = len(payments) - len(unique)
    print(f"{len(payments)} payments, {len(unique)} unique, {extra} extra after {kills} kills")
    assert len(unique) == 2 * rows
    # Of each teacher so many are on the wire, and as many in the commit under way.
    assert extra <= kills * 2 * 2 * in_flight
    assert len(records(run)) == len({record["id"] for record in records(run)})
    assert test_crash.published(run) == test_crash.published(tmp_path / "whole" / "run")
