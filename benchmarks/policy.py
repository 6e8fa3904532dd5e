"""What the gate costs: a million rows decided on, beside writing the same rows as shards; one decision at a time.

    python benchmarks/policy.py [--rows 1000000] [--rounds 3] [--folder DIR]

Rows: frames of the record schema with answers of about 600 bytes by 24 origins under 6 licences of source texts,
decided on as `synthgen filter` does. Shards: the same frames through `Staging` to final Parquet files. In turns; medians,
and the ratio within each round. Decisions: every route x a few models x seeds x roles x uses, each for the first time
(cold) and again (warm): median, p99 and worst in microseconds of CPU.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from itertools import product
from pathlib import Path

import polars as pl

from synthgen.dataset import Staging
from synthgen.pipeline.foreign import Declared, ForeignPolicy
from synthgen.policy import USES, Ask, Part, evaluate, load_registry
from synthgen.recipe.model import Actor
from synthgen.schema import RecordShape, record_schema

TODAY = date(2026, 11, 21)
SHAPE = RecordShape()
BATCH = 50_000
OPEN = (
    "Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3", "google/gemma-3-27b-it",
    "google/gemma-4-31b-it", "microsoft/phi-4", "openai/gpt-oss-120b", "zai-org/GLM-4.6", "moonshotai/Kimi-K2",
    "meta-llama/Llama-3.3-70B-Instruct", "HuggingFaceTB/SmolLM3-3B",
)  # fmt: skip
SEEDS = ("own", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "MIT", "Apache-2.0")
TEXT = ("The tide follows the moon, twice a day, and a little later every day. " * 9)[:600]


def frames(rows: int) -> Iterator[pl.DataFrame]:
    """Records by every origin and licence in turn."""
    for start in range(0, rows, BATCH):
        n = pl.int_range(start, min(start + BATCH, rows), eager=True).alias("n")
        origin, seed = n % (2 * len(OPEN)), (n // 7) % len(SEEDS)
        answer = pl.select(pl.format("{} {}", n, pl.lit(TEXT)).alias("content"))["content"]
        turns = pl.DataFrame({"role": ["user"], "content": ["Tell me about the tide."]})
        messages = pl.DataFrame({"n": n, "content": answer}).select(
            pl.concat_list(
                pl.struct(pl.lit("user").alias("role"), pl.lit(turns["content"][0]).alias("content")),
                pl.struct(pl.lit("assistant").alias("role"), pl.col("content")),
            ).alias("messages")
        )
        names = pl.Series([*OPEN, *OPEN])
        routes = pl.Series(["self-hosted"] * len(OPEN) + ["together"] * len(OPEN))
        frame = messages.with_columns(
            id=pl.select(pl.format("{}", n).alias("id"))["id"],
            row=pl.select(pl.format("r{}", n).alias("row"))["row"],
            source=pl.lit("theirs.jsonl"),
            teacher=names.gather(origin),
            route=routes.gather(origin),
            row_license=pl.Series(SEEDS).gather(seed),
        )
        schema = record_schema(SHAPE)
        missing = {
            name: pl.lit(None, dtype=kind) for name, kind in schema.items() if name not in frame.columns
        }
        yield frame.with_columns(**missing).select(schema.names()).cast(dict(schema))


def gated(rows: list[pl.DataFrame]) -> float:
    """Seconds to decide on every row, memory of earlier decisions cleared."""
    from synthgen.policy.evaluate import _evaluate

    _evaluate.cache_clear()
    started = time.perf_counter()
    declared = Declared(
        use=("train-general", "publish-dataset"),
        by_column=True,
        actor=Actor(mau=1000, territory="US"),
        on_deny="drop",
    )
    policy = ForeignPolicy(declared, TODAY)
    for frame in rows:
        stamped, refused = policy.stamp(frame)
        assert stamped["policy_id"].null_count() == 0
        assert refused.height == 0
    return time.perf_counter() - started


def written(rows: list[pl.DataFrame], folder: Path) -> float:
    """Seconds to write every row to its final shard."""
    started = time.perf_counter()
    with Staging(folder, SHAPE, rows_per_shard=BATCH, test_share=0.0) as staging:
        for frame in rows:
            staging.add("accepted", frame)
        staging.finish()
    return time.perf_counter() - started


def decisions() -> list[tuple[Part, Ask]]:
    """Questions of every kind."""
    registry = load_registry()
    models = (
        *OPEN,
        "openai/gpt-5.4",
        "anthropic/claude-sonnet-4.6",
        "google/gemini-3.1-pro",
        "nobody/unknown-7b",
    )
    parts = [
        Part("t", "p", route, model, role=role, row_license=seed)  # type: ignore[arg-type]  # roles by name
        for route, model, role, seed in product(
            registry.routes, models, ("teacher", "judge-filter"), ("own", "CC-BY-SA-4.0 AND CC-BY-NC-4.0")
        )
    ]
    asks = [Ask(USES, Actor(mau=1000, territory="US"), today=TODAY), Ask(("train-general",), today=TODAY)]
    return list(product(parts, asks))


def spread(times_s: list[float]) -> dict[str, float]:
    """Median, p99 and worst in microseconds."""
    ordered = sorted(times_s)
    at = {"p50": 0.5, "p99": 0.99, "worst": 1.0}
    return {
        name: round(ordered[min(int(len(ordered) * q), len(ordered) - 1)] * 1e6, 1) for name, q in at.items()
    }


def timed(questions: list[tuple[Part, Ask]]) -> list[float]:
    """Seconds of CPU for each decision: other work on the machine does not count."""
    registry = load_registry()
    out = []
    for part, ask in questions:
        started = time.thread_time()
        evaluate(registry, part, ask)
        out.append(time.thread_time() - started)
    return out


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    started = time.perf_counter()
    load_registry()
    load_s = time.perf_counter() - started
    questions = decisions()
    cold, warm = timed(questions), timed(questions)
    rows = list(frames(given.rows))
    rounds = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            gate_s, write_s = gated(rows), written(rows, Path(folder))
        rounds.append(
            {
                "gate_s": round(gate_s, 3),
                "write_s": round(write_s, 3),
                "write/gate": round(write_s / gate_s, 1),
            }
        )
    result = {
        "load_s": round(load_s, 3),
        "decisions": len(questions),
        "evaluate_cold_us": spread(cold),
        "evaluate_warm_us": spread(warm),
        "rows": given.rows,
        "rounds": rounds,
        "gate_s": statistics.median(item["gate_s"] for item in rounds),
        "write/gate": statistics.median(item["write/gate"] for item in rounds),
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
