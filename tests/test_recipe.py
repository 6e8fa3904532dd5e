"""Loading a recipe: text, overrides, environment, defaults, the JSON schema for editors."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import jsonschema_rs
import pytest
import yaml

from synthgen.errors import RecipeError, UsageError
from synthgen.recipe.load import LoadedRecipe, load_recipe
from synthgen.recipe.schema import recipe_schema
from synthgen.types import JSONValue

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if "teachers:" in path.read_text())
TEXT = """\
name: x                      # a comment
use: train-general
source: {inline: [{instruction: Hello}]}
teachers:
  qwen: {provider: vllm, model: "${MODEL}", hf: Qwen/Qwen3-8B, route: self-hosted, sampling: {temperature: 0.5}}
steps:
  - {name: one, prompt: answer, teacher: qwen}
"""
ENV = {"MODEL": "qwen3"}


def load(tmp_path: Path, text: str = TEXT, *overrides: str, env: Mapping[str, str] = ENV) -> LoadedRecipe:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides, env=env)


def test_the_text_is_kept_to_the_byte_and_never_expanded(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    assert loaded.text == TEXT
    assert loaded.recipe.teachers["qwen"].model == "qwen3"


def test_one_use_may_be_written_without_a_list(tmp_path: Path) -> None:
    assert load(tmp_path).recipe.use == ["train-general"]


def test_logprobs_is_a_number_and_true_does_not_stand_for_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"r\.yaml:7: steps\[0\]\.capture\.logprobs: .*integer"):
        load(tmp_path, TEXT.replace("teacher: qwen}", "teacher: qwen, capture: {logprobs: true}}"))


def test_the_digest_ignores_comments_and_the_environment(tmp_path: Path) -> None:
    commented = load(tmp_path, TEXT.replace("a comment", "another one"), env={"MODEL": "other"})

    assert commented.digest == load(tmp_path).digest


def test_the_digest_follows_every_value(tmp_path: Path) -> None:
    assert load(tmp_path, TEXT, "seed=1").digest != load(tmp_path).digest


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("seed=3", lambda r: r.seed == 3),
        ("name=2024-05-01", lambda r: r.name == "2024-05-01"),
        ("target=null", lambda r: r.target is None),
        ("steps.0.samples=4", lambda r: r.steps[0].samples == 4),
        ("steps.0.sampling.stop=[a, b]", lambda r: r.steps[0].sampling.stop == ["a", "b"]),
        ("teachers.qwen.limits.rpm=60", lambda r: r.teachers["qwen"].limits.rpm == 60),
        ("description=a=b", lambda r: r.description == "a=b"),
        ("refine.judge={teacher: qwen}", lambda r: r.refine.judge.teacher == "qwen"),
    ],
)  # fmt: skip
def test_an_override_reaches_its_key(tmp_path: Path, override: str, read: object) -> None:
    assert callable(read)
    assert read(load(tmp_path, TEXT, override).recipe)


def test_the_effective_text_holds_the_overrides_and_loads_to_the_same_recipe(tmp_path: Path) -> None:
    loaded = load(tmp_path, TEXT, "steps.0.samples=4", "seed=9")

    again = load(tmp_path, loaded.text)

    assert (again.recipe, again.digest) == (loaded.recipe, loaded.digest)


def test_a_mapping_is_a_recipe_as_well(tmp_path: Path) -> None:
    value = cast(dict[str, JSONValue], yaml.safe_load(TEXT))

    assert load_recipe(value, env=ENV).recipe == load(tmp_path).recipe


def test_a_step_lays_its_sampling_over_the_teachers(tmp_path: Path) -> None:
    recipe = load(tmp_path, TEXT, "steps.0.sampling.max_tokens=7").recipe

    sampling = recipe.steps[0].sampling.over(recipe.teachers["qwen"].sampling)

    assert (sampling.temperature, sampling.max_tokens) == (0.5, 7)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n"])
def test_what_is_no_mapping_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"r\.yaml:1: a recipe is a mapping"):
        load(tmp_path, text)


def test_a_place_is_told_as_file_line_and_key(tmp_path: Path) -> None:
    where = load(tmp_path).where("steps", 0, "teacher")

    assert where == f"{tmp_path / 'r.yaml'}:7: steps[0].teacher"


def test_an_unset_variable_is_an_error_unless_an_override_replaces_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="environment variable MODEL is not set"):
        load(tmp_path, env={})
    assert load(tmp_path, TEXT, "teachers.qwen.model=qwen3", env={}).recipe.teachers["qwen"].model == "qwen3"


def test_an_override_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"write it as key\.path=value"):
        load(tmp_path, TEXT, "seed")


def schema_accepts(value: object) -> bool:
    return jsonschema_rs.validator_for(recipe_schema()).is_valid(value)


def test_the_schema_is_a_valid_json_schema() -> None:
    assert jsonschema_rs.meta.is_valid(recipe_schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_schema_accepts_the_examples(path: Path) -> None:
    assert schema_accepts(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        {"targe": 5},
        {"steps": [{"name": "one", "prompt": "answer", "teacher": "qwen", "sample": 2}]},
        {"teachers": {"qwen": {"provider": "vllm", "model": "m", "modle": "m"}}},
        {"teachers": {"qwen": {"provider": "nobody", "model": "m"}}},
        {"source": {"inline": [{"a": "b"}], "jsonl": "x"}},
        {"use": []},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(tmp_path: Path, change: dict[str, object]) -> None:
    value = {**yaml.safe_load(TEXT), **change}

    assert not schema_accepts(value)
    with pytest.raises(UsageError):
        load(tmp_path, yaml.safe_dump(value))
