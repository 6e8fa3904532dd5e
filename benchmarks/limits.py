"""How much of a server's limit `synthgen generate --ask-only` uses, and what it costs in refusals.

    python benchmarks/limits.py [--rpm 600] [--seconds 150] [--knee 64]

First a server that allows `--rpm` requests a minute in a sliding window, the recipe names the limit: rows a minute as a
share of it, over the whole run and in the minutes after the first that are whole, and 429s as a share of all requests.
Then a server that never refuses, but slows down with more than
`--knee` in flight: rows a second with no `concurrency` in the recipe, beside the best of some fixed ones, in the same
run. Figures hold whole processes, start and slow start included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent


def write_inputs(folder: Path, url: str, rows: int, limits: dict[str, int], provider: str) -> Path:
    """Prompts and a recipe of one step over them."""
    with (folder / "prompts.jsonl").open("w") as file:
        for n in range(rows):
            file.write(json.dumps({"instruction": f"Question {n}: why?"}) + "\n")
    recipe = {
        "name": "bench",
        "use": ["evaluate-only"],
        "source": {"jsonl": str(folder / "prompts.jsonl"), "license": "own"},
        "teachers": {
            "bench": {
                "provider": provider,
                "base_url": url,
                "route": "self-hosted",
                "model": "bench",
                "hf": "Qwen/Qwen3-8B",
                "limits": limits,
                "sampling": {"max_tokens": 512},
            }
        },
        "steps": [{"name": "answer", "prompt": "answer", "teacher": "bench"}],
        "refine": {"chain": "none", "dedup": {"near": None}},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@dataclass(frozen=True)
class Counted:
    """What a server counted; `paid_by_minute` since its first answer."""

    requests: int
    paid: int
    paid_by_minute: list[int]
    limited: int
    max_in_flight: int
    span_s: float


def measure(rows: int, limits: dict[str, int], provider: str, *server: str) -> tuple[float, Counted]:
    """Seconds of one run against a server of its own, and what that counted."""
    command = [sys.executable, str(HERE / "server.py"), *server]
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        recipe = write_inputs(Path(name), process.stdout.readline().strip(), rows, limits, provider)
        generate = [sys.executable, "-m", "synthgen", "generate", str(recipe), "-o", f"{name}/run"]
        started = time.monotonic()
        try:
            subprocess.run([*generate, "--ask-only", "--json"], check=True, capture_output=True)
            elapsed_s = time.monotonic() - started
        finally:
            process.terminate()
        counted = Counted(**json.loads(process.stdout.read()))
    return elapsed_s, counted


def _later(counted: Counted, rpm: int) -> str:
    whole = counted.paid_by_minute[1:-1]
    return f"{sum(whole) / len(whole) / rpm:.3f}" if whole else "(too short a run to say)"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rpm", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--knee", type=int, default=64)
    options = parser.parse_args()

    rows = int(options.rpm * options.seconds / 60)
    seconds, counted = measure(
        rows, {"rpm": options.rpm}, "openai", "--latency", "0.2", "0.8", "--rpm", str(options.rpm)
    )
    print(
        f"{options.rpm} requests a minute: {rows} rows in {seconds:.1f} s, "
        f"{rows / seconds * 60 / options.rpm:.3f} of the limit, after the first minute {_later(counted, options.rpm)}, "
        f"429s {counted.limited / counted.requests:.4f} of requests, lost {rows - counted.paid}"
    )

    rows = 60 * options.knee
    speeds: dict[str, float] = {}
    for concurrency in (None, options.knee // 2, options.knee, 2 * options.knee):
        limits = {} if concurrency is None else {"concurrency": concurrency}
        arguments = ("--latency", "0.2", "0.8", "--knee", str(options.knee))
        seconds, counted = measure(rows, limits, "vllm", *arguments)
        name = "adaptive" if concurrency is None else str(concurrency)
        speeds[name] = rows / seconds
        print(f"knee at {options.knee}, in flight {name:>8}: {rows / seconds:6.1f} rows/s", end="")
        print(f", most in flight {counted.max_in_flight}")
    best = max(speed for name, speed in speeds.items() if name != "adaptive")
    print(f"adaptive / best fixed {speeds['adaptive'] / best:.3f}")


if __name__ == "__main__":
    main()
