"""Small recipes against the loopback teacher, and what their runs left behind, for the end-to-end tests.

In: a server and the parts of a recipe that matter to a test. Out: recipe files, reports, command results, records. All
recipes keep the teacher's pool named, so that keys and bytes do not depend on the port of the day.
"""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import yaml

from synthgen.cli import main
from tests.loopback import Body, Loopback, answer_text

Recipe = dict[str, Any]
FREE = {"input": 0, "output": 0}


class Server(Protocol):
    """A loopback teacher, in this process or its own."""

    @property
    def url(self) -> str:
        """Its base URL."""
        ...


def teacher(server: Server, **changes: object) -> Recipe:
    """An open-weight teacher behind the loopback server."""
    return {
        "provider": "vllm",
        "base_url": server.url,
        "pool": "lab",
        "route": "self-hosted",
        "model": "qwen3",
        "hf": "Qwen/Qwen3-8B",
        "price": FREE,
        "sampling": {"max_tokens": 200},
        **changes,
    }


def recipe(server: Server, rows: int = 5, **changes: object) -> Recipe:
    """One question a row, answered by `qwen`, no row filters; `changes` replace top-level keys."""
    return {
        "name": "small",
        "use": ["train-general"],
        "source": {"inline": questions(rows)},
        "teachers": {"qwen": teacher(server)},
        "steps": [{"name": "answer", "prompt": "answer", "teacher": "qwen"}],
        "refine": {"chain": "none"},
        **changes,
    }


def questions(rows: int) -> list[dict[str, str]]:
    """Different questions."""
    return [{"instruction": f"What should I know about subject number {n}?"} for n in range(rows)]


def save(path: Path, content: Recipe) -> Path:
    """Write a recipe file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def save_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def save_prompt(
    path: Path, text: str, *, reply: object, inputs: Sequence[str], outputs: Sequence[str]
) -> Path:
    """Write a prompt file with one user message."""
    prompt = {
        "name": path.stem,
        "version": 1,
        "description": "For a test.",
        "licence": "Apache-2.0",
        "inputs": list(inputs),
        "outputs": list(outputs),
        "messages": [{"role": "user", "content": text}],
        "reply": reply,
    }
    return save(path, prompt)


def records(run: Path, folder: str = "data") -> list[dict[str, Any]]:
    """The rows of all shards of a folder, in order; none where there is no shard."""
    files = sorted((run / folder).glob("*.parquet"))
    return pl.read_parquet(files).to_dicts() if files else []


def published_bytes(run: Path) -> dict[str, str]:
    """Path -> sha256 of every file of `data/` and `rejected/`."""
    files = sorted([*(run / "data").glob("*"), *(run / "rejected").glob("*")])
    assert files
    return {str(path.relative_to(run)): sha256(path.read_bytes()).hexdigest() for path in files}


def bill_usd(server: Loopback, *, input: float, output: float) -> float:
    """What the server would charge for every answer it gave, at prices per million tokens."""
    tokens = sum(paid.input_tokens * input + paid.output_tokens * output for paid in server.payments)
    return tokens / 1_000_000


def graded(body: Body) -> str:
    """Answers questions with drawn text, and rates by a hash of what is to be rated (1 to 5)."""
    text = str(body["messages"])
    if "Rate how well the response" not in text:
        return answer_text(body, 40)
    score = sha256(text.encode()).digest()[0] % 5 + 1
    return json.dumps({"reason": "Because.", "score": score})


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed on stdout, parsed."""
        return json.loads(self.out)


def cli(*arguments: object) -> Result:
    """`synthgen ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["synthgen", *map(str, arguments)]
    code: object = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    assert isinstance(code, int)
    return Result(code, out.getvalue(), err.getvalue())
