"""Prices: the dated table as data, who it counts for, and the sums."""

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.asking.prices import FREE, ListPrice, cost_usd, find_list_price, find_price, price_table
from synthgen.recipe.model import Price, TeacherConfig
from synthgen.types import Usage

ROWS = [(name, row) for name, vendor in price_table().items() for row in vendor.rows]
VENDOR = "api.openai.com"


def teacher(
    model: str = "gpt-4.1-mini", provider: str = "openai", price: Price | None = None
) -> TeacherConfig:
    return TeacherConfig(provider=provider, model=model, price=price)


def test_the_table_gives_the_published_price_at_the_vendors_host() -> None:
    assert find_price(teacher(), VENDOR) == Price(input=0.40, cached_input=0.10, output=1.60)


def test_a_snapshot_has_the_price_of_its_model() -> None:
    dated = find_price(teacher("gpt-4.1-mini-2025-04-14"), VENDOR)

    assert dated == find_price(teacher("gpt-4.1-mini"), VENDOR)


def test_an_anthropic_snapshot_has_the_price_of_its_model() -> None:
    config = teacher("claude-haiku-4-5-20251001", "anthropic")

    assert find_price(config, "api.anthropic.com") == Price(input=1.0, cached_input=0.1, output=5.0)


def test_a_row_for_the_exact_snapshot_comes_first() -> None:
    exact = find_list_price("openai", VENDOR, "gpt-4o-2024-05-13")
    later = find_list_price("openai", VENDOR, "gpt-4o-2024-11-20")

    assert exact is not None
    assert later is not None
    assert (exact.input, later.input) == (5.0, 2.5)


@pytest.mark.parametrize(
    "model", ["gpt-4.1-mini-custom", "gpt-4", "ft:gpt-4.1-mini:org", "gpt-4.1-mini-2025"]
)
def test_a_name_that_only_starts_alike_has_no_price(model: str) -> None:
    assert find_price(teacher(model), VENDOR) is None


@pytest.mark.parametrize("host", [None, "127.0.0.1", "openrouter.ai", "eu.api.openai.com"])
def test_a_foreign_host_has_no_list_price(host: str | None) -> None:
    assert find_price(teacher(), host) is None


def test_the_recipes_price_wins_over_the_table() -> None:
    own = Price(input=9, output=9)

    assert find_price(teacher(price=own), VENDOR) == own


def test_a_local_model_is_free() -> None:
    assert find_price(teacher("any", "local")) == FREE


def test_vllm_has_no_price_but_the_recipes() -> None:
    assert find_price(teacher("qwen3", "vllm"), "127.0.0.1") is None


def test_cached_input_is_charged_at_its_own_price() -> None:
    price = Price(input=2.0, cached_input=0.5, output=8.0)

    assert cost_usd(price, Usage(1_000_000, 400_000, 500_000)) == pytest.approx(1.2 + 0.2 + 4.0)


def test_cached_input_defaults_to_the_input_price() -> None:
    assert cost_usd(Price(input=2.0, output=8.0), Usage(1_000_000, 400_000, 0)) == pytest.approx(2.0)


def test_reasoning_tokens_are_not_charged_twice() -> None:
    price = Price(input=0, output=10.0)

    assert cost_usd(price, Usage(output_tokens=100_000, reasoning_tokens=90_000)) == pytest.approx(1.0)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_cost_is_never_negative(cached: int, fresh: int, output: int) -> None:
    price = Price(input=3, cached_input=0.3, output=15)

    assert cost_usd(price, Usage(cached + fresh, cached, output)) >= 0


@pytest.mark.parametrize(("vendor", "row"), ROWS, ids=[f"{vendor}/{row.model}" for vendor, row in ROWS])
def test_every_row_is_dated_sourced_and_plausible(vendor: str, row: ListPrice) -> None:
    assert date(2024, 1, 1) <= row.as_of <= date(2026, 12, 31)
    assert row.cached_input <= row.input <= row.output
    assert find_list_price(vendor, price_table()[vendor].host, row.model) == row


def test_no_model_stands_twice_in_the_table() -> None:
    names = [(vendor, row.model) for vendor, row in ROWS]

    assert len(set(names)) == len(names)
