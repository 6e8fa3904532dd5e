"""The test split as a reference: no train row asks what a test row asks, and templates withdraw nobody."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from synthgen.dataset.staging import root_hash
from tests.loopback import Loopback
from tests.runs import cli, published_bytes, recipe, records, save, save_rows
from tests.test_decontamination import TEMPLATE, sentence, wrapped


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


def dataset(folder: Path, prompts: list[str], *, tested: set[int]) -> Path:
    """Rows whose ids put those at `tested` into a test split of a tenth."""
    draw = random.Random(7)
    ids: list[str] = []
    for place in range(len(prompts)):
        number = 0
        while (root_hash(f"{place}-{number}") < 2**64 // 10) != (place in tested):
            number += 1
        ids.append(f"{place}-{number}")
    rows = [
        {"id": ids[place], "prompt": prompt, "completion": sentence(draw, 12)}
        for place, prompt in enumerate(prompts)
    ]
    return save_rows(folder / "rows.jsonl", rows)


def split(tmp_path: Path, prompts: list[str], tested: set[int]) -> tuple[list[int], dict[int, str]]:
    """Places of the accepted rows, and place -> reason of the rejected ones."""
    data = dataset(tmp_path, prompts, tested=tested)
    options = ["--chain", "none", "--no-near", "--test-share", "0.1", "--json"]
    result = cli("filter", data, "-o", tmp_path / "out", *options)
    assert result.code == 0, result.err
    counts = result.json["counts"]
    assert counts["accepted"] + counts["rejected"] == len(prompts)
    rejected = records(tmp_path / "out", "rejected")
    assert {row["stage"] for row in rejected} <= {"decontaminate:test_split"}
    assert sum(result.json["reasons"].values()) == len(rejected)
    accepted = sorted(int(row["id"].partition("-")[0]) for row in records(tmp_path / "out"))
    return accepted, {int(row["id"].partition("-")[0]): row["reason"] for row in rejected}


def questions(count: int, words: int = 25) -> list[str]:
    draw = random.Random(words)
    return [sentence(draw, words) for _ in range(count)]


def test_train_rows_that_repeat_a_test_prompt_are_withdrawn_in_any_disguise(tmp_path: Path) -> None:
    own = questions(40)
    leaks = [own[0].upper(), wrapped(own[0]), f"{own[30]} {own[0]} {own[31]}"]

    accepted, rejected = split(tmp_path, own + leaks, tested={0, 1})

    assert accepted == list(range(40))
    assert rejected == {40: "exact_match", 41: "exact_match", 42: "shared_run"}


def test_a_prompt_of_one_word_is_a_leak_as_a_whole(tmp_path: Path) -> None:
    accepted, rejected = split(tmp_path, ["Refund?", *questions(30), "refund?", "No refund?"], tested={0})

    assert rejected == {31: "exact_match"}
    assert 0 in accepted


@pytest.mark.parametrize("rows", [8, 300])
def test_a_template_of_all_prompts_withdraws_nobody(rows: int, tmp_path: Path) -> None:
    prompts = [
        f"{TEMPLATE} {question}\nAnswer with one word and nothing else." for question in questions(rows, 6)
    ]

    accepted, _ = split(tmp_path, prompts, tested={3})

    assert accepted == list(range(rows))


def test_a_template_of_some_prompts_does_not_hide_a_leak_of_one(tmp_path: Path) -> None:
    prompts = [f"{TEMPLATE} {question}" for question in questions(60, 14)] + questions(60, 20)
    prompts += [f"Please be kind. {prompts[3]}", f"Hello. {prompts[100]} Thank you."]

    _, rejected = split(tmp_path, prompts, tested={3, 100})

    assert set(rejected) == {120, 121}


def test_one_question_for_all_rows_withdraws_nobody(tmp_path: Path) -> None:
    accepted, _ = split(tmp_path, ["Write a story about a robot that learns to love."] * 30, tested={4, 5})

    assert accepted == list(range(30))


def test_a_question_that_a_teacher_wrote_again_and_again_leaks_once_tested(tmp_path: Path) -> None:
    again = "Write a story about a robot that learns to love."

    accepted, rejected = split(tmp_path, questions(300) + [again] * 20, tested={0, 300})

    assert set(rejected) == set(range(301, 320))
    assert 300 in accepted


def test_the_manifest_and_the_report_say_what_was_withdrawn(tmp_path: Path) -> None:
    own = questions(30)
    data = dataset(tmp_path, [*own, own[0].lower()], tested={0})
    options = ["--chain", "none", "--no-near", "--test-share", "0.1"]
    assert cli("filter", data, "-o", tmp_path / "out", *options).code == 0

    report = cli("report", tmp_path / "out", "--json").json

    (said,) = json.loads((tmp_path / "out/manifest.json").read_text())["decontamination"]
    assert (said["name"], said["split"], said["items"], said["asked_by_many"]) == ("test_split", "test", 1, 0)
    (found,) = report["decontamination"]
    assert found["rows"] == 1
    assert found["matches"][0]["item"] == "0"


def test_what_order_and_batches_rows_come_in_changes_no_verdict(tmp_path: Path) -> None:
    own = questions(50)
    data = dataset(tmp_path, [*own, own[0].lower(), own[1].upper()], tested={0, 1})
    lines = data.read_text().splitlines(keepends=True)
    parts = [save_rows(tmp_path / f"part{n}.jsonl", []) for n in range(2)]
    for part, chosen in zip(parts, (lines[:20], lines[20:]), strict=True):
        part.write_text("".join(chosen))
    options = ["--chain", "none", "--no-near", "--test-share", "0.1"]

    for name, inputs in (("one", [data]), ("two", parts)):
        assert cli("filter", *inputs, "-o", tmp_path / name, *options).code == 0

    kept = [[row["id"] for row in records(tmp_path / name)] for name in ("one", "two")]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 50


def test_a_run_says_what_its_target_lost(loopback: Loopback, tmp_path: Path) -> None:
    own = questions(21)

    def run(prompts: list[str], name: str, target: int) -> Path:
        rows = [{"id": str(n), "instruction": text} for n, text in enumerate(prompts)]
        refine = {"chain": "none", "dedup": {"near": None}}
        changes = {"output": {"test_share": 0.001}, "refine": refine, "target": target, "wave": 4}
        return save(tmp_path / name, recipe(loopback, source={"inline": rows}, **changes))

    assert cli("generate", run(own, "own.yaml", 21), "-o", tmp_path / "own").code == 0
    (test_file,) = (tmp_path / "own/data").glob("test-*.parquet")
    (tested,) = pl.read_parquet(test_file)["messages"].list.first().struct.field("content").to_list()
    place = own.index(tested)
    own[place - 1] = own[place].upper()
    leaking = run(own, "leaking.yaml", 21)
    result = cli("generate", leaking, "-o", tmp_path / "run", "--json")
    first = published_bytes(tmp_path / "run")
    again = cli("generate", leaking, "-o", tmp_path / "run", "--json")
    select = ["--set", "refine.select={n: 21}"]  # then the target is what there was to select from
    selected = cli("generate", leaking, "-o", tmp_path / "selected", "--json", *select)

    assert (selected.code, selected.json["counts"]["accepted"]) == (0, 20)
    assert result.code == again.code == 3
    assert "target missed: 20 of 21 records: withdrawn from train" in result.json["problem"]
    assert "`target: 22`" in result.json["problem"]
    assert result.json["counts"]["rejected"] == 1
    assert published_bytes(tmp_path / "run") == first


def test_a_reference_may_not_take_the_name_of_the_test_split(tmp_path: Path) -> None:
    bench = save_rows(tmp_path / "test_split.jsonl", [{"question": TEMPLATE}])
    data = dataset(tmp_path, questions(3), tested=set())

    result = cli("filter", data, "-o", tmp_path / "out", "--against", bench)

    assert result.code == 2
    assert "another `name`" in result.err
