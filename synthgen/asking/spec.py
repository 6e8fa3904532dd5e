"""A teacher of a recipe, resolved: who it is, what it costs in this mode, how to reach it.

In: what the recipe and the price list say. Out: `TeacherSpec`, and from it the most that a request can cost.
"""

from typing import Literal

from synthgen.asking.prices import cost_usd
from synthgen.dataclasses import dataclass
from synthgen.recipe.model import Price, TeacherConfig
from synthgen.types import Request, TeacherIdentity, Usage

__all__ = ["TeacherSpec"]


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher of a recipe, resolved: who it is, what it costs in this mode (None: unknown), how to reach it.

    `pool` holds the same teacher once for each of its hosts where it has several, with an alias of its own; else
    nothing.
    """

    alias: str
    identity: TeacherIdentity
    config: TeacherConfig
    price: Price | None
    endpoint: str
    pool: tuple["TeacherSpec", ...] = ()
    mode: Literal["live", "batch"] = "live"

    @property
    def hosts(self) -> tuple["TeacherSpec", ...]:
        """One spec for each endpoint; what is sent goes to one of them."""
        return self.pool or (self,)

    def worst_usd(self, request: Request) -> float:
        """The most `request` can cost; 0 without a price (then there is no cap to keep)."""
        return self.worst_shares(request, 1)[0]

    def worst_shares(self, request: Request, samples: int) -> list[float]:
        """The most each of `samples` answers to one request can cost; the first carries the input."""
        if self.price is None:
            return [0.0] * samples
        output_tokens = request.sampling.max_tokens or 0
        first = cost_usd(self.price, Usage(request.input_tokens_bound(), output_tokens=output_tokens))
        return [first] + [cost_usd(self.price, Usage(output_tokens=output_tokens))] * (samples - 1)
