"""`docs/filters.md` says what is there: names, parameters, reason codes, chains, and an example that loads."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from synthgen.plugins import load_plugin, plugin_names
from synthgen.refine import VIEW, load_chain, run_chain

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "filters.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|", DOCUMENT, re.MULTILINE)
CATALOGUE = {
    name: (set(re.findall(r"`(\w+)`", params)), set(re.findall(r"`(\w+)`", reasons)))
    for name, _, params, reasons in ROWS
}


def test_the_catalogue_lists_every_filter_once() -> None:
    assert sorted(name for name, *_ in ROWS) == plugin_names("filter")


@pytest.mark.parametrize("name", plugin_names("filter"))
def test_the_catalogue_has_the_parameters_of_a_filter(name: str) -> None:
    assert CATALOGUE[name][0] == set(load_plugin("filter", name).params.model_fields)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests/data/filters").glob("*.jsonl")), ids=lambda path: path.stem
)
def test_every_reason_of_the_examples_is_in_the_catalogue(path: Path) -> None:
    reasons = {json.loads(line).get("reason") for line in path.read_text(encoding="utf-8").splitlines()} - {
        None
    }

    assert reasons <= CATALOGUE.get(path.stem, (set(), set()))[1]


def test_every_bundled_chain_is_described() -> None:
    described = set(re.findall(r"^\| `(\w+)` \| [^|]* \|$", DOCUMENT, re.MULTILINE))

    assert described == {path.stem for path in (ROOT / "filters").glob("*.yaml")}


def test_the_chain_and_the_function_of_the_document_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, function = (
        re.findall(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL)[0] for kind in ("yaml", "python")
    )
    (tmp_path / "mine.yaml").write_text(chain, encoding="utf-8")
    (tmp_path / "mychecks.py").write_text(function, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    said = "Please wait for the clerk at the counter, and please bring the form with you."

    judged = run_chain(
        load_chain("mine.yaml", tmp_path),
        pl.DataFrame({"id": ["1", "2"], "completion": [said, said.replace("please", "do")]}),
    )

    assert judged["reason"].to_list() == [None, "rude"]


def test_the_columns_a_filter_may_name_are_those_of_the_view() -> None:
    named = re.search(r"see of a row \((.*?)\)", DOCUMENT, re.DOTALL)

    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) == set(VIEW)
