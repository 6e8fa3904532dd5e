"""Every bundled example passes policy as it stands, and generates records against the loopback teacher."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

from synthgen import api
from synthgen.errors import PolicyError
from synthgen.recipe.load import load_recipe
from tests.documented import LABELS, ROOT, DayOfTheDocs, Teacher, fix_the_day, overrides
from tests.loopback import Loopback

EXAMPLES = ROOT / "examples"
RECIPES = sorted(
    path.relative_to(EXAMPLES).as_posix()
    for path in EXAMPLES.rglob("*.yaml")
    if "runs" not in path.relative_to(EXAMPLES).parts
)
REMOTE = [name for name in RECIPES if "provider: local" not in (EXAMPLES / name).read_text(encoding="utf-8")]


@pytest.fixture(autouse=True)
def _day(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_the_day(monkeypatch)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("runs"))


def generated(recipe: Path, *more: str) -> tuple[api.Report, pl.DataFrame]:
    """Run an example against the loopback teacher; its report and its accepted records."""
    out = recipe.parent / "run"
    with Loopback(reply=Teacher()) as server:
        report = api.generate(recipe, out, overrides=[*overrides(recipe, server.url), *more])
    return report, pl.concat([pl.read_parquet(path) for path in sorted((out / "data").glob("*.parquet"))])


def test_the_examples_the_readme_names_are_there() -> None:
    assert {
        "quickstart.yaml",
        "openai.yaml",
        "anthropic/recipe.yaml",
        "vllm.yaml",
        "document_qa.yaml",
    } <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_an_example_passes_policy_as_it_stands(name: str) -> None:
    plan = api.plan(EXAMPLES / name)

    assert plan.allowed
    assert plan.bad_rows == 0


@pytest.mark.parametrize("name", REMOTE)
def test_an_example_generates_what_it_promises(name: str, examples: Path) -> None:
    recipe = examples / name
    target = yaml.safe_load(recipe.read_text(encoding="utf-8")).get("target")

    report, records = generated(recipe)

    assert report.problem is None
    assert report.counts["accepted"] == len(records) >= (target or 10)


@pytest.mark.parametrize("name", ["openai.yaml", "anthropic/recipe.yaml"])
def test_the_classifier_examples_label_every_ticket(name: str, examples: Path) -> None:
    _, records = generated(examples / name)

    turns = [[message["role"] for message in row] for row in records["messages"].to_list()]
    labels = {row[-1]["content"] for row in records["messages"].to_list()}
    assert turns == [["system", "user", "assistant"]] * 12
    assert labels <= set(LABELS)


def test_a_document_example_record_does_not_hold_the_document(examples: Path) -> None:
    _, records = generated(examples / "document_qa.yaml", "source.limit=2")

    asked = {row[0]["content"] for row in records["messages"].to_list()}
    assert len(records) == 6
    assert not any("library lends" in text for text in asked)


@pytest.mark.parametrize("name", ["openai.yaml", "anthropic/recipe.yaml"])
def test_the_vendor_examples_hold_only_for_the_use_they_declare(name: str, examples: Path) -> None:
    (examples / "anthropic" / "policy.lock.toml").unlink()

    with pytest.raises(PolicyError):
        api.generate(examples / name, examples / "run", overrides=["use=[train-general]"])


def test_the_anthropic_example_stands_on_its_attestation(examples: Path) -> None:
    (examples / "anthropic" / "policy.lock.toml").unlink()

    plan = api.plan(examples / "anthropic" / "recipe.yaml")

    assert not plan.allowed


def test_the_sample_attestation_says_that_it_is_one() -> None:
    text = (EXAMPLES / "anthropic" / "policy.lock.toml").read_text(encoding="utf-8")

    assert "justification = " in text
    assert text.count("SAMPLE") >= 3


def test_every_source_file_of_the_examples_is_read_by_one() -> None:
    used = {
        (recipe.parent / yaml.safe_load(recipe.read_text(encoding="utf-8"))["source"]["jsonl"]).resolve()
        for recipe in (EXAMPLES / name for name in REMOTE)
    }

    assert used == {path.resolve() for path in EXAMPLES.glob("*.jsonl")}


@pytest.mark.parametrize("name", RECIPES)
def test_an_example_says_what_it_makes(name: str) -> None:
    loaded = load_recipe(EXAMPLES / name)

    assert loaded.recipe.description
    assert (EXAMPLES / name).read_text(encoding="utf-8").startswith("# ")


def test_the_fixed_day_is_within_the_sample_attestation() -> None:
    text = (EXAMPLES / "anthropic" / "policy.lock.toml").read_text(encoding="utf-8")

    assert f"date = {DayOfTheDocs.today()}" in text
