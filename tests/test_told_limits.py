"""Limits on tokens that only replies tell of, and rows that are large beside their limit. Time is simulated."""

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.asking.lanes import Bucket, Place
from synthgen.asking.lanes.quotas import Quotas
from synthgen.asking.outcome import SeenLimit
from synthgen.asking.wire.waits import read_limits
from synthgen.recipe.model import Limits
from synthgen.types import Usage
from tests.simulated import START, OneLane, Server, drive, now, simulate

ROW = 200 + 300
FEW = 10  # tokens that a prompt of 200 looks like


@dataclass
class CountsAtAdmission(Server):
    """Counts all that a request will use when it comes, in a window that slides or starts anew with the clock."""

    limit: int = 120_000
    window: Literal["slides", "starts anew"] = "slides"
    others: float = 0.0  # the share of the limit that other users of the key take, a request a second
    input_tokens: int = 200
    used: deque[tuple[float, int]] = field(default_factory=deque)
    next_output: int = 0
    others_until: float = START

    def _refuses(self) -> bool:
        if not self.next_output:
            self.next_output = self._random.randint(100, 500)
        while self.others and self.others_until < now():
            self.others_until += 1
            self.used.append((self.others_until, int(self.others * self.limit / 60)))
        if self.limit - self._in_window() < self.input_tokens + self.next_output:
            return True
        self.used.append((now(), self.input_tokens + self.next_output))
        self.output_tokens = self.next_output, self.next_output
        self.next_output = 0
        return False

    def _in_window(self) -> int:
        begins = now() - 60 if self.window == "slides" else now() // 60 * 60 - 1e-9
        while self.used and self.used[0][0] <= begins:
            self.used.popleft()
        return sum(tokens for _, tokens in self.used)

    def _headers(self) -> tuple[SeenLimit, ...]:
        remaining = self.limit - self._in_window()
        ends = self.used[0][0] + 60 if self.window == "slides" else now() // 60 * 60 + 60
        said = {"limit": self.limit, "remaining": remaining, "reset": f"{ends - now():.3f}s"}
        return read_limits({f"x-ratelimit-{name}-tokens": str(value) for name, value in said.items()}, 0.0)


def used_and_refused(server: CountsAtAdmission, limits: Limits, *, for_s: float = 180) -> tuple[float, float]:
    """The share of the limit that is used after the first minute, and the share of requests refused."""

    async def story() -> None:
        lane = OneLane(limits)
        await drive(lane, server, for_s=for_s, rows=300, max_tokens=3000, looks_like=FEW)

    simulate(story())
    used = server.rate(60, for_s) * 60 * ROW / server.limit
    return used, len(server.refused) / (len(server.answered) + len(server.refused))


@pytest.mark.parametrize("window", ["slides", "starts anew"])
def test_a_limit_on_tokens_that_only_replies_name_is_used_and_never_met(
    window: Literal["slides", "starts anew"],
) -> None:
    used, refused = used_and_refused(CountsAtAdmission(window=window), Limits())

    assert used >= 0.95
    assert refused <= 0.005


@pytest.mark.parametrize("limits", [Limits(), Limits(tpm=20_000)], ids=["told", "known"])
def test_rows_that_are_large_beside_the_limit_are_not_refused_again_and_again(limits: Limits) -> None:
    used, refused = used_and_refused(CountsAtAdmission(limit=20_000), limits)

    assert used >= 0.9
    assert refused <= 0.005


@pytest.mark.parametrize("limits", [Limits(), Limits(tpm=120_000)], ids=["told", "known"])
@pytest.mark.parametrize("seed", range(4))
def test_what_others_leave_of_a_limit_is_used(limits: Limits, seed: int) -> None:
    used, refused = used_and_refused(CountsAtAdmission(others=0.5, seed=seed), limits, for_s=300)

    print(f"{used:.3f} of the limit, {refused:.3f} refused")
    assert used >= 0.4
    assert refused <= 0.15


def test_a_limit_that_is_told_late_counts_what_was_sent_before() -> None:
    quotas = Quotas(Limits(), 0.0)
    first, second = Place(10, 3000), Place(10, 3000)
    for place in (first, second):
        quotas.wait_s(place, 0.0)
        quotas.take(place, 0.0)

    quotas.see(first, [SeenLimit("tokens", 60_000, 50_000, 60.0)], 1.0)
    quotas.settle(first, Usage(200, output_tokens=300))

    assert quotas.levels(1.0) == {"tokens per 60 s": [1000.0 - 500 - 3010, 60_000]}


@given(amounts=st.lists(st.integers(1, 1000), min_size=20, max_size=80))
@settings(max_examples=50, deadline=None)
def test_no_minute_holds_more_than_the_limit_once_large_amounts_are_usual(amounts: list[int]) -> None:
    bucket, at = Bucket(10_000, 60.0, 0.0), 0.0
    bucket.widen(1000)
    passed: list[tuple[float, int]] = []

    for amount in amounts:
        at += bucket.wait_s(amount, at)
        bucket.take(amount)
        passed.append((at, amount))

    sums = (
        sum(amount for at, amount in passed[first:] if at < start + 60 - 1e-6)
        for first, (start, _) in enumerate(passed)
    )
    assert max(sums) <= 10_000


def test_large_amounts_cost_a_tenth_of_the_rate_at_most() -> None:
    bucket = Bucket(6000, 60.0, 0.0)

    for amount in itertools.accumulate([100.0] * 30):
        bucket.widen(amount)

    assert bucket.rate >= 0.9 * 6000 / 60


def test_the_first_answer_shows_what_those_in_flight_are_expected_to_take() -> None:
    async def story() -> object:
        lane = OneLane(Limits())
        first, *_others = [await lane.enter(FEW, 3000) for _ in range(3)]
        lane.saw(first, [SeenLimit("tokens", 60_000, 50_000, 60.0)])
        lane.leave(first, Usage(200, output_tokens=300))
        return lane.state()["limits"]

    assert simulate(story()) == {"tokens per 60 s": [1000.0 - 500 - 2 * (FEW + 300), 60_000]}


def test_an_answer_takes_what_it_used_also_where_it_was_expected_shorter() -> None:
    async def story() -> object:
        lane = OneLane(Limits())
        first, second = [await lane.enter(FEW, 3000) for _ in range(2)]
        lane.saw(first, [SeenLimit("tokens", 60_000, 50_000, 60.0)])
        lane.leave(first, Usage(200, output_tokens=100))
        lane.leave(second, Usage(200, output_tokens=2000))
        return lane.state()["limits"]

    assert simulate(story()) == {"tokens per 60 s": [1000.0 - 300 - 2200, 60_000]}
