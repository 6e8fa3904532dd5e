"""What is bought again when a recipe or its source is edited: exactly what the edit changed, and nothing else."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synthgen.types import digest
from tests.loopback import Loopback
from tests.runs import (
    Recipe,
    Result,
    cli,
    graded,
    published_bytes,
    questions,
    recipe,
    records,
    save,
    save_prompt,
    save_rows,
    teacher,
)

ROWS = 6


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


@pytest.fixture
def first(server: Loopback, tmp_path: Path) -> Recipe:
    """A recipe that has been run once, over rows in a file."""
    rows = save_rows(tmp_path / "rows.jsonl", questions(ROWS))
    content = recipe(server, source={"jsonl": str(rows), "license": "own"})
    assert run(content, tmp_path).code == 0
    assert len(server.requests) == ROWS
    return content


def run(content: Recipe, folder: Path) -> Result:
    return cli("generate", save(folder / "r.yaml", content), "-o", folder / "run")


def asked_since(server: Loopback, before: int = ROWS) -> list[str]:
    """Who was asked what since the first run."""
    return [str(seen.body["messages"]) for seen in server.requests[before:]]


def test_appending_a_row_sends_exactly_its_request(server: Loopback, first: Recipe, tmp_path: Path) -> None:
    save_rows(tmp_path / "rows.jsonl", [*questions(ROWS), {"instruction": "And what is new?"}])

    result = run(first, tmp_path)

    (asked,) = asked_since(server)
    assert "And what is new?" in asked
    assert (result.code, len(records(tmp_path / "run"))) == (0, ROWS + 1)


def test_reordering_the_source_asks_nothing_and_keeps_ids(
    server: Loopback, first: Recipe, tmp_path: Path
) -> None:
    def answers() -> dict[str, object]:
        return {row["id"]: row["messages"] for row in records(tmp_path / "run")}

    before = answers()
    rows = questions(ROWS)
    random.Random(3).shuffle(rows)
    save_rows(tmp_path / "rows.jsonl", rows)

    run(first, tmp_path)

    assert asked_since(server) == []
    assert answers() == before
    assert list(answers()) != list(before)


def edit_limits(content: Recipe) -> None:
    content["teachers"]["qwen"]["limits"] = {"concurrency": 2, "rpm": 1000}


def edit_price(content: Recipe) -> None:
    content["teachers"]["qwen"]["price"] = {"input": 1, "output": 2}


def edit_use(content: Recipe) -> None:
    content["use"] = ["evaluate-only"]


def edit_output(content: Recipe) -> None:
    content["output"] = {"record": {"system": "Be kind."}, "rows_per_shard": 2, "test_share": 0.5}


def edit_chain(content: Recipe) -> None:
    content["refine"] = {"chain": "sft_default"}


def edit_dedup(content: Recipe) -> None:
    content["refine"] = {"chain": "none", "dedup": {"near": None}}


def edit_wave(content: Recipe) -> None:
    content["wave"] = 2


def edit_transport(content: Recipe) -> None:
    content["teachers"]["qwen"]["transport"] = "sdk"


def edit_alias(content: Recipe) -> None:
    content["teachers"] = {"other": content["teachers"]["qwen"]}
    content["steps"][0]["teacher"] = "other"


def edit_budget(content: Recipe) -> None:
    content["budget_usd"] = 3


EDITS_THAT_ASK_NOTHING = [
    edit_limits, edit_price, edit_use, edit_output, edit_chain, edit_dedup, edit_wave, edit_transport, edit_alias,
    edit_budget,
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS_THAT_ASK_NOTHING)
def test_an_edit_that_changes_no_question_sends_nothing(
    server: Loopback, first: Recipe, tmp_path: Path, edit: Callable[[Recipe], None]
) -> None:
    edit(first)

    result = run(first, tmp_path)

    assert result.code == 0
    assert asked_since(server) == []
    assert f"{ROWS} of {ROWS} candidates have their answers; to be asked: 0" in result.err


@pytest.mark.parametrize("edit", [edit_limits, edit_price, edit_wave, edit_budget])
def test_such_an_edit_of_limits_and_prices_changes_no_byte_either(
    first: Recipe, tmp_path: Path, edit: Callable[[Recipe], None]
) -> None:
    before = published_bytes(tmp_path / "run")
    edit(first)

    run(first, tmp_path)

    assert published_bytes(tmp_path / "run") == before


def edit_temperature(content: Recipe) -> None:
    content["teachers"]["qwen"]["sampling"]["temperature"] = 0.3


def edit_model(content: Recipe) -> None:
    content["teachers"]["qwen"]["model"] = "qwen3-new"


def edit_route(content: Recipe) -> None:
    content["teachers"]["qwen"]["provider"] = "openai"


def edit_pool(content: Recipe) -> None:
    content["teachers"]["qwen"]["pool"] = "another-lab"


def edit_system_prompt(content: Recipe) -> None:
    content["steps"][0]["with"] = {"system": "Answer in one line."}


@pytest.mark.parametrize("edit", [edit_temperature, edit_model, edit_route, edit_pool, edit_system_prompt])
def test_an_edit_that_changes_every_question_asks_every_row_again_and_says_so(
    server: Loopback, first: Recipe, tmp_path: Path, edit: Callable[[Recipe], None]
) -> None:
    edit(first)

    result = run(first, tmp_path)

    assert len(asked_since(server)) == ROWS
    (line,) = [line for line in result.err.splitlines() if "the recipe has changed" in line]
    assert f"0 of {ROWS} candidates have their answers; to be asked: {ROWS}" in line


def test_an_edit_of_one_of_two_teachers_asks_only_its_rows_again(server: Loopback, tmp_path: Path) -> None:
    teachers = {"one": teacher(server, model="qwen3-one"), "two": teacher(server, model="qwen3-two")}
    steps = [{"name": "answer", "prompt": "answer", "teacher": {"one": 1, "two": 1}}]
    content = recipe(server, rows=20, teachers=teachers, steps=steps)
    run(content, tmp_path)
    second = sum(seen.body["model"] == "qwen3-two" for seen in server.requests)
    teachers["two"]["sampling"] = {"max_tokens": 150}

    run(content, tmp_path)

    assert 0 < second < 20
    assert [seen.body["model"] for seen in server.requests[20:]] == ["qwen3-two"] * second


def test_an_edit_of_the_second_step_keeps_the_first(server: Loopback, tmp_path: Path) -> None:
    steps = [
        {"name": "vary", "prompt": "evolve_instruction", "teacher": "qwen"},
        {"name": "answer", "prompt": "answer", "teacher": "qwen"},
    ]
    content = recipe(server, rows=3, steps=steps)
    run(content, tmp_path)
    content["steps"][1]["with"] = {"system": "Be brief."}

    run(content, tmp_path)

    again = asked_since(server, 6)
    assert len(again) == 3
    assert all("Be brief." in asked for asked in again)


def test_an_edit_inside_a_prompt_file_asks_again_and_says_so(server: Loopback, tmp_path: Path) -> None:
    def prompt(text: str) -> Path:
        return save_prompt(
            tmp_path / "mine.yaml",
            text,
            reply={"text": "response"},
            inputs=["instruction"],
            outputs=["response"],
        )

    steps = [{"name": "answer", "prompt": str(prompt("Tell me: {{ instruction }}")), "teacher": "qwen"}]
    content = recipe(server, rows=2, steps=steps)
    run(content, tmp_path)
    prompt("Tell me now: {{ instruction }}")

    result = run(content, tmp_path)

    assert len(asked_since(server, 2)) == 2
    assert "0 of 2 candidates have their answers; to be asked: 2" in result.err


def test_adding_a_judge_asks_judgements_only_and_says_how_many(
    server: Loopback, first: Recipe, tmp_path: Path
) -> None:
    first["refine"] = {"chain": "none", "judge": {"teacher": "qwen", "keep": ">= 1"}}

    result = run(first, tmp_path)

    asked = asked_since(server)
    assert len(asked) == ROWS
    assert all("Rate how well the response" in text for text in asked)
    assert f"to be asked: 0, and up to {ROWS} judgements" in result.err


def test_another_threshold_of_the_judge_asks_nothing(server: Loopback, first: Recipe, tmp_path: Path) -> None:
    first["refine"] = {"chain": "none", "judge": {"teacher": "qwen", "keep": ">= 1"}}
    run(first, tmp_path)
    first["refine"]["judge"]["keep"] = ">= 4"

    run(first, tmp_path)

    assert len(server.requests) == 2 * ROWS
    assert len(records(tmp_path / "run")) < ROWS


def test_a_removed_row_is_gone_and_comes_back_for_nothing(
    server: Loopback, first: Recipe, tmp_path: Path
) -> None:
    save_rows(tmp_path / "rows.jsonl", questions(ROWS)[:-1])
    run(first, tmp_path)
    gone = len(records(tmp_path / "run"))
    save_rows(tmp_path / "rows.jsonl", questions(ROWS))

    run(first, tmp_path)

    assert (gone, len(records(tmp_path / "run"))) == (ROWS - 1, ROWS)
    assert asked_since(server) == []


def test_the_earlier_recipe_is_kept_under_its_digest(first: Recipe, tmp_path: Path) -> None:
    before = (tmp_path / "run" / "recipe.yaml").read_bytes()
    kept = tmp_path / "run" / "recipes" / f"{digest(first)}.yaml"
    edit_limits(first)

    run(first, tmp_path)

    assert kept.read_bytes() == before
    assert (tmp_path / "run" / "recipe.yaml").read_bytes() != before


def test_an_unchanged_recipe_says_nothing(first: Recipe, tmp_path: Path) -> None:
    assert "changed" not in run(first, tmp_path).err


def test_a_smaller_and_then_a_larger_target_buys_only_the_difference(
    server: Loopback, tmp_path: Path
) -> None:
    content = recipe(server, rows=20)
    run({**content, "target": 4}, tmp_path)
    few = len(server.requests)

    run({**content, "target": 12}, tmp_path)

    assert few < 12
    assert len(server.requests) == 12
    assert server.paid_twice == 0
