"""What rate limits cost: 300 prompts, 16 in flight, 50 ms latency, every fifth request refused with Retry-After 1.

    python -m benchmarks.rate_limited            from the root of a checkout; needs no network but loopback

The same run is made twice, against a calm and a busy loopback server; printed are both times and the excess. Peers that
block a worker for the wait, or pause everybody, lose 20 to 90 s here. Every row must be answered once.
"""

import tempfile
import time
from pathlib import Path

import synthgen
from tests.loopback import LoopbackProcess
from tests.runs import recipe, teacher

PROMPTS, IN_FLIGHT, LATENCY_S, BOUND_S = 300, 16, 0.05, 5.0


def run_s(folder: Path, *arguments: str) -> float:
    """Seconds of one run against a server of its own."""
    folder.mkdir()
    with LoopbackProcess("--latency", str(LATENCY_S), *arguments, log=folder / "log.jsonl") as server:
        qwen = teacher(server, limits={"concurrency": IN_FLIGHT})
        started = time.monotonic()
        report = synthgen.generate(recipe(server, PROMPTS, teachers={"qwen": qwen}), folder / "run")
        elapsed_s = time.monotonic() - started
        paid = server.payments()
    assert report.counts["accepted"] == len(paid) == len({payment.request for payment in paid}) == PROMPTS, (
        report
    )
    return elapsed_s


def main() -> None:
    """Print both times and the excess; fail above the bound."""
    with tempfile.TemporaryDirectory() as folder:
        run_s(Path(folder) / "warm")  # imports, file caches
        calm_s = run_s(Path(folder) / "calm")
        busy_s = run_s(Path(folder) / "busy", "--every", "5:429:1")
    print(f"unhindered {calm_s:.2f} s, every fifth refused {busy_s:.2f} s, excess {busy_s - calm_s:.2f} s")
    assert busy_s - calm_s < BOUND_S, f"excess above {BOUND_S} s"


if __name__ == "__main__":
    main()
