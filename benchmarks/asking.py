"""What a row costs: `synthgen generate --ask-only` beside a bare aiohttp loop and an AsyncOpenAI loop.

    python benchmarks/asking.py [--rows 20000] [--in-flight 64] [--latency 0 0] [--rounds 3] [--without openai]

One server process (on core 0 where there is more than one), the clients one after another (on core 1), every round in
the same order; the table shows medians and ratios to the bare loop of the same run. CPU counts the whole process,
start and imports included.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
Result = dict[str, float]


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """A benchmark server; yields its URL, prints what it counted at the end."""
    command = [*_on_core(0), sys.executable, str(HERE / "server.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            print("server:", process.stdout.read().strip(), file=sys.stderr)


def _on_core(core: int) -> list[str]:
    cores = os.cpu_count() or 1
    return ["taskset", "-c", str(core)] if cores > 1 and sys.platform == "linux" else []


def write_prompts(path: Path, rows: int) -> None:
    """Prompts of about 1.2 KB each, all different."""
    filler = "Consider every aspect of the question before you answer it. " * 18
    with path.open("w") as file:
        for n in range(rows):
            file.write(json.dumps({"instruction": f"Question {n}. {filler}"}) + "\n")


def write_recipe(path: Path, url: str, prompts: Path, in_flight: int) -> None:
    """A recipe of one step over the prompts."""
    recipe = {
        "name": "bench",
        "use": ["evaluate-only"],
        "source": {"jsonl": str(prompts), "license": "own"},
        "teachers": {
            "bench": {
                "provider": "vllm",
                "base_url": url,
                "route": "self-hosted",
                "model": "bench",
                "hf": "Qwen/Qwen3-8B",
                "limits": {"concurrency": in_flight},
                "sampling": {"max_tokens": 512},
            }
        },
        "steps": [{"name": "answer", "prompt": "answer", "teacher": "bench"}],
        "refine": {"chain": "none", "dedup": {"near": None}},
    }
    path.write_text(yaml.safe_dump(recipe))


def run(command: list[str], rows: int) -> Result:
    """Wall, CPU and memory of one child process."""
    started = time.perf_counter()
    process = subprocess.Popen([*_on_core(1), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(errors.decode())
    return _result(used, time.perf_counter() - started, rows)


def _result(used: resource.struct_rusage, wall_s: float, rows: int) -> Result:
    cpu_s = used.ru_utime + used.ru_stime
    return {
        "wall_s": wall_s,
        "rows_per_s": rows / wall_s,
        "cpu_ms_per_row": 1000 * cpu_s / rows,
        "peak_mib": used.ru_maxrss / 1024,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--latency", type=float, nargs=2, default=(0.0, 0.0))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", nargs="*", default=[], choices=["openai", "synthgen"])
    options = parser.parse_args()
    kinds = [kind for kind in ("aiohttp", "openai", "synthgen") if kind not in options.without]
    results: dict[str, list[Result]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name, server("--latency", *map(str, options.latency)) as url:
        folder = Path(name)
        write_prompts(folder / "prompts.jsonl", options.rows)
        write_recipe(folder / "recipe.yaml", url, folder / "prompts.jsonl", options.in_flight)
        for round_ in range(options.rounds):
            for kind in kinds:
                command = [sys.executable, str(HERE / "clients.py"), kind, url]
                command += [str(folder / "prompts.jsonl"), str(options.in_flight)]
                if kind == "synthgen":
                    out = str(folder / f"run{round_}")
                    command = [sys.executable, "-m", "synthgen", "generate", str(folder / "recipe.yaml")]
                    command += ["-o", out, "--ask-only", "--json"]
                results[kind].append(run(command, options.rows))
    _print(results, options)


def _print(results: dict[str, list[Result]], options: argparse.Namespace) -> None:
    print(
        f"{options.rows} rows, {options.in_flight} in flight, latency {options.latency} s, {options.rounds} rounds"
    )
    print(f"{'client':10} {'CPU ms/row':>11} {'x bare':>7} {'rows/s':>8} {'x bare':>7} {'peak MiB':>9}")
    base = {
        key: statistics.median(r[key] for r in results["aiohttp"]) for key in ("cpu_ms_per_row", "rows_per_s")
    }
    for kind, rounds in results.items():
        median = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        cpu, speed = median["cpu_ms_per_row"], median["rows_per_s"]
        print(
            f"{kind:10} {cpu:11.3f} {cpu / base['cpu_ms_per_row']:7.2f} {speed:8.0f} "
            f"{speed / base['rows_per_s']:7.2f} {median['peak_mib']:9.0f}"
        )


if __name__ == "__main__":
    main()
