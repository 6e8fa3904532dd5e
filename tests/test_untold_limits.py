"""Quotas of which a lane hears nothing but 429 and Retry-After. Time is simulated."""

import math
from dataclasses import dataclass

import pytest

from synthgen.asking.lanes import Gradient
from synthgen.asking.lanes.pace import Pace
from synthgen.recipe.model import Limits
from tests.simulated import START, OneLane, Server, drive, now, simulate

ROW = 250


@dataclass
class Quota(Server):
    """A bucket of tokens, full at the start, from which each request takes all it may use; says when it is full enough."""

    a_minute: float = 60_000
    level: float = math.nan
    at: float = START

    def _refuses(self) -> bool:
        if math.isnan(self.level):
            self.level = self.a_minute
        self.level = min(self.a_minute, self.level + (now() - self.at) * self.a_minute / 60)
        self.at = now()
        if self.level < ROW:
            self.retry_after_s = (ROW - self.level) * 60 / self.a_minute
            return True
        self.level -= ROW
        return False


def run(server: Server, *, queued: bool, for_s: float = 240) -> None:
    async def story() -> None:
        lane = OneLane(Limits(), crowding="queued" if queued else "refused")
        await drive(lane, server, for_s=for_s, rows=300)

    simulate(story())


@pytest.mark.parametrize("queued", [False, True], ids=["vendor", "own server"])
@pytest.mark.parametrize(("latency_s", "at_first"), [(0.05, 1000), (0.5, 500), (5.0, 10)])
def test_a_quota_nobody_names_is_used_and_soon_hardly_ever_met(
    latency_s: float, at_first: int, queued: bool
) -> None:
    server = Quota(latency_s=latency_s)

    run(server, queued=queued)

    later = sum(at >= START + 60 for at in server.refused)
    print(f"{len(server.refused) - later} refused in the first minute, {later} later")
    assert server.rate(60, 240) >= 0.95 * 60_000 / 60 / ROW
    assert later <= 0.02 * 180 * 60_000 / 60 / ROW
    assert len(server.refused) - later <= at_first


def test_a_dozen_requests_a_minute_are_not_asked_for_by_dozens() -> None:
    server = Quota(latency_s=0.5, a_minute=12 * ROW)

    run(server, queued=False)

    assert server.rate(60, 240) >= 0.95 * 12 / 60
    assert sum(at >= START + 60 for at in server.refused) <= 3


@pytest.mark.parametrize("places", [2, 4])
def test_a_server_of_few_places_is_not_taken_for_one_with_a_quota(places: int) -> None:
    fixed, found = Server(places=places), Server(places=places, retry_after_s=1.0)

    async def story() -> None:
        await drive(OneLane(Limits(concurrency=places)), fixed, for_s=240, rows=100)

    simulate(story())
    run(found, queued=False)

    assert found.rate(60, 240) >= 0.85 * fixed.rate(60, 240)


def test_a_server_whose_knee_is_known_grows_slowly_past_what_it_refused() -> None:
    growth = Gradient()
    limit = 16.0
    for s_per_token in (1.0, 1.0, 1.0, 2.0, 2.0):  # a knee at 64
        limit = growth.after_round(limit, s_per_token)
    growth.after_cut(20.0)

    limits = [20.0]
    for _ in range(3):
        limits.append(growth.after_round(limits[-1], 1.0))

    assert limits == [20, 21, pytest.approx(22.05), pytest.approx(23.1525)]


def test_a_storm_teaches_no_pace() -> None:
    pace = Pace()
    for second in range(60):
        pace.refused(float(second), float(second), 1)

    assert not pace.is_set


def test_a_pace_is_what_was_answered_between_two_refusals_and_ends_where_nothing_is_refused_any_more() -> (
    None
):
    pace = Pace()
    pace.refused(0.0, 0.0, 2)
    for second in range(1, 11):
        pace.answered(float(second))

    assert pace.refused(10.0, 9.0, 2)
    pace.sent(10.0)
    assert pace.wait_s(10.0) == pytest.approx(1 / 0.98)

    for second in range(11, 200):
        pace.answered(float(second))
    assert not pace.is_set
