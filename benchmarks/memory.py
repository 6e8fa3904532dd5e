"""Memory of `synthgen generate --ask-only` over many rows: is it small, and does it stay flat?

    python benchmarks/memory.py [--rows 1000000] [--in-flight 256]

Samples the resident memory of the process while it runs and prints it beside the rows done, every
twentieth of the way, then the peak above an interpreter that has imported the same libraries and does nothing, and the growth between
100,000 rows and the end. A million rows take some minutes and 7 GB of disk: TMPDIR says where.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asking import on_core, server, write_prompts, write_recipe

_LIBRARIES = "import synthgen.api, synthgen.cli.output, synthgen.asking.providers, datasketch, uvloop"


def resident_mib(pid: int, field: str = "VmRSS") -> float:
    """`VmRSS`, or `VmHWM` for the most there ever was; 0 once the process has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def idle_mib() -> float:
    """An interpreter with the libraries."""
    command = [sys.executable, "-c", f"{_LIBRARIES}; print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        resident = resident_mib(process.pid)
        process.communicate(b"\n")
    return resident


def rows_done(run: Path) -> int:
    """As the last line of events.jsonl has it."""
    try:
        last = (run / "events.jsonl").read_bytes().splitlines()[-1]
        done: int = json.loads(last)["rows_done"]
    except (OSError, IndexError, ValueError):
        return 0
    return done


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--in-flight", type=int, default=256)
    options = parser.parse_args()
    samples: list[tuple[int, float]] = []
    peak_mib = 0.0
    idle = idle_mib()
    with tempfile.TemporaryDirectory() as name, server() as (url, _):
        folder = Path(name)
        write_prompts(folder / "prompts.jsonl", options.rows)
        write_recipe(folder / "recipe.yaml", url, folder / "prompts.jsonl", options.in_flight)
        command = [*on_core(1), sys.executable, "-m", "synthgen", "generate", str(folder / "recipe.yaml")]
        command += ["-o", str(folder / "run"), "--ask-only", "--json"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            due = 0
            while process.poll() is None:
                time.sleep(0.5)
                peak_mib = max(peak_mib, resident_mib(process.pid, "VmHWM"))
                done, now_mib = rows_done(folder / "run"), resident_mib(process.pid)
                if now_mib:
                    samples.append((done, now_mib))
                if now_mib and done >= due:
                    print(f"{done:9d} rows {now_mib:6.0f} MiB", flush=True)
                    due = done + options.rows // 20
        if process.returncode:
            sys.exit(process.returncode)
    early = max((mib for done, mib in samples if done <= 100_000), default=peak_mib)
    late = max((mib for done, mib in samples[-len(samples) // 5 :]), default=peak_mib)
    print(f"peak {peak_mib:.0f} MiB, {peak_mib - idle:.0f} above the idle interpreter's {idle:.0f}")
    print(f"most in the last fifth / most up to 100,000 rows: {late / early:.3f}")


if __name__ == "__main__":
    main()
