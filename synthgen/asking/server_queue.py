"""What one's own server tells of its queue, for the lanes that find out how much it bears.

In: the resolved teachers and their lanes. Out: `Lane.saw_queue`, once a second while something is in flight. Guarantees:
one GET at a time, with the credential that requests have, on a connection of its own, through the proxy that requests go
through, and no redirect is followed; a server that does not tell is asked once; nothing here can fail or hold up a run.
Lanes whose `concurrency` the recipe fixes are left alone.
Rejected: latency alone (it cannot tell longer answers from a queue), and a metrics client library for two numbers.

Sources: vLLM, "Production Metrics": `vllm:num_requests_waiting`, `vllm:num_requests_running`, one line an engine; SGLang,
"Production Metrics" (`--enable-metrics`): `sglang:num_queue_reqs`, `sglang:num_running_reqs`; llama.cpp, `tools/server`
README (`--metrics`, behind its `--api-key`): `llamacpp:requests_deferred`, `llamacpp:requests_processing`.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from synthgen.asking.ask import TeacherSpec
from synthgen.asking.lanes import Lane
from synthgen.asking.providers import VllmConfig, endpoint_of
from synthgen.asking.transport.endpoint import Endpoint, beside
from synthgen.asking.transport.proxy import proxy_for

if TYPE_CHECKING:
    import httpx

__all__ = ["follow_queue", "follow_queues", "read_queue"]

_EVERY_S = 1.0
_TIMEOUT_S = 5.0
_AGAIN_S = 15.0
_PAGE_BYTES = 4 * 2**20
_WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
_RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
_VALUE = re.compile(
    rf"^({'|'.join(_WAITING + _RUNNING)})(?:\{{[^}}\n]*\}})?[ \t]+(\d{{1,9}}(?:\.\d+)?)", re.MULTILINE
)


def read_queue(text: str) -> tuple[float, float] | None:
    """Requests waiting and running, over all engines; None where the text tells neither."""
    found = [(name in _WAITING, float(number)) for name, number in _VALUE.findall(text)]
    if not found:
        return None
    return sum(number for waits, number in found if waits), sum(
        number for waits, number in found if not waits
    )


async def follow_queues(specs: Mapping[str, TeacherSpec], lanes: Mapping[str, Lane]) -> None:
    """Follow every server that may have a queue to tell of, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for spec in specs.values():
            for host in spec.hosts:
                config = host.config
                if isinstance(config, VllmConfig) and config.limits.concurrency is None:
                    group.create_task(follow_queue(endpoint_of(config), lanes[host.alias]))


async def follow_queue(endpoint: Endpoint, lane: Lane, *, every_s: float = _EVERY_S) -> None:
    """Tell `lane` of the queue at its server; returns where that tells nothing."""
    base_url = endpoint.base_url
    while not lane.counts.in_flight:  # noqa: ASYNC110  # a number of the lane's, which has no event for it
        await asyncio.sleep(every_s)
    await asyncio.to_thread(import_module, "httpx")  # a tenth of a second, not on the loop
    import httpx

    url, told, wait_s = beside(base_url, "/metrics"), False, every_s
    tls = await asyncio.to_thread(
        ssl.create_default_context
    )  # what the data plane trusts, not httpx's own list
    async with httpx.AsyncClient(
        timeout=_TIMEOUT_S,
        verify=tls,
        trust_env=False,
        proxy=proxy_for(base_url),
        headers=endpoint.headers(),
    ) as client:
        while not lane.ended:
            if lane.counts.in_flight:
                queue = read_queue(await _page(client, url))
                if queue is None and not told:
                    return
                if queue is not None:
                    lane.saw_queue(*queue)
                told, wait_s = True, every_s if queue is not None else _AGAIN_S
            await asyncio.sleep(wait_s)


async def _page(client: "httpx.AsyncClient", url: str) -> str:
    """The text at `url`; empty where there is none, or one without end."""
    import httpx

    page = bytearray()
    try:
        async with asyncio.timeout(_TIMEOUT_S), client.stream("GET", url) as reply:
            if not reply.is_success:
                return ""
            async for chunk in reply.aiter_bytes():
                page += chunk
                if len(page) > _PAGE_BYTES:
                    return ""
    except (httpx.HTTPError, httpx.StreamError, TimeoutError):
        return ""
    return page.decode(errors="replace")
