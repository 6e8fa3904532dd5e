"""The whole client against llmock, an independent chaos server, and what its strict verdict says of us.

llmock sees every attempt with its time: it fails a client that ignores `Retry-After`, repeats what never heals, storms,
hammers or gives up. Its `llmock` fixture comes with the package (extra `dev`); without it these tests are skipped.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("llmock")

from llmock.pytest_plugin import LLMock
from llmock.testing import LLMockServer

from tests.runs import Result, cli, recipe, save, teacher

TEMPORARY = (408, 409, 429, 500, 502, 503, 504, 529)


@dataclass(frozen=True)
class Dialect:
    """A provider, spoken over one of the transports to llmock."""

    provider: str
    transport: str
    url: str
    folder: Path

    def run(self, rows: int, **teacher_fields: object) -> Result:
        """`synthgen generate` of that many questions."""
        asked = teacher(self, provider=self.provider, transport=self.transport, **teacher_fields)
        path = save(self.folder / "r.yaml", recipe(self, rows, teachers={"qwen": asked}))
        return cli("generate", path, "-o", self.folder / "run", "--json")


@pytest.fixture(params=["openai", "anthropic"])
def dialect(request: pytest.FixtureRequest, llmock: LLMock, tmp_path: Path) -> Dialect:
    return Dialect(request.param, "aiohttp", llmock.base_url(request.param), tmp_path)


@pytest.mark.parametrize("transport", ["auto", "aiohttp", "sdk"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_every_temporary_fault_is_outlived(
    llmock: LLMock, tmp_path: Path, provider: str, transport: str
) -> None:
    for status in TEMPORARY:
        llmock.fail(status)

    result = Dialect(provider, transport, llmock.base_url(provider), tmp_path).run(20)

    assert (result.code, result.json["counts"]["accepted"]) == (0, 20)
    assert llmock.verdict().faults == len(TEMPORARY)
    llmock.assert_resilient(strict=True)


def test_repeated_faults_of_one_request_meet_longer_and_longer_waits(
    llmock: LLMock, dialect: Dialect
) -> None:
    llmock.fail(500, times=2)
    random.seed(4)  # draws a shorter second wait where all of the wait is drawn

    result = dialect.run(1)

    assert (result.code, llmock.verdict().attempts) == (0, 3)
    llmock.assert_resilient(strict=True)


def test_the_servers_time_is_kept(llmock: LLMock, dialect: Dialect) -> None:
    llmock.rate_limit(times=6, retry_after=0.7)

    result = dialect.run(12)

    assert (result.code, llmock.verdict().faults) == (0, 6)
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_a_failed_row_and_not_repeated(
    llmock: LLMock, dialect: Dialect, status: int
) -> None:
    llmock.fail(status, times=3)

    result = dialect.run(10)

    assert (result.code, result.json["counts"]["failed"], result.json["counts"]["accepted"]) == (0, 3, 7)
    assert llmock.verdict().attempts == 10
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refused_key_or_model_stops_the_run_and_is_not_repeated(
    llmock: LLMock, dialect: Dialect, status: int
) -> None:
    llmock.fail(status, times=None)

    result = dialect.run(40, limits={"concurrency": 4})

    assert (result.code, result.json["counts"]["pending"]) == (3, 40)
    assert llmock.verdict().attempts <= 4
    llmock.assert_resilient(strict=True)


def test_a_prompt_above_the_context_window_is_a_failed_row(llmock: LLMock, dialect: Dialect) -> None:
    llmock.context_overflow(times=2)

    result = dialect.run(6)

    assert (result.json["counts"]["failed"], result.json["counts"]["accepted"]) == (2, 4)
    llmock.assert_resilient(strict=True)


def test_an_answer_that_takes_too_long_is_asked_for_again(llmock: LLMock, dialect: Dialect) -> None:
    llmock.delay(2)

    result = dialect.run(4, timeout_s=0.5)

    assert (result.code, result.json["counts"]["accepted"]) == (0, 4)
    llmock.assert_resilient(strict=True)


def test_an_outage_leaves_the_rows_pending_and_is_no_storm(llmock: LLMock, dialect: Dialect) -> None:
    llmock.outage()

    down = dialect.run(5, give_up_after_s=2)
    llmock.assert_resilient(strict=True)
    llmock.reset()
    up = dialect.run(5)

    assert (down.code, down.json["counts"]["pending"]) == (3, 5)
    assert (up.code, up.json["counts"]["accepted"]) == (0, 5)


@pytest.mark.slow
def test_a_run_through_random_faults_is_resilient(
    llmock: LLMock, llmock_server: LLMockServer, dialect: Dialect
) -> None:
    llmock_server.state.chaos.error_rates = {429: 0.1, 500: 0.08, 502: 0.04, 503: 0.05, 529: 0.03}

    result = dialect.run(400)

    verdict = llmock.verdict()
    print(dialect.provider, verdict.render())
    assert (result.code, result.json["counts"]["accepted"]) == (0, 400)
    verdict.assert_ok(strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("route", ["together", "self-hosted"])
@pytest.mark.parametrize(
    ("limits", "rows"), [({"rpm": 600}, 640), ({"tpm": 60_000}, 330)], ids=["rpm", "tpm"]
)
def test_a_quota_nobody_told_us_is_found_without_a_storm(
    llmock: LLMock, dialect: Dialect, limits: dict[str, int], rows: int, route: str
) -> None:
    llmock.limits(**limits)

    result = dialect.run(rows, route=route)

    verdict = llmock.verdict()
    print(dialect.provider, limits, verdict.render())
    assert result.json["counts"]["accepted"] == rows
    assert verdict.faults <= 0.05 * rows
    verdict.assert_ok(strict=True)


@pytest.mark.slow
def test_a_quota_the_recipe_knows_is_never_met(llmock: LLMock, dialect: Dialect) -> None:
    llmock.limits(rpm=600)

    result = dialect.run(650, limits={"rpm": 600})

    assert result.json["counts"]["accepted"] == 650
    assert llmock.verdict().faults == 0
    llmock.assert_resilient(strict=True)
