"""Filters that users write: what they are given, how their mistakes are told, and how packages bring them along."""

import sys
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from synthgen.errors import RecipeError, UsageError
from synthgen.plugins import plugin_names
from synthgen.refine import load_chain, run_chain, view_of
from synthgen.refine.user_filter import as_filter
from tests.runs import cli, save_rows


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> Path:
    """A module of a user's beside a chain that names its `check`."""
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "c.yaml").write_text(f"name: c\nversion: 1\nsteps:\n  - {name}:check\n", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return folder / "c.yaml"


def test_a_row_comes_as_plain_values() -> None:
    seen = []

    def look(fields, scores, tools, tool_calls, response_schema, completion):  # type: ignore[no-untyped-def]  # as users write
        seen.append((fields, scores, tools, tool_calls, response_schema, completion))

    rows = pl.DataFrame(
        {
            "id": ["1", "2"],
            "fields": ['{"answer": [1]}', None],
            "scores": [[{"name": "quality", "score": 3.0}], None],
            "tools": ['[{"type": "function"}]', None],
            "tool_calls": ['[{"id": "a", "name": "f", "arguments": "{}"}]', None],
            "response_schema": ['{"type": "object"}', None],
            "completion": ["x", None],
        }
    )
    plugin = as_filter("look", look)
    plugin.run(view_of(rows), plugin.params())

    assert seen == [
        (
            {"answer": [1]},
            {"quality": 3.0},
            [{"type": "function"}],
            [{"id": "a", "name": "f", "arguments": "{}"}],
            {"type": "object"},
            "x",
        ),
        ({}, {}, None, None, None, None),
    ]


def test_a_function_that_always_fails_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def check(fields):\n    return fields['no_such_field']\n"
    chain = written(tmp_path, monkeypatch, text, "always_fails")
    rows = [{"id": f"row {n}", "prompt": f"{n}?", "completion": f"{n}"} for n in range(6)]

    result = cli("filter", save_rows(tmp_path / "r.jsonl", rows), "-o", tmp_path / "o", "--chain", chain)

    assert result.code == 2
    assert "failed on each of the first 5 rows; on row row 4: KeyError: 'no_such_field'" in result.err
    assert not (tmp_path / "o" / "data").exists()


def test_a_function_that_once_worked_is_not_ended(tmp_path: Path) -> None:
    plugin = as_filter("picky", lambda completion: None if completion == "0" else completion.nothing)
    frame = view_of(pl.DataFrame({"id": list("abcdefg"), "completion": list("0123456")}))

    verdicts = plugin.run(frame, plugin.params())

    assert verdicts.detail[6] == "AttributeError: 'str' object has no attribute 'nothing'"  # type: ignore[attr-defined]


class Longest:
    """A filter with something to remember."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, completion: str, *, unit: str = "chars") -> str | None:
        return f"too_many_{unit}" if len(completion) > self.most else None


def at_most(completion: str, most: int) -> str | None:
    return "long" if len(completion) > most else None


@pytest.mark.parametrize(
    ("made", "reason"), [(Longest(2), "too_many_chars"), (partial(at_most, most=2), "long")], ids=["object", "partial"]
)  # fmt: skip
def test_an_object_that_can_be_called_is_a_filter(made: object, reason: str) -> None:
    plugin = as_filter("made", made)  # type: ignore[arg-type]  # can be called
    frame = view_of(pl.DataFrame({"id": ["1", "2"], "completion": ["ab", "abc"]}))

    assert plugin.run(frame, plugin.params()).reason.to_list() == [None, reason]  # type: ignore[attr-defined]
    assert plugin.version > 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("async def check(completion):\n    return None\n", "is asynchronous; a filter is a plain function"),
        ("def check(completion):\n    yield None\n", "yields; a filter returns None or a reason"),
        ("class check:\n    pass\n", "is not a synthgen.plugins.Plugin, nor a function or an object"),
        ("check = 3\n", "is not a synthgen.plugins.Plugin, nor a function or an object"),
        ("def check(complet\n", "SyntaxError"),
        ("check = 1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_filter_is_said_at_its_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"no_filter_{abs(hash(text))}"
    chain = written(tmp_path, monkeypatch, text, name)

    with pytest.raises(RecipeError, match=r"c\.yaml:4: steps\[0\]") as error:
        load_chain(str(chain))

    assert said in str(error.value)


def test_an_installed_package_brings_filters_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "polite_filters-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polite-filters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[synthgen.filters]\npolite = polite_filters:POLITE\nshort = polite_filters:short\n"
    )
    (tmp_path / "polite_filters.py").write_text(
        "import polars as pl\nfrom synthgen.plugins import Plugin\nfrom synthgen.recipe.model import Strict\n"
        "from synthgen.refine import Verdicts\n\n"
        "class Params(Strict):\n    word: str = 'please'\n\n"
        "def polite(frame, params):\n    said = frame['completion'].str.contains(params.word)\n"
        "    return Verdicts(pl.Series([None if is_there else 'rude' for is_there in said], dtype=pl.String))\n\n"
        "POLITE = Plugin('polite', Params, polite, version=3)\n\n"
        "def short(completion, *, most: int = 20):\n    return None if len(completion) <= most else 'long'\n"
    )
    (tmp_path / "c.yaml").write_text(
        "name: c\nversion: 1\nsteps:\n  - polite: {word: bitte}\n  - short: {most: 12}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    chain = load_chain("c.yaml", tmp_path)
    judged = run_chain(
        chain, pl.DataFrame({"id": list("abc"), "completion": ["bitte", "da", "bitte sehr gern"]})
    )

    assert {"polite", "short", "length"} <= set(plugin_names("filter"))
    assert judged["stage"].to_list() == [None, "filter:polite", "filter:short"]
    assert chain.steps[0].version == 3
    sys.modules.pop("polite_filters", None)


def test_an_unreadable_signature_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="its arguments cannot be read"):
        as_filter("built_in", max)
