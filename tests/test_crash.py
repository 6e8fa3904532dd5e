"""Crash safety, proved by really killing the process.

A 600-prompt run with a judge, 16 in flight, is killed with SIGKILL ten times, in every phase (asking, judging, shard
writing, manifest), and resumed each time. The server is another process: it answers by body and logs every payment.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from synthgen.journal import JournalIndex
from tests.loopback import LoopbackProcess, Payment

ROWS = 600
REPEATED = 60
IN_FLIGHT = 16
PRICE = {"input": 1.0, "output": 2.0}
ROOT = Path(__file__).resolve().parent.parent
# What to be killed in, in turn; the moment inside each is drawn.
KILLS = ["asking"] * 3 + ["judging"] * 3 + ["shards"] * 2 + ["manifest"] * 2


def write_recipe(folder: Path) -> Path:
    """The same bytes for every server: a pool names the teacher, the environment its address."""
    folder.mkdir()
    asked = [f"Tell me fact number {n} about the sea." for n in range(ROWS - REPEATED)]
    asked += [text.upper() for text in asked[:REPEATED]]  # those of test rows must not stay in train
    lines = [json.dumps({"instruction": text}) for text in asked]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    teacher = {
        "provider": "vllm",
        "base_url": "${TEACHER_URL}",
        "pool": "lab",
        "route": "self-hosted",
        "hf": "Qwen/Qwen3-8B",
        "price": PRICE,
        "limits": {"concurrency": IN_FLIGHT},
        "sampling": {"max_tokens": 200},
    }
    recipe = {
        "name": "crash",
        "use": ["train-general"],
        "source": {"jsonl": "rows.jsonl", "license": "own"},
        "teachers": {"writer": {**teacher, "model": "writer"}, "judge": {**teacher, "model": "judge"}},
        "steps": [{"name": "answer", "prompt": "answer", "teacher": "writer"}],
        "refine": {"judge": {"teacher": "judge", "keep": ">= 3"}},
        "output": {"rows_per_shard": 3, "test_share": 0.1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def start(recipe: Path, run: Path, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "synthgen", "generate", str(recipe), "-o", str(run), "--json"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TEACHER_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(recipe: Path, run: Path, url: str) -> dict[str, object]:
    process = start(recipe, run, url)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return dict(json.loads(stdout))


def last_phase(run: Path) -> str:
    events = run / "events.jsonl"
    if not events.exists():
        return "planning"
    whole = events.read_bytes().rsplit(b"\n", 1)[0].splitlines()
    return str(json.loads(whole[-1])["phase"]) if whole else "planning"


def paid_lines(log: Path) -> Counter[str]:
    """Payments by model, cheaply: the log grows while we look."""
    text = log.read_bytes() if log.exists() else b""
    return Counter({"writer": text.count(b'"model": "writer"'), "judge": text.count(b'"model": "judge"')})


def published(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): sha256(path.read_bytes()).hexdigest()
        for name in ("data", "rejected")
        for path in sorted((run / name).glob("*.parquet"))
    }


def killed_in(
    wanted: str, recipe: Path, run: Path, server: LoopbackProcess, log: Path, draw: random.Random
) -> str | None:
    """Run until a drawn moment in `wanted`, SIGKILL; the phase it really died in, None if it had finished."""
    before = paid_lines(log)
    more = draw.randint(5, 70)
    delay_s = draw.random() * 0.1
    due: Callable[[], bool] = {
        "asking": lambda: paid_lines(log)["writer"] - before["writer"] >= more,
        "judging": lambda: paid_lines(log)["judge"] - before["judge"] >= more,
        "shards": lambda: last_phase(run) == "shards",
        "manifest": lambda: last_phase(run) == "manifest",
    }[wanted]
    events = run / "events.jsonl"
    events.unlink(missing_ok=True)
    process = start(recipe, run, server.url)
    while process.poll() is None and not due():
        pass
    if wanted == "shards":
        until = time.perf_counter() + delay_s
        while time.perf_counter() < until:
            pass
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    _, stderr = process.communicate()
    if process.returncode == 0:
        return None
    assert process.returncode == -signal.SIGKILL, stderr
    return last_phase(run)


def lost_payments(run: Path, payments: list[Payment]) -> list[Payment]:
    """Paid answers that the journal does not hold."""
    index = JournalIndex(run / "journal")
    try:
        kept = {str(entry["reply_id"]) for entry in index.entries() if entry["t"] == "R"}
    finally:
        index.close()
    return [payment for payment in payments if payment.id not in kept]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[LoopbackProcess, LoopbackProcess]]:
    options = ("--judge-model", "judge", "--latency", "0.02")
    with (
        LoopbackProcess(*options, log=tmp_path / "killed.log") as killed,
        LoopbackProcess(*options, log=tmp_path / "whole.log") as whole,
    ):
        yield killed, whole


@pytest.mark.timeout(600)
def test_a_run_killed_in_every_phase_ends_like_one_that_was_not(
    tmp_path: Path, servers: tuple[LoopbackProcess, LoopbackProcess]
) -> None:
    killed, whole = servers
    recipe = write_recipe(tmp_path / "killed")
    run, log = tmp_path / "killed" / "run", tmp_path / "killed.log"
    draw = random.Random(20261122)

    phases: Counter[str] = Counter()
    lost_before: Counter[str] = Counter()
    for wanted in KILLS:
        for _ in range(
            30
        ):  # a phase of a millisecond may be missed; the run is then complete, and goes again
            phase = killed_in(wanted, recipe, run, killed, log, draw)
            if phase is not None and (wanted != "manifest" or not (run / "manifest.json").exists()):
                break
        assert phase is not None, f"never caught in {wanted}"
        lost = Counter(payment.model for payment in lost_payments(run, killed.payments()))
        new = lost - lost_before
        print(f"killed in {phase} (aimed at {wanted}): payments lost {dict(new)}")
        phases[phase] += 1
        # Of each teacher at most `IN_FLIGHT` are on the wire, and as many again in the commit under way.
        assert max(new.values(), default=0) <= 2 * IN_FLIGHT
        lost_before = lost
    report = finish(recipe, run, killed.url)

    assert sum(phases.values()) >= 10
    assert set(phases) >= {"asking", "judging", "shards", "manifest"}
    finish(write_recipe(tmp_path / "whole"), tmp_path / "whole" / "run", whole.url)
    assert published(run) == published(tmp_path / "whole" / "run")
    payments = killed.payments()
    lost_ones = lost_payments(run, payments)
    # Every request of the unkilled run was paid and kept here exactly once; the rest is what the kills lost.
    assert len(payments) - len(lost_ones) == len(whole.payments())
    assert {payment.request for payment in payments} == {payment.request for payment in whole.payments()}
    usage = json.loads((run / "usage.json").read_text())
    kept = [payment for payment in payments if payment not in lost_ones]
    assert usage["total"]["requests"] == len(kept)
    assert usage["total"]["input_tokens"] == sum(payment.input_tokens for payment in kept)
    assert usage["total"]["output_tokens"] == sum(payment.output_tokens for payment in kept)
    assert usage["lost"]["requests"] >= len(lost_ones)
    counts = report["counts"]
    assert isinstance(counts, dict)
    assert counts["planned"] == ROWS == counts["accepted"] + counts["rejected"]
    reasons = report["reasons"]
    assert isinstance(reasons, dict)
    assert reasons["decontaminate:test_split/exact_match"] > 0
