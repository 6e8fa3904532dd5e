"""Near duplicates: speed against other tools in one run, and quality on labelled pairs.

    python benchmarks/dedup_corpus.py TEXT.jsonl corpus --docs 50000
    python benchmarks/dedup.py corpus [--rounds 3] [--threshold 0.8] [--tools ours,datasketch] [--docs 50000]

In: a folder with `docs.parquet` (`id`, `text`) and `pairs.parquet` (`a`, `b`: rows; `jaccard`: exact), or any of that form.
Out: a line per tool: documents a second of wall and of CPU time, both as ratios to datasketch in the same round
(medians of rounds), peak memory over the loaded texts, and quality: of the pairs at or above the threshold, the share
where one of the two is removed (`removed`) and that end in one cluster (`cluster`), per bucket of Jaccard; of the removed,
the share whose exact Jaccard to what they repeat reaches the threshold (`precision`); pairs with 0.3 <= J < 0.6 in one
cluster (`merged`).

Every tool starts from the same list of texts or series and ends with its clusters. Those that others must build around
(tokenising, union-find) are built as their own examples do it. Each contestant runs in a process of its own, threads
limited to what its name says. Others see fewer documents where they would take minutes: rates, not times, are compared.
`--python rensa=VENV/bin/python` measures a tool (`benchmarks/dedup_peers.py`) with another interpreter (polars and numpy it
needs as well); one that is not installed is left out with a line on stderr. `--speed` leaves the labels out, which take longer
than the tools.

Labels and `precision` cut words as `\\w+` does, with no code of ours. The package cuts scripts without spaces by character and
folds case fully, so that a removed pair in such a script may be below the threshold by `\\w+`: `precision by our cut` is the
same share by brute force over the documented cut, one character at a time (`documented_grams`), again with no code of ours.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from dedup_corpus import jaccard
from dedup_peers import Clusters, datasketch, datatrove, rensa, text_dedup


def ours(threads: int, kernel: bool, hash_name: str, texts: pl.Series, threshold: float) -> Clusters:
    from synthgen.refine.minhash_rule import MinHashRule
    from synthgen.refine.near import near_duplicates

    rule = MinHashRule(threshold=threshold, hash=hash_name)  # type: ignore[arg-type]
    found = near_duplicates(texts, rule, threads=threads, kernel=kernel)
    return found.cluster_N, found.of_N


# Chinese, kana, Thai, Lao, Khmer, Burmese, Tibetan: what docs/dedup.md names as written without spaces.
UNSPACED = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF),
    (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x323AF),
)  # fmt: skip


def documented_grams(text: str) -> set[tuple[str, ...]]:
    """The 5-grams the package documents: case-folded words with their marks; characters in scripts without spaces."""
    tokens, word = [], ""
    for char in f"{text.casefold()}.":
        mark = unicodedata.category(char) in ("Mn", "Mc") and not 0xFE00 <= ord(char) <= 0xFE0F
        letter = char.isalnum() or char == "_"
        alone = (letter or mark) and any(low <= ord(char) <= high for low, high in UNSPACED)
        if (letter or mark) and not alone:
            word += char
            continue
        tokens += [word] * any(c.isalnum() or c == "_" for c in word) + [char] * alone
        word = ""
    if len(tokens) < 5:  # characters in the words' place
        tokens = [*"".join(text.casefold().split()), *"\0\0\0\0"]
    return {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}


def documented_jaccard(a: str, b: str) -> float:
    grams_a, grams_b = documented_grams(a), documented_grams(b)
    return len(grams_a & grams_b) / max(len(grams_a | grams_b), 1)


TOOLS: dict[str, tuple[Callable[[pl.Series, float], Clusters], int]] = {
    "ours": (lambda texts, t: ours(1, True, "fast", texts, t), 1 << 62),
    "ours 2 threads": (lambda texts, t: ours(2, True, "fast", texts, t), 1 << 62),
    "ours numpy": (lambda texts, t: ours(1, False, "fast", texts, t), 1 << 62),
    "ours sha1": (lambda texts, t: ours(1, True, "sha1", texts, t), 1 << 62),
    "ours xxh32": (lambda texts, t: ours(1, True, "xxh32", texts, t), 1 << 62),
    "datasketch": (datasketch, 20_000),
    "rensa": (rensa, 50_000),
    "text-dedup": (text_dedup, 10_000),
    "datatrove": (datatrove, 3_000),
}
FLAGS = ("rensa",)  # these know no clusters


def measure(name: str, corpus: Path, docs: int, threshold: float, *, judged: bool) -> dict[str, object]:
    """One contestant, in this process."""
    run, most = TOOLS[name]
    texts = pl.read_parquet(corpus / "docs.parquet", n_rows=min(docs, most))["text"].rechunk()
    run(texts.head(300), threshold)  # imports and first calls
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    found = run(texts, threshold)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "docs": len(texts),
        "wall_s": wall,
        "cpu_s": cpu,
        "memory_mb": (after_kb - before_kb) / 1024,
        "removed": sum(int(of) >= 0 for of in found[1]),
        **({} if name in FLAGS or not judged else quality(found, texts, corpus, threshold)),
    }


def quality(clusters: Clusters, texts: pl.Series, corpus: Path, threshold: float) -> dict[str, object]:
    """Against the labels."""
    cluster, of = ([int(row) for row in rows] for rows in clusters)
    pairs = pl.read_parquet(corpus / "pairs.parquet").filter(pl.max_horizontal("a", "b") < len(of))
    found: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    merged = distinct = 0
    for a, b, score in pairs.select("a", "b", "jaccard").iter_rows():
        together, removed = cluster[a] == cluster[b], of[a] >= 0 or of[b] >= 0
        if score >= threshold:
            found["all"].append((removed, together))
            found[f"{min(int(score * 20), 19) / 20:.2f}"].append((removed, together))
        elif 0.3 <= score < 0.6:
            distinct += 1
            merged += together
    named = [(i, j) for i, j in enumerate(of) if j >= 0]
    checked = named[:: max(len(named) // 4000, 1)]
    right = sum(jaccard(texts[i], texts[j]) >= threshold for i, j in checked)
    right_by_cut = sum(documented_jaccard(texts[i], texts[j]) >= threshold for i, j in checked)
    return {
        "recall": {
            name: [len(hits), round(statistics.mean(h[0] for h in hits), 4), round(statistics.mean(h[1] for h in hits), 4)]
            for name, hits in sorted(found.items())
        },
        "precision": right / max(len(checked), 1),
        "precision by our cut": right_by_cut / max(len(checked), 1),
        "merged": f"{merged} of {distinct}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--docs", type=int, default=50_000)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--python", action="append", default=[], metavar="TOOL=PATH", help="its interpreter")
    parser.add_argument("--speed", action="store_true", help="leave the labels out")
    parser.add_argument("--one", help="measure one tool in this process and print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.corpus, args.docs, args.threshold, judged=not args.speed)))
        return
    pythons = dict(choice.split("=", 1) for choice in args.python)
    names = args.tools.split(",")
    rounds: list[dict[str, dict[str, object]]] = []
    for _ in range(args.rounds):
        results: dict[str, dict[str, object]] = {}
        for name in names:
            command = [
                pythons.get(name, sys.executable),
                __file__,
                str(args.corpus),
                "--one",
                name,
                "--docs",
                str(args.docs),
            ]
            command += ["--threshold", str(args.threshold), *(["--speed"] if args.speed else [])]
            env = {
                **os.environ,
                "POLARS_MAX_THREADS": "2" if "2 threads" in name else "1",
                "OMP_NUM_THREADS": "1",
            }
            done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            results[name] = json.loads(done.stdout)
        rounds.append(results)
    report(names, rounds)


def report(names: list[str], rounds: list[dict[str, dict[str, object]]]) -> None:
    """Medians over rounds, ratios within them."""

    def rate(result: dict[str, object], clock: str) -> float:
        return float(str(result["docs"])) / float(str(result[clock]))

    print(f"{'tool':16}{'docs/s':>10}{'docs/CPU-s':>12}{'x wall':>9}{'x CPU':>9}{'MB':>8}{'removed':>9}")
    for name in (name for name in names if all(name in results for results in rounds)):
        own = [results[name] for results in rounds]
        base = [results.get("datasketch") for results in rounds]
        ratios = [
            statistics.median(rate(a, clock) / rate(b, clock) for a, b in zip(own, base, strict=True) if b)
            if all(base)
            else np.nan
            for clock in ("wall_s", "cpu_s")
        ]
        rates = [statistics.median(rate(result, clock) for result in own) for clock in ("wall_s", "cpu_s")]
        memory = statistics.median(float(str(result["memory_mb"])) for result in own)
        print(
            f"{name:16}{rates[0]:>10,.0f}{rates[1]:>12,.0f}{ratios[0]:>9.1f}{ratios[1]:>9.1f}{memory:>8.0f}"
            f"{own[0]['removed']:>9}"
        )
    for name in names:
        if "recall" in rounds[0].get(name, {}):
            result = rounds[0][name]
            print(
                f"\n{name}: precision {result['precision']:.4f}, by our cut {result['precision by our cut']:.4f}, "
                f"merged {result['merged']}; bucket: pairs, removed, cluster"
            )
            print(
                "  " + "  ".join(f"{bucket}: {values}" for bucket, values in dict(result["recall"]).items())
            )  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
