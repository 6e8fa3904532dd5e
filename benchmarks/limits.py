"""What `synthgen generate --ask-only` makes of a server's limits: how much of them it uses, what refusals that costs.

    python benchmarks/limits.py [--only rpm tpm storm knee] [--seconds 150]

Each against a server of its own, rows lost counted:

- `rpm`: 600 requests in a sliding minute. The recipe names the limit; then only the server's headers do. Rows as a share
  of the limit after the first minute, and 429s as a share of all requests.
- `tpm`: 120,000 tokens a minute, answers of 100 to 500 tokens where `max_tokens` is 3,000, the recipe names the limit.
  Tokens used as a share of it. Then the headers alone.
- `storm`: after 30 s everything is refused for 60 s, with Retry-After 5. How long after the last pause the first answer
  comes, and after how many seconds of calm the rate of the time before is back (over 5 s, at 0.95 of it).
- `knee`: never a 429, but slower with more than 64 in flight. Rows a second and the 99th percentile of the service time
  with no `concurrency` in the recipe, beside the best of some fixed ones. Slow start included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
LATENCY = ("--latency", "0.2", "0.8")
RPM, TPM, KNEE = 600, 120_000, 64
TOKENS_A_ROW = 200 + 300
STORM_FROM_S, STORM_S = 30, 60


def write_inputs(folder: Path, url: str, rows: int, provider: str, limits: dict[str, int]) -> Path:
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
                "sampling": {"max_tokens": 3000},
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
    """What a server counted, see `server.py`."""

    requests: int
    paid: int
    tokens: int
    limited: int
    in_storm: int
    max_in_flight: int
    paid_by_second: list[int]
    span_s: float
    service_p99_s: float
    paused_until_s: float
    recovered_s: float

    def rows_a_second(self, from_s: int, until_s: int) -> float:
        """Answers in this time after the first one."""
        return sum(self.paid_by_second[from_s:until_s]) / (until_s - from_s)


def measure(rows: int, *server: str, provider: str = "openai", **limits: int) -> Counted:
    """One run against a server of its own."""
    command = [sys.executable, str(HERE / "server.py"), *LATENCY, *server]
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        recipe = write_inputs(Path(name), process.stdout.readline().strip(), rows, provider, limits)
        generate = [sys.executable, "-m", "synthgen", "generate", str(recipe), "-o", f"{name}/run"]
        try:
            ran = subprocess.run(
                [*generate, "--ask-only", "--json"], check=False, capture_output=True, text=True
            )
        finally:
            process.terminate()
        if ran.returncode:
            sys.exit(f"generate ended with {ran.returncode}\n{ran.stderr}")
        counts = json.loads(ran.stdout)["counts"]
        counted = Counted(**json.loads(process.stdout.read()))
    print(
        f"  {rows} rows in {counted.span_s:.1f} s, accepted {counts['accepted']}, failed {counts['failed']}",
        end="",
    )
    print(f", {counted.requests} requests, {counted.limited} refused, most in flight {counted.max_in_flight}")
    return counted


def _limit(kind: str, limit: int, rows_a_minute: float, seconds: float, *server: str) -> None:
    rows = int(rows_a_minute * seconds / 60)
    for told, limits, more in (
        ("the recipe names it", {kind: limit}, ()),
        ("headers name it", {}, ("--tells",)),
    ):
        print(f"{limit} {kind}, {told}")
        counted = measure(rows, f"--{kind}", str(limit), *server, *more, **limits)
        used = 60 * counted.rows_a_second(60, len(counted.paid_by_second) - 2)
        share = used * (counted.tokens / counted.paid if kind == "tpm" else 1) / limit
        print(f"  of the limit after the first minute {share:.3f} (wanted 0.95)", end="")
        print(f", 429s {counted.limited / counted.requests:.4f} of requests (wanted 0.005)")


def rpm(seconds: float) -> None:
    """A limit on requests."""
    _limit("rpm", RPM, RPM, seconds)


def tpm(seconds: float) -> None:
    """A limit on tokens, and answers a tenth as long as they may be."""
    _limit("tpm", TPM, TPM / TOKENS_A_ROW, seconds, "--output-tokens", "100", "500")


def storm(_seconds: float) -> None:
    """Everything is refused for a time."""
    until_s = STORM_FROM_S + STORM_S
    kinds: tuple[tuple[dict[str, int], int, tuple[str, ...]], ...] = (
        ({"concurrency": 64}, 125, ()),
        ({"rpm": 3000}, 50, ()),
        ({}, 50, ("--rpm", "3000", "--tells")),
    )
    for limits, rows_a_second, more in kinds:
        print(f"a storm of {STORM_S} s, the recipe says {limits}, the server {' '.join(more) or 'nothing'}")
        rows = rows_a_second * (STORM_FROM_S + 40)
        counted = measure(rows, "--storm", str(STORM_FROM_S), str(STORM_S), *more, **limits)
        usual = counted.rows_a_second(STORM_FROM_S - 10, STORM_FROM_S)
        full_s = next(
            (
                str(second - until_s)
                for second in range(until_s, len(counted.paid_by_second) - 5)
                if counted.rows_a_second(second, second + 5) >= 0.95 * usual
            ),
            "(never)",
        )
        after_s = counted.recovered_s - counted.paused_until_s
        print(f"  first answer {after_s:.1f} s after the last pause (wanted 2), ", end="")
        print(f"full rate after {full_s} s of calm (wanted 30), {counted.in_storm} requests in the storm")


def knee(_seconds: float) -> None:
    """A server that only gets slower."""
    speeds: dict[int | None, float] = {}
    waits: dict[int | None, float] = {}
    rows = 50 * KNEE
    for concurrency in (None, KNEE // 2, KNEE, 3 * KNEE // 2, 2 * KNEE):
        limits = {} if concurrency is None else {"concurrency": concurrency}
        print(f"knee at {KNEE}, in flight {concurrency or 'as it finds out'}")
        counted = measure(rows, "--knee", str(KNEE), provider="vllm", **limits)
        speeds[concurrency], waits[concurrency] = counted.paid / counted.span_s, counted.service_p99_s
        print(f"  {speeds[concurrency]:.1f} rows/s, 99 of 100 answered within {waits[concurrency]:.2f} s")
    ours_s, ours = waits.pop(None), speeds.pop(None)
    best = max(speeds, key=lambda fixed: speeds[fixed])
    print(f"rows/s / best fixed ({best}): {ours / speeds[best]:.3f} (wanted 0.95)", end="")
    print(f", p99 / its p99: {ours_s / waits[best]:.2f} (wanted 2)")


CASES: dict[str, Callable[[float], None]] = {"rpm": rpm, "tpm": tpm, "storm": storm, "knee": knee}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=150, help="how long a run under a limit takes")
    options = parser.parse_args()
    for case in options.only:
        CASES[case](options.seconds)


if __name__ == "__main__":
    main()
