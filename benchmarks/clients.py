"""Baselines: the least a client can do, as one process each.

`python benchmarks/clients.py aiohttp|openai URL PROMPTS.jsonl IN_FLIGHT`: send every prompt once, parse every answer,
keep nothing. Prints JSON: rows, seconds, CPU seconds, peak memory. `aiohttp` is aiohttp with orjson, `openai` the
vendor's AsyncOpenAI with retries off; neither limits, retries, journals or prices anything.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import orjson

Send = Callable[[str], Awaitable[str]]


def prompts(path: Path) -> Iterator[str]:
    """The instructions, read lazily."""
    with path.open("rb") as file:
        for line in file:
            yield orjson.loads(line)["instruction"]


async def send_all(send: Send, path: Path, in_flight: int) -> int:
    """`in_flight` workers over one iterator; the number of answers."""
    source = prompts(path)
    done = 0

    async def work() -> None:
        nonlocal done
        for prompt in source:
            assert await send(prompt)
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
    return done


async def with_aiohttp(url: str, path: Path, in_flight: int) -> int:
    """The floor: one session, JSON in and out."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def send(prompt: str) -> str:
            body = orjson.dumps(
                {"model": "bench", "messages": [{"role": "user", "content": prompt}], "max_tokens": 512}
            )
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as reply:
                return orjson.loads(await reply.read())["choices"][0]["message"]["content"]

        return await send_all(send, path, in_flight)


async def with_openai(url: str, path: Path, in_flight: int) -> int:
    """The vendor's SDK as most scripts use it."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def send(prompt: str) -> str:
            reply = await client.chat.completions.create(
                model="bench", messages=[{"role": "user", "content": prompt}], max_tokens=512
            )
            return reply.choices[0].message.content or ""

        return await send_all(send, path, in_flight)


def main() -> None:
    """Command line."""
    kind, url, path, in_flight = sys.argv[1:5]
    work = {"aiohttp": with_aiohttp, "openai": with_openai}[kind](url, Path(path), int(in_flight))
    started = time.perf_counter()
    try:
        import uvloop
    except ImportError:
        rows = asyncio.run(work)
    else:
        rows = uvloop.run(work)
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "rows": rows,
        "wall_s": time.perf_counter() - started,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
