"""The cap: spent and reserved together never exceed it, whatever the order of events."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.asking.budget import Budget
from synthgen.errors import BudgetReached

STEPS = st.lists(
    st.tuples(
        st.floats(0, 2),  # worst price
        st.floats(0, 1),  # what it costs, as a share of that
        st.integers(0, 3),  # turns of the loop before it starts
        st.integers(0, 3),  # turns it is in flight
        st.booleans(),  # cancelled while it waits or flies
    ),
    max_size=40,
)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@given(cap_usd=st.floats(0, 10), spent_usd=st.floats(0, 5), steps=STEPS)
@settings(max_examples=200, deadline=None)
def test_spent_and_reserved_never_exceed_the_cap(
    cap_usd: float, spent_usd: float, steps: list[tuple[float, float, int, int, bool]]
) -> None:
    budget = Budget(cap_usd, spent_usd)
    limit_usd = max(cap_usd, spent_usd) + 1e-9

    async def one(worst_usd: float, share: float, start: int, flight: int) -> None:
        await turns(start)
        await budget.reserve(worst_usd)
        cost_usd = worst_usd
        try:
            assert budget.spent_usd + budget.reserved_usd <= limit_usd
            await turns(flight)
            cost_usd = worst_usd * share
        finally:
            budget.settle(worst_usd, cost_usd)
            assert budget.spent_usd + budget.reserved_usd <= limit_usd

    async def story() -> list[BaseException | None]:
        tasks = [asyncio.ensure_future(one(*step[:4])) for step in steps]
        await turns(2)
        for task, step in zip(tasks, steps, strict=True):
            if step[4]:
                task.cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)

    ends = asyncio.run(story())

    unexpected = [
        end for end in ends if not isinstance(end, BudgetReached | asyncio.CancelledError | type(None))
    ]
    assert unexpected == []
    assert budget.reserved_usd == 0.0


async def test_a_request_waits_for_those_in_flight_to_settle() -> None:
    budget = Budget(1.0, 0.0)
    await budget.reserve(0.8)
    second = asyncio.ensure_future(budget.reserve(0.5))
    await turns(3)
    assert not second.done()

    budget.settle(0.8, 0.1)
    await second

    assert (budget.spent_usd, budget.reserved_usd) == (0.1, 0.5)


async def test_a_request_that_does_not_fit_with_nothing_in_flight_reaches_the_budget() -> None:
    budget = Budget(1.0, 0.7)

    with pytest.raises(BudgetReached, match=r"0\.700000 of 1\.000000 USD spent.*0\.400000"):
        await budget.reserve(0.4)


async def test_a_reached_budget_is_final_also_for_what_would_fit() -> None:
    budget = Budget(1.0, 0.7)
    with pytest.raises(BudgetReached):
        await budget.reserve(0.4)

    with pytest.raises(BudgetReached):
        await budget.reserve(0.1)


async def test_reaching_the_budget_ends_all_who_wait() -> None:
    budget = Budget(1.0, 0.0)
    await budget.reserve(0.9)
    waiting = [asyncio.ensure_future(budget.reserve(0.5)) for _ in range(3)]
    await turns(2)

    budget.settle(0.9, 0.9)
    ends = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(end) for end in ends] == [BudgetReached] * 3


async def test_what_costs_nothing_passes_a_reached_budget() -> None:
    budget = Budget(0.0, 0.0)
    with pytest.raises(BudgetReached):
        await budget.reserve(0.1)

    await budget.reserve(0.0)


async def test_without_a_cap_everything_fits_and_is_counted() -> None:
    budget = Budget(None, 0.0)
    await budget.reserve(1e9)

    budget.settle(1e9, 3.0)

    assert (budget.spent_usd, budget.reserved_usd) == (3.0, 0.0)


async def test_the_cap_can_be_used_to_the_last_cent() -> None:
    budget = Budget(0.3, 0.0)

    for _ in range(3):
        await budget.reserve(0.1)
        budget.settle(0.1, 0.1)

    assert budget.spent_usd == pytest.approx(0.3)


async def test_rounding_leaves_no_reservation_behind() -> None:
    budget = Budget(100.0, 0.0)
    for number in range(1, 2000):
        await budget.reserve(0.1 / number)
    for number in range(1999, 0, -1):
        budget.settle(0.1 / number, 0.0)

    assert budget.reserved_usd == 0.0


async def test_a_reply_that_never_came_keeps_its_reservation() -> None:
    budget = Budget(1.0, 0.0)
    await budget.reserve(0.6)
    budget.settle(0.6, 0.6)

    with pytest.raises(BudgetReached):
        await budget.reserve(0.5)
