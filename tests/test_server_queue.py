"""What a server of one's own tells of its queue, and what a lane makes of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from synthgen.asking.lanes import Lane, Place
from synthgen.asking.server_queue import follow_queue, read_queue
from synthgen.asking.transport.endpoint import Endpoint, beside
from synthgen.recipe.model import Limits
from synthgen.types import Usage
from tests.loopback import Loopback
from tests.simulated import OneLane, simulate
from tests.test_ask import until

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 60.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 64.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
"""


@asynccontextmanager
async def metrics(answer: Callable[[int], web.Response]) -> AsyncIterator[tuple[str, list[str]]]:
    """A server whose n-th GET is answered so; its base URL and the paths that were asked for."""
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return answer(len(asked))

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", asked
    finally:
        await runner.cleanup()


class Told(Lane):
    """A lane that is busy, and remembers what it is told."""

    def __init__(self) -> None:
        super().__init__("big", Limits())
        self.told: list[tuple[float, float]] = []
        self.counts.in_flight = 1

    def saw_queue(self, waiting: float, running: float) -> None:
        self.told.append((waiting, running))


def test_waiting_and_running_are_summed_over_engines() -> None:
    assert read_queue(PAGE) == (64.0, 64.0)


@pytest.mark.parametrize(
    "text", ["", "<html>", "process_cpu_seconds_total 3.0\n", "vllm:num_requests_waiting NaN"]
)
def test_a_page_without_them_tells_nothing(text: str) -> None:
    assert read_queue(text) is None


@pytest.mark.parametrize(
    "text",
    [
        'sglang:num_running_reqs{model_name="m"} 8.0\nsglang:num_queue_reqs{model_name="m"} 4.0\n',
        "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 8\nllamacpp:requests_deferred 4\n",
    ],
)
def test_sglang_and_llama_cpp_are_understood_too(text: str) -> None:
    assert read_queue(text) == (4.0, 8.0)


async def test_a_server_with_a_key_is_asked_with_it() -> None:
    async with Loopback() as server:
        await follow_queue(Endpoint(server.url, "openai", "k1"), Told(), every_s=0.001)
        keys = [page.headers.get("authorization") for page in server.pages_read]

    assert keys == ["Bearer k1"]


async def test_a_busy_lane_is_told_of_the_queue_beside_the_api() -> None:
    lane = Told()
    async with metrics(lambda _: web.Response(text=PAGE)) as (url, asked):
        following = asyncio.ensure_future(follow_queue(Endpoint(url, "openai"), lane, every_s=0.001))
        await until(lambda: len(lane.told) >= 3)
        following.cancel()
        await asyncio.wait([following])

    assert set(lane.told) == {(64.0, 64.0)}
    assert set(asked) == {"/metrics"}


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_a_server_that_does_not_tell_is_asked_once(status: int) -> None:
    async with metrics(lambda _: web.Response(status=status, text="no")) as (url, asked):
        await follow_queue(Endpoint(url, "openai"), Told(), every_s=0.001)

    assert asked == ["/metrics"]


async def test_a_page_without_end_is_left() -> None:
    async with metrics(lambda _: web.Response(body=b"x" * (5 * 2**20))) as (url, asked):
        await follow_queue(Endpoint(url, "openai"), Told(), every_s=0.001)

    assert asked == ["/metrics"]


async def test_nobody_at_the_door_ends_the_following() -> None:
    await follow_queue(Endpoint("http://127.0.0.1:9/v1", "openai"), Told(), every_s=0.001)


async def test_the_page_is_asked_for_through_the_proxy_that_requests_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with metrics(lambda _: web.Response(status=404)) as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        await follow_queue(Endpoint("http://teacher.invalid/v1", "openai"), Told(), every_s=0.001)

    assert asked == ["/metrics"]


@pytest.mark.parametrize(
    ("base_url", "page"),
    [
        ("http://h:8000/v1", "http://h:8000/metrics"),
        ("http://h/qwen/v1", "http://h/qwen/metrics"),
        ("http://h/v1/openai", "http://h/metrics"),
        ("http://h/v2", "http://h/metrics"),
    ],
)
def test_a_servers_own_pages_stand_beside_its_api(base_url: str, page: str) -> None:
    assert beside(base_url, "/metrics") == page


async def test_an_idle_lane_asks_nobody() -> None:
    lane = Told()
    lane.counts.in_flight = 0
    async with metrics(lambda _: web.Response(text=PAGE)) as (url, asked):
        following = asyncio.ensure_future(follow_queue(Endpoint(url, "openai"), lane, every_s=0.001))
        await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.wait([following])

    assert asked == []


# What the lane makes of it


async def in_flight(lane: OneLane, count: int) -> list[Place]:
    return [await lane.enter(0) for _ in range(count)]


async def answered(lane: OneLane, places: list[Place], *, after_s: float) -> None:
    await asyncio.sleep(after_s)
    for place in places:
        lane.succeeded(place, Usage(1, output_tokens=1))
    for place in places:
        lane.leave(place)


async def grown(rounds: int) -> OneLane:
    """A lane whose server has been as fast with more in flight as with fewer."""
    lane = OneLane(Limits(), crowding="queued")
    for _ in range(rounds):
        await answered(lane, await in_flight(lane, lane.allowed), after_s=1.0)
    return lane


def test_a_queue_longer_than_three_tenths_of_the_work_is_not_fed_any_more() -> None:
    async def story() -> list[int]:
        lane = await grown(3)
        seen = [lane.allowed]
        places = await in_flight(lane, lane.allowed)
        lane.saw_queue(12, 100)
        seen.append(lane.allowed)
        lane.saw_queue(64, 64)
        seen.append(lane.allowed)
        lane.saw_queue(64, 64)  # it takes time to drain: the same queue is no second sign
        seen.append(lane.allowed)
        await answered(lane, places, after_s=1.0)
        return seen

    assert simulate(story()) == [128, 128, 70, 70]


@pytest.mark.parametrize(("waiting", "allowed"), [(5, 32), (0, 64)])
def test_a_lane_grows_only_while_nobody_waits_at_its_server(waiting: int, allowed: int) -> None:
    async def story() -> int:
        lane = await grown(1)
        places = await in_flight(lane, lane.allowed)
        lane.saw_queue(waiting, 100)
        await answered(lane, places, after_s=1.0)
        return lane.allowed

    assert simulate(story()) == allowed
