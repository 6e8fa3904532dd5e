"""What a row costs: `synthgen generate --ask-only` beside a bare aiohttp loop, an AsyncOpenAI loop and other tools.

    python benchmarks/asking.py [--rows 20000] [--in-flight 64] [--latency 0 0] [--rounds 3] [--without openai]
        [--curator-python PATH] [--data-designer-python PATH] [--distilabel-python PATH]

A server process for each client (on core 0 where there is more than one), the clients one after another (on core 1),
every round in the same order; the table shows medians and ratios to the bare loop of the same run. CPU counts the
whole process and the children it waited for, start and imports included; rows/s counts from the first request the
server saw to its last answer. With a latency, `ideal` is the share of what so many in flight could get at best. The
other tools are run by the interpreters that are named, see `benchmarks/peers.py`.
"""

import argparse
import json
import os
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
PEERS = ("curator", "data-designer", "distilabel")
Result = dict[str, float]


@contextmanager
def server(*arguments: str) -> Iterator[tuple[str, dict[str, float]]]:
    """A benchmark server; yields its URL, and what it counted, filled in at the end."""
    command = [*on_core(0), sys.executable, str(HERE / "server.py"), *arguments]
    counted: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), counted
        finally:
            process.terminate()
            counted.update(json.loads(process.stdout.read()))


def on_core(core: int) -> list[str]:
    """The beginning of a command that keeps its process there."""
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


def run(command: list[str], rows: int, latency: tuple[float, float], *arguments: str) -> Result:
    """One child process against a server of its own; `URL` in its command stands for the server's."""
    with server("--latency", *map(str, latency), *arguments) as (url, counted):
        command = [part.replace("URL", url) for part in command]
        process = subprocess.Popen([*on_core(1), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or counted["paid"] < rows:
        sys.exit(f"{command}: {process.returncode}, {counted}\n{errors.decode()}")
    return {
        "cpu_ms_per_row": 1000 * (used.ru_utime + used.ru_stime) / rows,
        "rows_per_s": rows / counted["span_s"],
        "peak_mib": used.ru_maxrss / 1024,
        "in_flight": counted["max_in_flight"],
    }


def command_of(kind: str, folder: Path, options: argparse.Namespace) -> list[str]:
    """How a client is started."""
    prompts, in_flight = str(folder / "prompts.jsonl"), str(options.in_flight)
    if kind in PEERS:
        python = getattr(options, f"{kind.replace('-', '_')}_python")
        return [python, str(HERE / "peers.py"), kind, "URL", prompts, in_flight]
    if kind != "synthgen":
        return [sys.executable, str(HERE / "clients.py"), kind, "URL", prompts, in_flight]
    generate = [sys.executable, "-m", "synthgen", "generate", str(folder / "recipe.yaml")]
    teacher = ["--set", "teachers.bench.base_url=URL"]
    return [*generate, *teacher, "-o", f"{folder}/run{time.monotonic_ns()}", "--ask-only", "--json"]


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
    for peer in PEERS:
        parser.add_argument(f"--{peer}-python", help=f"the interpreter of a virtual environment with {peer}")
    options = parser.parse_args()
    named = [peer for peer in PEERS if getattr(options, f"{peer.replace('-', '_')}_python")]
    kinds = [kind for kind in ("aiohttp", "openai", "synthgen", *named) if kind not in options.without]
    results: dict[str, list[Result]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_prompts(folder / "prompts.jsonl", options.rows)
        write_recipe(
            folder / "recipe.yaml", "http://127.0.0.1:1", folder / "prompts.jsonl", options.in_flight
        )
        for _ in range(options.rounds):
            for kind in kinds:
                command = command_of(kind, folder, options)
                result = run(command, options.rows, tuple(options.latency))
                print(f"{kind}: {result['cpu_ms_per_row']:.3f} CPU ms a row", file=sys.stderr)
                results[kind].append(result)
    _print(results, options)


def _print(results: dict[str, list[Result]], options: argparse.Namespace) -> None:
    mean_s = sum(options.latency) / 2
    print(
        f"{options.rows} rows, {options.in_flight} in flight, latency {options.latency} s, {options.rounds} rounds"
    )
    columns = f"{'CPU ms/row':>11} {'x bare':>7} {'rows/s':>8} {'x bare':>7} {'ideal':>6}"
    print(f"{'client':14} {columns} {'in flight':>9} {'peak MiB':>9}")
    medians = {
        kind: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        for kind, rounds in results.items()
    }
    bare = medians["aiohttp"]
    for kind, median in medians.items():
        cpu, speed = median["cpu_ms_per_row"], median["rows_per_s"]
        ideal = f"{speed * mean_s / options.in_flight:6.2f}" if mean_s else f"{'-':>6}"
        print(
            f"{kind:14} {cpu:11.3f} {cpu / bare['cpu_ms_per_row']:7.2f} {speed:8.0f} "
            f"{speed / bare['rows_per_s']:7.2f} {ideal} {median['in_flight']:9.0f} {median['peak_mib']:9.0f}"
        )
    ours = medians.get("synthgen")
    if ours:
        for kind in [kind for kind in medians if kind not in ("aiohttp", "synthgen")]:
            ratio = ours["cpu_ms_per_row"] / medians[kind]["cpu_ms_per_row"]
            print(f"CPU a row, synthgen / {kind}: {ratio:.3f}")


if __name__ == "__main__":
    main()
