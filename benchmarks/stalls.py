"""How long the event loop stands still while a run goes on: p50, p99.9 and the longest.

    python benchmarks/stalls.py [--rows-per-s 500] [--seconds 30]

A probe in the run's own loop asks to be woken every 2 ms and notes how late it is. The same probe beside a bare aiohttp
loop against the same server tells what of it is the machine's; `own CPU` is what the loop's thread itself computed in that
time, which other processes on a busy machine do not change. Printed are `--ask-only` and a whole run, with the
default filters and duplicate search in their thread.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import yaml
from asking import server, write_prompts, write_recipe
from clients import with_aiohttp

from synthgen.pipeline import Options
from synthgen.pipeline.generate import generate
from synthgen.recipe.load import load_recipe

_EVERY_S = 0.002
_MEAN_LATENCY_S = 0.5


async def probed(work: Callable[[], Awaitable[object]], warm_s: float) -> list[tuple[float, float]]:
    """How late, in ms, each wake-up was while the work went on, and how long the loop's thread computed until then.

    The first `warm_s` seconds are left out.
    """
    late_ms: list[tuple[float, float]] = []

    async def probe() -> None:
        begun = time.perf_counter()
        while True:
            asked, computed = time.perf_counter(), time.thread_time()
            await asyncio.sleep(_EVERY_S)
            late_s, own_s = time.perf_counter() - asked - _EVERY_S, time.thread_time() - computed
            if asked - begun > warm_s:
                late_ms.append((1000 * late_s, 1000 * own_s))

    task = asyncio.create_task(probe())
    await work()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return late_ms


def show(name: str, late_ms: list[tuple[float, float]]) -> None:
    """Two lines."""
    for what, values in (("late", [late for late, _ in late_ms]), ("own CPU", [own for _, own in late_ms])):
        values.sort()
        p50, p999 = values[len(values) // 2], values[int(0.999 * len(values))]
        print(f"{name:22} {what:8} p50 {p50:6.2f} ms, p99.9 {p999:6.1f} ms, longest {values[-1]:6.1f} ms")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows-per-s", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    rows, in_flight = options.rows_per_s * options.seconds, int(options.rows_per_s * _MEAN_LATENCY_S)
    with tempfile.TemporaryDirectory() as name, server("--latency", "0.2", "0.8") as (url, _):
        folder = Path(name)
        prompts, recipe = folder / "prompts.jsonl", folder / "recipe.yaml"
        write_prompts(prompts, rows)
        write_recipe(recipe, url, prompts, in_flight)
        show("bare aiohttp", _run(lambda: with_aiohttp(url, prompts, in_flight)))
        quiet = Options(ask_only=True, say=lambda text: print(text, file=sys.stderr))
        show("generate --ask-only", _run(lambda: generate(load_recipe(recipe), folder / "asked", quiet)))
        whole = yaml.safe_load(recipe.read_text())
        del whole["refine"]
        recipe.write_text(yaml.safe_dump(whole))
        show("generate", _run(lambda: generate(load_recipe(recipe), folder / "whole", Options())))


def _run(work: Callable[[], Awaitable[object]]) -> list[tuple[float, float]]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(probed(work, warm_s=2.0))
    return uvloop.run(probed(work, warm_s=2.0))


if __name__ == "__main__":
    main()
