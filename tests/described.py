"""Small datasets made by `filter` from files, with a declared origin, for the tests of what a dataset says of itself."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import orjson

from synthgen import api
from synthgen.recipe.model import Actor

DAY = date(2026, 11, 21)
LLAMA = "meta-llama/Llama-3.3-70B-Instruct@self-hosted"
QWEN = "Qwen/Qwen3-8B@self-hosted"


def rows_file(path: Path, count: int = 30, **columns: object) -> Path:
    """Chat rows that no filter objects to; `columns` stand in every row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        {
            "messages": [
                {"role": "user", "content": f"What is number {n} about, and why does it matter?"},
                {
                    "role": "assistant",
                    "content": " ".join(f"word{(n * 37 + j * j) % 991}" for j in range(60)),
                },
            ],
            **columns,
        }
        for n in range(count)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def made(out: Path, source: Path, **changes: object) -> Path:
    """A dataset of Llama answers to questions under CC-BY-4.0, for publishing; `changes` are filter options."""
    given: dict[str, object] = {
        "chain": "none",
        "near": False,
        "use": ("train-general", "publish-dataset"),
        "origin": LLAMA,
        "row_license": "CC-BY-4.0",
        "actor": Actor(mau=5000, territory="DE"),
        "rows_per_shard": 10,
        "test_share": 0.2,
        "today": DAY,
        **changes,
    }
    api.filter(source, out, options=api.FilterOptions(**given))  # type: ignore[arg-type]  # as in the dict above
    return out


def document(path: Path) -> Mapping[str, object]:
    """A JSON file."""
    content: Mapping[str, object] = orjson.loads(path.read_bytes())
    return content
