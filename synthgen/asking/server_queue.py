"""What vLLM tells of its own queue, for the lanes that find out how much their server bears.

In: the resolved teachers and their lanes. Out: `Lane.saw_queue`, once a second while something is in flight. Guarantees:
one GET at a time, without credential, on a connection of its own, through the proxy that requests go through; a server
that does not tell is asked once; nothing here can fail or hold up a run. Lanes whose `concurrency` the recipe fixes are
left alone.
Rejected: latency alone (it cannot tell longer answers from a queue), and a metrics client library for two numbers.

Source: vLLM, "Production Metrics": `vllm:num_requests_waiting`, `vllm:num_requests_running`, one line an engine.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from synthgen.asking.ask import TeacherSpec
from synthgen.asking.lanes import Lane
from synthgen.asking.providers import VllmConfig
from synthgen.asking.transport.endpoint import beside
from synthgen.asking.transport.proxy import proxy_for

if TYPE_CHECKING:
    import httpx

__all__ = ["follow_queue", "follow_queues", "read_queue"]

_EVERY_S = 1.0
_TIMEOUT_S = 5.0
_AGAIN_S = 15.0
_PAGE_BYTES = 4 * 2**20
_VALUE = re.compile(
    r"^vllm:num_requests_(waiting|running)(?:\{[^}\n]*\})?[ \t]+(\d{1,9}(?:\.\d+)?)", re.MULTILINE
)


def read_queue(text: str) -> tuple[float, float] | None:
    """Requests waiting and running, over all engines; None where the text tells neither."""
    sums = {"waiting": 0.0, "running": 0.0}
    found = _VALUE.findall(text)
    for name, number in found:
        sums[name] += float(number)
    return (sums["waiting"], sums["running"]) if found else None


async def follow_queues(specs: Mapping[str, TeacherSpec], lanes: Mapping[str, Lane]) -> None:
    """Follow every server that may have a queue to tell of, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for spec in specs.values():
            for host in spec.hosts:
                config = host.config
                if isinstance(config, VllmConfig) and config.limits.concurrency is None:
                    group.create_task(follow_queue(config.base_url, lanes[host.alias]))


async def follow_queue(base_url: str, lane: Lane, *, every_s: float = _EVERY_S) -> None:
    """Tell `lane` of the queue at its server; returns where that tells nothing."""
    while not lane.counts.in_flight:  # noqa: ASYNC110  # a number of the lane's, which has no event for it
        await asyncio.sleep(every_s)
    await asyncio.to_thread(import_module, "httpx")  # a tenth of a second, not on the loop
    import httpx

    url, told, wait_s = beside(base_url, "/metrics"), False, every_s
    tls = await asyncio.to_thread(
        ssl.create_default_context
    )  # what the data plane trusts, not httpx's own list
    async with httpx.AsyncClient(
        timeout=_TIMEOUT_S, verify=tls, trust_env=False, proxy=proxy_for(base_url)
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
