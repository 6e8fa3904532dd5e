"""How long to wait, and when the tries are enough."""

import random
from itertools import pairwise

import pytest

from synthgen.asking.retry import RetryPolicy


@pytest.mark.parametrize(
    ("attempt", "most_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (50, 60), (5000, 60)]
)
def test_waits_are_drawn_below_a_doubling_bound_of_at_most_a_minute(attempt: int, most_s: float) -> None:
    random.seed(1)
    policy = RetryPolicy()

    waits = [policy.backoff_s(attempt) for _ in range(400)]

    assert 0.98 * most_s < max(waits) <= most_s
    assert 0.6 * most_s <= min(waits) < 0.62 * most_s


def test_a_second_wait_is_longer_than_the_first_whatever_is_drawn() -> None:
    random.seed(1)
    policy = RetryPolicy()

    waits = [[policy.backoff_s(attempt) for attempt in range(1, 7)] for _ in range(400)]

    assert all(later > 1.1 * earlier for row in waits for earlier, later in pairwise(row))


@pytest.mark.parametrize(
    ("last_s", "least_s", "most_s"), [(0.0, 1.2, 2.0), (1.9, 2.28, 2.28), (50.0, 2.4, 4.0)]
)
def test_a_wait_is_longer_than_the_last_one_as_the_server_saw_it(
    last_s: float, least_s: float, most_s: float
) -> None:
    random.seed(1)
    policy = RetryPolicy()

    waits = [policy.backoff_s(2, last_s=last_s) for _ in range(400)]

    assert least_s <= round(min(waits), 9)
    assert round(max(waits), 9) <= most_s


def test_the_servers_time_is_kept_to_the_millisecond() -> None:
    assert RetryPolicy().backoff_s(6, 0.125) == 0.125


def test_a_server_that_says_now_is_not_hammered() -> None:
    random.seed(1)

    assert sum(RetryPolicy().backoff_s(4, 0.0) for _ in range(100)) > 100


def test_six_tries_are_enough() -> None:
    assert [RetryPolicy().exhausted(attempt) for attempt in (1, 5, 6, 7)] == [False, False, True, True]
