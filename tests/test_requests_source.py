"""Request logs as a source: every form of a logged request gives the question, its system text and what came before."""

import json
from pathlib import Path

import polars as pl
import pytest

from synthgen.errors import SourceError
from synthgen.plugins import load_plugin
from synthgen.recipe.model import SourceConfig
from synthgen.sources import BadRow, SourceRow, read_source
from synthgen.types import JSONValue

ASK = "Why is the sky blue?"
TURNS: list[JSONValue] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": ASK},
]
WITH_SYSTEM = {
    "messages": {"messages": TURNS},
    "request": {"id": "r1", "request": {"model": "m", "messages": TURNS}, "response": {"messages": []}},
    "request_as_text": {"request": json.dumps({"messages": TURNS})},
    "batch_line": {"custom_id": "1", "method": "POST", "body": {"messages": TURNS}},
    "anthropic": {"system": [{"type": "text", "text": "Be brief."}], "messages": TURNS[1:]},
    "responses": {"instructions": "Be brief.", "input": TURNS[1:]},
    "parts": {
        "messages": [
            *TURNS[:3],
            {"role": "user", "content": [{"type": "text", "text": ASK}, {"type": "image_url"}]},
        ]
    },
}


def read(path: Path, **params: object) -> list[SourceRow | BadRow]:
    model = load_plugin("source", "requests").params.model_validate({"path": str(path), **params})
    return list(read_source(SourceConfig(kind="requests", params=model, license="own"), path.parent))


def log(folder: Path, *rows: object) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("row", WITH_SYSTEM.values(), ids=WITH_SYSTEM)
def test_a_conversation_gives_its_last_question(row: object, tmp_path: Path) -> None:
    (found,) = read(log(tmp_path, row))

    assert isinstance(found, SourceRow)
    assert found.fields == {
        "instruction": ASK,
        "system": "Be brief.",
        "history": "user: Hello.\n\nassistant: Hi.",
    }


@pytest.mark.parametrize("name", ["instruction", "question", "prompt", "text", "input"])
def test_plain_text_is_found_under_common_names(name: str, tmp_path: Path) -> None:
    (found,) = read(log(tmp_path, {"id": 7, name: ASK}))

    assert isinstance(found, SourceRow)
    assert found.fields == {"instruction": ASK, "system": "", "history": ""}


def test_a_column_of_any_name_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"ticket,said\n1,{ASK}\n2,\n")

    first, second = read(path, column="said")

    assert isinstance(first, SourceRow)
    assert first.fields["instruction"] == ASK
    assert isinstance(second, BadRow)
    assert "no text in column 'said'" in second.problem


def test_parquet_turns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"messages": [TURNS]}).write_parquet(path)

    (found,) = read(path)

    assert isinstance(found, SourceRow)
    assert found.fields["instruction"] == ASK


def test_a_row_in_which_nobody_asks_is_bad_and_its_text_stays_unsaid(tmp_path: Path) -> None:
    rows = read(
        log(tmp_path, {"messages": [{"role": "assistant", "content": "Well."}]}, {"a": 1}, {"text": ASK})
    )

    assert [isinstance(row, BadRow) for row in rows] == [True, True, False]
    assert "no request in it; there are: messages" in str(rows[0])
    assert "Well" not in str(rows[0])


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.zip").write_bytes(b"")

    with pytest.raises(SourceError, match="unknown kind of log"):
        read(tmp_path / "log.zip")
