"""What durability costs, and how soon a long run goes on.

    python benchmarks/journal.py [--rows 200000] [--keys 10000000] [--rounds 3] [--folder DIR]

Commits: rows/s of `Journal.commit` in batches, beside a plain loop that joins the same lines, writes and calls
`fdatasync`; in turns, medians, the ratio within each round. Resume: a journal of sealed segments is made whose indexes
hold the keys and whose lines are holes (opening reads none), and another process opens it and makes its first new
intent durable: seconds, peak memory over an interpreter with the journal imported, microseconds a look-up. For
comparison: a Python dict of a tenth of the keys.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np

from synthgen.journal import Entry, Journal
from synthgen.journal.contents import index_path, sealed_path
from synthgen.journal.keys import SortedKeys
from synthgen.journal.ledger import Account
from synthgen.journal.lines import encode
from synthgen.journal.sealed import Frames, SegmentIndex, write_index

TEXT = ("The tide follows the moon, twice a day, and a little later every day. " * 30)[:1900]
KEYS_PER_SEGMENT = 60_000  # 128 MiB of rows of about 2 KB


def reply(number: int) -> Entry:
    """An `R` entry of about 2 KB."""
    key = blake2b(number.to_bytes(8), digest_size=16).hexdigest()
    usage = {"input_tokens": 300, "cached_input_tokens": 0, "output_tokens": 400, "reasoning_tokens": 0}
    about: Entry = {"step": "answer", "teacher": "big", "endpoint": "h:1", "attempts": 1, "usd": 0.001}
    return {"k": key, "t": "R", **about, "usage": dict(usage), "text": TEXT}


def plain(folder: Path, batches: list[list[Entry]]) -> float:
    """Seconds of the floor: the same lines, written and synced batch by batch."""
    started = time.perf_counter()
    with (folder / "plain").open("wb", buffering=0) as file:
        for batch in batches:
            file.write(b"".join(map(encode, batch)))
            os.fdatasync(file.fileno())
    return time.perf_counter() - started


def journaled(folder: Path, batches: list[list[Entry]]) -> float:
    """Seconds of the journal, each batch awaited before the next."""

    async def run() -> float:
        journal = Journal(folder)
        started = time.perf_counter()
        for batch in batches:
            await journal.commit(*batch)
        elapsed = time.perf_counter() - started
        await journal.close()
        return elapsed

    return asyncio.run(run())


def bench_commits(root: Path, rows: int, rounds: int) -> None:
    """Print rows/s by batch size."""
    print(f"commits, {rows} rows of {len(encode(reply(0)))} bytes, median of {rounds}")
    print(f"{'batch':>6} {'plain rows/s':>13} {'journal rows/s':>15} {'of plain':>9}")
    for size in (16, 256):
        count = rows if size > 16 else rows // 4
        entries = [reply(number) for number in range(count)]
        batches = [entries[start : start + size] for start in range(0, count, size)]
        speeds: list[tuple[float, float]] = []
        for _ in range(rounds):
            folder = Path(tempfile.mkdtemp(dir=root))
            speeds.append((count / plain(folder, batches), count / journaled(folder, batches)))
            shutil.rmtree(folder)
        floor, ours = (statistics.median(one) for one in zip(*speeds, strict=True))
        ratio = statistics.median(ours / floor for floor, ours in speeds)
        print(f"{size:>6} {floor:>13,.0f} {ours:>15,.0f} {ratio:>9.2f}")


def make_index_only(folder: Path, keys: int) -> None:
    """A journal of `keys` answers whose sealed lines are holes. Key n is the n-th draw of a fixed generator."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    account = Account()
    for number, start in enumerate(range(0, keys, KEYS_PER_SEGMENT), 1):
        count = min(KEYS_PER_SEGMENT, keys - start)
        halves = draw.integers(0, 2**64, (count, 2), np.uint64)
        places = np.arange(count, dtype=np.uint64) * np.uint64(4000)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        replies = SortedKeys(halves[order, 0], halves[order, 1], places[order])
        tally = account.ledger.tally("answer", "big")
        tally.requests += count
        tally.cost_usd += 0.001 * count
        raw = np.arange(0, 2000 * count + 131072, 131072, dtype=np.uint64)
        frames = Frames(raw, raw // np.uint64(3))
        write_index(
            index_path(folder, number),
            SegmentIndex(number, replies, SortedKeys.of({}), frames, account.copy(), ()),
        )
        with sealed_path(folder, number).open("wb") as file:
            file.truncate(frames.file_size)


def peak_mib() -> float:
    """Peak resident memory of this process. (`ru_maxrss` begins with that of the process that started it.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resume(folder: Path) -> None:
    """Run by the benchmark in a process of its own: open, find no answer, make an intent durable."""

    async def run() -> dict[str, float]:
        before, started = peak_mib(), time.perf_counter()
        journal = Journal(folder)
        key = blake2b(b"new", digest_size=16).hexdigest()
        assert journal.index.reply(key) is None
        await journal.commit({"k": key, "t": "I", "usd": 0.001})
        ready = time.perf_counter()
        memory = peak_mib() - before
        draw = np.random.default_rng(0).integers(0, 2**64, (20_000, 2), np.uint64)
        known = [f"{int(high):016x}{int(low):016x}" for high, low in draw]
        missing = [key[::-1] for key in known]
        timed = time.perf_counter()
        assert all(key in journal.index for key in known)
        hit = time.perf_counter()
        assert not any(key in journal.index for key in missing)
        miss = time.perf_counter()
        await journal.close()
        per_key = 1e6 / len(known)
        found = {"seconds": ready - started, "mib": memory, "process_mib": peak_mib()}
        return {**found, "hit_us": (hit - timed) * per_key, "miss_us": (miss - hit) * per_key}

    print(json.dumps(asyncio.run(run())))


def dictionary(keys: int) -> None:
    """Run in a process of its own: the memory of a dict."""
    before = peak_mib()
    places = {number.to_bytes(16): number << 41 for number in range(1, keys)}
    print(json.dumps({"mib": peak_mib() - before, "keys": len(places)}))


def bench_resume(root: Path, keys: int, rounds: int) -> None:
    """Print seconds and memory of resuming."""
    folder = root / "journal"
    make_index_only(folder, keys)
    found = [_child("--resume", str(folder)) for _ in range(rounds)]
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    tenth = _child("--dict", str(keys // 10))
    per_key = tenth["mib"] * 2**20 / tenth["keys"]
    ours = middle["mib"] * 2**20 / keys
    print(f"\nresume, {keys} answered keys in {len(list(folder.glob('*.idx')))} segments, median of {rounds}")
    print(f"to the first new intent, durable: {middle['seconds']:.2f} s")
    print(
        f"peak memory: {middle['mib']:.0f} MiB over the interpreter, {middle['process_mib']:.0f} MiB in all"
    )
    print(f"bytes a key at the peak: {ours:.0f}; a dict: {per_key:.0f} ({ours / per_key:.2f} of it)")
    print(f"look-up: {middle['hit_us']:.1f} us found, {middle['miss_us']:.1f} us not found")


def _child(*arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; the disk matters")
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dict", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.resume:
        resume(given.resume)
    elif given.dict:
        dictionary(given.dict)
    else:
        with tempfile.TemporaryDirectory(dir=given.folder) as root:
            bench_commits(Path(root), given.rows, given.rounds)
            bench_resume(Path(root), given.keys, given.rounds)


if __name__ == "__main__":
    main()
