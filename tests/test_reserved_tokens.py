"""Servers that count `max_tokens` against a limit on tokens and give nothing back, as OpenAI documents it."""

from dataclasses import dataclass

import pytest

from synthgen.asking.lanes.quotas import Place, Quotas
from synthgen.asking.outcome import SeenLimit
from synthgen.recipe.model import Limits
from synthgen.types import Usage
from tests.simulated import START, OneLane, Server, drive, now, simulate

TPM = 60_000


@dataclass
class CountsMaxTokens(Server):
    """A bucket that refills evenly; a request takes its prompt and its `max_tokens`, and every reply says what is left."""

    max_tokens: int = 200
    level: float = TPM
    at: float = START

    def _refuses(self) -> bool:
        self.level = min(TPM, self.level + (now() - self.at) * TPM / 60)
        self.at = now()
        if self.level < self.input_tokens + self.max_tokens:
            return True
        self.level -= self.input_tokens + self.max_tokens
        return False

    def _headers(self) -> tuple[SeenLimit, ...]:
        return (SeenLimit("tokens", TPM, float(int(self.level)), 60.0),)


def test_a_limit_that_counts_max_tokens_is_used_up_without_a_storm() -> None:
    server = CountsMaxTokens(output_tokens=(10, 30))
    most_a_second = TPM / (server.input_tokens + server.max_tokens) / 60

    async def story() -> None:
        await drive(OneLane(Limits()), server, for_s=240, rows=400, max_tokens=200)

    simulate(story())

    late = [at for at in server.refused if at > START + 90]
    print(
        f"{server.rate(90, 240) / most_a_second:.3f} of the limit, {len(server.refused)} refusals, {len(late)} late"
    )
    assert server.rate(90, 240) >= 0.95 * most_a_second
    assert len(late) <= 0.02 * server.rate(90, 240) * 150


def seen(remaining: float) -> list[SeenLimit]:
    return [SeenLimit("tokens", TPM, remaining, 60.0)]


def learned() -> Quotas:
    """Quotas of a lane whose answers use a tenth of what they may."""
    quotas = Quotas(Limits(tpm=TPM), 0.0)
    for _ in range(3):
        place = Place(50, 200)
        quotas.wait_s(place, 0.0)
        quotas.take(place, 0.0)
        quotas.settle(place, Usage(50, output_tokens=20))
    return quotas


def told(quotas: Quotas, remaining: float, *, refused: bool = True) -> None:
    """The reply to a request says what remains."""
    place = Place(50, 200)
    quotas.wait_s(place, 10.0)
    quotas.take(place, 10.0)
    quotas.see(place, seen(remaining), 10.0, refused=refused)
    quotas.settle(place, Usage())  # as the lane does with every reply; here it used nothing


def taken_next(quotas: Quotas) -> float:
    """What the next request takes."""
    place = Place(50, 200)
    quotas.wait_s(place, 10.0)
    before = level(quotas)
    quotas.take(place, 10.0)
    return before - level(quotas)


def level(quotas: Quotas) -> float:
    levels = quotas.levels(10.0)["tokens per 60 s"]
    assert isinstance(levels, list)
    now_, _ = levels
    assert isinstance(now_, float)
    return now_


@pytest.mark.parametrize(
    ("remaining", "refused", "takes"),
    [
        (100.0, True, 250),  # enough for 70, refused: the server counts 250
        (60.0, True, 70),  # not even enough for 70: no sign of another way of counting
        (300.0, True, 70),  # enough also for 250: something else refused it
        (100.0, False, 70),
    ],
    ids=["counts-max-tokens", "used-up", "another-limit", "answered"],
)
def test_only_a_refusal_despite_enough_tokens_shows_another_way_of_counting(
    remaining: float, refused: bool, takes: int
) -> None:
    quotas = learned()

    for _ in range(3):
        told(quotas, remaining, refused=refused)

    assert taken_next(quotas) == pytest.approx(takes, rel=0.1)


@pytest.mark.parametrize(
    "remainders",
    [[100.0, 100.0], [100.0, 0.0, 100.0, 0.0, 100.0, 0.0, 100.0]],
    ids=["too few", "as many that were not enough"],
)
def test_doubtful_refusals_show_nothing(remainders: list[float]) -> None:
    quotas = learned()

    for remaining in remainders:
        told(quotas, remaining)

    assert taken_next(quotas) == pytest.approx(70, rel=0.1)


def test_a_limit_whose_answers_nearly_use_max_tokens_is_no_storm() -> None:
    server = CountsMaxTokens(input_tokens=200, output_tokens=(300, 500), max_tokens=600)

    async def story() -> None:
        await drive(OneLane(Limits()), server, for_s=240, rows=400, max_tokens=600)

    simulate(story())

    assert len(server.refused) <= 0.05 * len(server.answered)
