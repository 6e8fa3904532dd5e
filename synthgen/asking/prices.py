"""What a token costs: the recipe's price, else a dated table of published list prices, else unknown.

In: a teacher's config and its host, or a price and the usage of one answer. Out: `Price` or None, or USD. Guarantees:
the table counts only for the vendor's own host (a gateway sets its own prices); a model matches by its name, with or
without a snapshot date, never by a prefix. An unknown price is None, never 0: under a budget that is an error,
not a free run. Costs are frozen into the journal when bought, so a new table changes no old run.

The table holds standard-tier, short-prompt prices; a batch costs half of them. Not in it: cache writes (25 % above
input where a recipe asks for them), the surcharge for very long prompts, priority and regional tiers. Rejected: asking a price service at
run time (a plan would depend on the day and on a third host).
"""

import re
from datetime import date
from functools import cache
from pathlib import Path

import tomli
from pydantic import Field

from synthgen.dataclasses import dataclass
from synthgen.recipe.model import Price, Strict, TeacherConfig
from synthgen.types import Usage

__all__ = ["FREE", "ListPrice", "batch_price", "cost_usd", "find_list_price", "find_price", "price_table"]

FREE = Price(input=0.0, output=0.0)
# Both vendors, input and output alike. Sources: developers.openai.com/api/docs/guides/batch ("50% lower costs"),
# platform.claude.com/docs/build-with-claude/batch-processing ("cutting costs by 50%"), both read 2026-11.
BATCH_SHARE = 0.5
_SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})")


class ListPrice(Strict):
    """One row of `prices.toml`: USD per million tokens, and where and when that was published."""

    model: str = Field(min_length=1)
    input: float = Field(gt=0)
    cached_input: float = Field(gt=0)
    output: float = Field(gt=0)
    as_of: date
    source: str = Field(pattern=r"^https://")

    def price(self) -> Price:
        """The part that costs are computed from."""
        return Price(input=self.input, cached_input=self.cached_input, output=self.output)


@dataclass(frozen=True, slots=True)
class _Vendor:
    host: str
    rows: tuple[ListPrice, ...]


@cache
def price_table() -> dict[str, _Vendor]:
    """Provider name -> its host and rows, as packaged."""
    with Path(__file__).with_name("prices.toml").open("rb") as file:
        loaded = tomli.load(file)
    return {
        name: _Vendor(
            vendor["host"],
            tuple(ListPrice.model_validate({**vendor["defaults"], **row}) for row in vendor["prices"]),
        )
        for name, vendor in loaded["vendor"].items()
    }


def find_list_price(provider: str, host: str | None, model: str) -> ListPrice | None:
    """The published price of `model` at its vendor's own host; a row for the exact snapshot comes first."""
    vendor = price_table().get(provider)
    if vendor is None or host != vendor.host:
        return None
    by_name = {row.model: row for row in vendor.rows}
    snapshot = re.fullmatch(rf"(.+?){_SNAPSHOT.pattern}", model)
    return by_name.get(model) or (by_name.get(snapshot[1]) if snapshot else None)


def find_price(config: TeacherConfig, host: str | None = None) -> Price | None:
    """What this teacher costs, None if nobody says.

    The recipe's `price` wins; a model in this process costs nothing; else the table, for the vendor's own host.
    """
    if config.price is not None:
        return config.price
    if config.provider == "local":
        return FREE
    listed = find_list_price(config.provider, host, config.model)
    return listed.price() if listed else None


def batch_price(price: Price) -> Price:
    """What the same tokens cost in a batch."""
    cached = None if price.cached_input is None else price.cached_input * BATCH_SHARE
    return Price(input=price.input * BATCH_SHARE, output=price.output * BATCH_SHARE, cached_input=cached)


def cost_usd(price: Price, usage: Usage) -> float:
    """USD for one answer; `cached_input` defaults to `input`. Reasoning is part of the output."""
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = usage.input_tokens - usage.cached_input_tokens
    spent = (
        fresh * price.input + usage.cached_input_tokens * cached_price + usage.output_tokens * price.output
    )
    return spent / 1_000_000
