"""Lanes against simulated servers: how much of a limit is used, and how soon after a storm. Time is simulated."""

import math

import pytest

from synthgen.asking.ask import crowding_at
from synthgen.asking.lanes import Place
from synthgen.asking.providers import AnthropicConfig, OpenAIConfig, RemoteTeacherConfig, VllmConfig
from synthgen.recipe.model import Limits
from tests.simulated import START, OneLane, Server, drive, now, simulate


def run(
    server: Server,
    limits: Limits,
    *,
    for_s: float,
    queued: bool = False,
    max_tokens: int = 0,
    patience_s: float = math.inf,
    timeout_s: float | None = None,
) -> OneLane:
    """Drive a lane with these limits against `server`; it is told of `patience_s`, `timeout_s` is what happens."""

    async def story() -> OneLane:
        lane = OneLane(limits, crowding="queued" if queued else "refused", patience_s=patience_s)
        await drive(lane, server, for_s=for_s, max_tokens=max_tokens, timeout_s=timeout_s)
        return lane

    return simulate(story())


@pytest.mark.parametrize(
    ("limits", "tells"), [(Limits(rpm=600), False), (Limits(), True), (Limits(rpm=5000), True)]
)
def test_600_requests_a_minute_are_used_and_hardly_ever_exceeded(limits: Limits, tells: bool) -> None:
    server = Server(rpm=600, tells=tells, retry_after_s=1.0)

    run(server, limits, for_s=300)

    assert server.rate(60, 300) >= 0.95 * 10
    assert len(server.refused) <= 0.005 * (len(server.answered) + len(server.refused))


@pytest.mark.parametrize("latency_s", [0.5, 8.0])
def test_answers_a_tenth_of_max_tokens_leave_no_tokens_unused(latency_s: float) -> None:
    server = Server(tpm=200_000, latency_s=latency_s, retry_after_s=1.0)

    run(server, Limits(tpm=200_000), for_s=300, max_tokens=1000)

    assert server.rate(60, 300) >= 0.9 * 200_000 / 60 / 150
    assert len(server.refused) <= 0.005 * len(server.answered)


@pytest.mark.parametrize("retry_after_s", [None, 5.0])
@pytest.mark.parametrize("limits", [Limits(), Limits(concurrency=64), Limits(rpm=6000)])
def test_two_minutes_of_429_are_over_within_30_seconds(limits: Limits, retry_after_s: float | None) -> None:
    def down(at: float) -> bool:
        return START + 60 <= at < START + 180

    server = Server(places=64, down=down, retry_after_s=retry_after_s)

    run(server, limits, for_s=270)

    assert server.rate(210, 270) >= 0.95 * server.rate(30, 60)
    assert len([at for at in server.refused if START + 70 <= at < START + 180]) <= 60


class Pausing(OneLane):
    """Remembers when the last pause ended, or will end."""

    pause_ends = 0.0

    def was_limited(
        self, place: Place, wait_s: float | None, *, exhausted: bool = False, overloaded: bool = False
    ) -> None:
        super().was_limited(place, wait_s, exhausted=exhausted, overloaded=overloaded)
        if self.paused_s:
            self.pause_ends = now() + self.paused_s


@pytest.mark.parametrize("retry_after_s", [None, 5.0])
def test_the_first_answer_comes_within_two_seconds_of_the_last_pause(retry_after_s: float | None) -> None:
    def down(at: float) -> bool:
        return START + 10 <= at < START + 130

    server = Server(places=64, down=down, retry_after_s=retry_after_s)

    async def story() -> float:
        lane = Pausing(Limits())
        await drive(lane, server, for_s=160, rows=300)
        return lane.pause_ends

    pause_ends = simulate(story())

    first = min(at for at in server.answered if at > START + 130)
    assert START + 120 < pause_ends < first <= pause_ends + 2


@pytest.mark.parametrize("outputs", [(100, 100), (20, 400)])
def test_a_server_that_only_gets_slower_is_kept_near_its_knee(
    outputs: tuple[int, int],
) -> None:
    def server() -> Server:
        return Server(knee=64, latency_s=2.0, output_tokens=outputs)

    fixed = [server() for _ in (32, 64, 96, 128)]
    for one, concurrency in zip(fixed, (32, 64, 96, 128), strict=True):
        run(one, Limits(concurrency=concurrency), for_s=240)
    adaptive = server()

    lane = run(adaptive, Limits(), for_s=240, queued=True)

    assert adaptive.rate(60, 240) >= 0.95 * max(one.rate(60, 240) for one in fixed)
    assert lane.counts.in_flight <= 96


def test_the_knee_is_found_within_seconds() -> None:
    fixed, adaptive = Server(knee=64), Server(knee=64)

    run(fixed, Limits(concurrency=64), for_s=30)
    run(adaptive, Limits(), for_s=30, queued=True)

    assert len(adaptive.answered) >= 0.95 * len(fixed.answered)


@pytest.mark.parametrize("seed", [0, 4, 5, 7])
def test_no_luck_of_the_first_answers_leaves_half_of_a_server_unused(seed: int) -> None:
    server = Server(knee=64, spread=(0.4, 1.6), seed=seed)

    run(server, Limits(), for_s=30, queued=True)

    assert server.rate(10, 30) >= 0.9 * 64 / 0.5


@pytest.mark.parametrize("queued", [True, False])
def test_a_server_of_four_slots_is_never_sent_more_than_it_answers_in_time(queued: bool) -> None:
    server = Server(knee=4)

    lane = run(server, Limits(), for_s=120, queued=queued, patience_s=10, timeout_s=10)

    assert lane.lost == 0
    assert server.rate(10, 120) >= 0.95 * 4 / 0.5


@pytest.mark.parametrize("queued", [True, False])
def test_timeouts_that_nobody_saw_coming_make_room_for_answers(queued: bool) -> None:
    server = Server(knee=4)

    lane = run(server, Limits(concurrency=256), for_s=600, queued=queued, timeout_s=10)

    assert lane.counts.in_flight <= 80
    assert server.rate(300, 600) >= 0.7 * 4 / 0.5


def test_a_server_said_to_queue_that_refuses_is_used_as_well_as_any() -> None:
    told, untold = Server(places=64), Server(places=64)

    run(told, Limits(), for_s=120)
    run(untold, Limits(), for_s=120, queued=True)

    assert untold.rate(30, 120) >= 0.95 * told.rate(30, 120)
    assert len(untold.refused) <= 1.5 * len(told.refused)


@pytest.mark.parametrize(
    ("provider", "route", "crowding"),
    [
        (OpenAIConfig, "self-hosted", "queued"),
        (AnthropicConfig, "self-hosted", "queued"),
        (VllmConfig, None, "queued"),
        (OpenAIConfig, "openrouter", "refused"),
        (OpenAIConfig, None, "refused"),
    ],
)
def test_ones_own_server_is_taken_to_queue_in_whatever_dialect_it_is_asked(
    provider: type[RemoteTeacherConfig], route: str | None, crowding: str
) -> None:
    name = {OpenAIConfig: "openai", AnthropicConfig: "anthropic"}.get(provider, "vllm")
    config = provider.model_validate({"provider": name, "model": "m", "route": route})

    assert crowding_at(config) == crowding
