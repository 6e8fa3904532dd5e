"""`show`: what is in a run, and the whole story of one record, accepted or not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from synthgen.journal import JournalIndex
from synthgen.pipeline.resolve import resolve
from synthgen.pipeline.rows import Counter, row_from_entry
from synthgen.pipeline.runfolder import RunFolder
from tests.loopback import Body, Loopback, answer_text, refuse
from tests.runs import Result, cli, graded, recipe, records, save, save_rows, teacher

PRICE = {"input": 20, "output": 60}
STEPS = [
    {"name": "vary", "prompt": "evolve_instruction", "teacher": "qwen"},
    {"name": "answer", "prompt": "answer", "teacher": "qwen"},
]


def reply(body: Body) -> str:
    """Two rewritten questions, one of them refused below; an answer with a terminal's control sequence."""
    text = str(body["messages"])
    if "Rate how well" in text:
        return graded(body)
    for n in range(6):
        if f"number {n}?" in text:
            return f"Tell me about thing {n}."
    return answer_text(body, 30) + " \x1b[31mred\x07 \u202e"


def script(_number: int, body: Body) -> object:
    return refuse(400) if "thing 2." in str(body) and "Rate" not in str(body) else None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six rows through two steps and a judge: accepted, rejected by the judge, failed in the second step."""
    folder = tmp_path_factory.mktemp("show")
    refine = {"chain": "sft_default", "judge": {"teacher": "qwen", "keep": ">= 3"}}
    with Loopback(reply=reply, script=script) as server:  # type: ignore[arg-type]  # acts or None
        teachers = {"qwen": teacher(server, price=PRICE)}
        path = save(folder / "r.yaml", recipe(server, 6, teachers=teachers, steps=STEPS, refine=refine))
        assert cli("generate", path, "-o", folder / "run").code == 0
    return folder / "run"


def test_show_tells_counts_reasons_spend_and_samples(run: Path) -> None:
    result = cli("show", run)

    assert result.code == 0
    for expected in ("planned", "judge/judge_below", "ask/invalid", "vary", "sample 1", "rejected  "):
        assert expected in result.out


def test_show_as_json_is_json_and_nothing_else(run: Path) -> None:
    result = cli("show", run, "--samples", "2", "--json")

    shown = result.json
    assert shown["published"] is True
    assert shown["counts"]["planned"] == 6
    assert [row["id"] for row in shown["samples"]] == [row["id"] for row in records(run)][:2]
    assert shown["usage"]["total"]["cost_usd"] > 0
    assert result.err == ""


def story(run: Path, row_id: str) -> Result:
    return cli("show", run, "--row", row_id, "--json")


def test_the_story_of_an_accepted_record_has_every_step_verdict_and_cost(run: Path) -> None:
    record = records(run)[0]

    told = story(run, record["id"][:12]).json

    assert (told["id"], told["outcome"]) == (record["id"], "accepted")
    assert [step["step"] for step in told["steps"]] == ["vary", "answer", "judge"]
    assert told["cost_usd"] == pytest.approx(sum(step["cost_usd"] for step in told["steps"]))
    assert all(step["cost_usd"] > 0 and step["text"] and step["messages"] for step in told["steps"])
    assert "policy: served by the teacher that was asked" in told["verdicts"]
    assert "filter:length: kept" in told["verdicts"]
    assert any(line.startswith("score judge: ") for line in told["verdicts"])


def test_the_story_of_a_rejected_record_says_why(run: Path) -> None:
    record = records(run, "rejected")[0]

    told = story(run, record["id"]).json

    assert told["outcome"] == "rejected"
    assert f"judge: judge_below, score {record['score']}, threshold {record['threshold']}" in told["verdicts"]


def test_the_story_of_a_failed_candidate_is_read_from_the_journal(run: Path) -> None:
    published = {row["id"] for folder in ("data", "rejected") for row in records(run, folder)}
    failed = [row_id for row_id in every_id(run) if row_id not in published]

    told = story(run, failed[0]).json

    assert len(failed) == 1
    assert told["outcome"] == "failed"
    assert [step["step"] for step in told["steps"]] == ["vary", "answer"]
    assert told["steps"][1]["failure"].startswith("invalid: ")
    assert told["verdicts"][0].startswith("ask: invalid")


def every_id(run: Path) -> list[str]:
    """Ids of all candidates of a run, in plan order, as its journal has them."""
    folder = RunFolder(run)
    resolved = resolve(folder.load_recipe(), copies=folder.recipe_files)
    index, seen = JournalIndex(folder.journal), Counter()
    ids = []
    for key in folder.read_order():
        entry = index.row(key)
        assert entry is not None
        asks = resolved.tree.admit(row_from_entry(entry), seen)
        ids += [leaf.id for leaf in resolved.tree.leaves(asks, folder.reply_of(index))]
    index.close()
    return ids


def test_a_story_for_people_names_steps_replies_and_cost(run: Path) -> None:
    result = cli("show", run, "--row", records(run)[0]["id"])

    for expected in ("step vary", "step answer", "step judge", "reply: ", "USD", "cost: "):
        assert expected in result.out


def test_control_characters_of_a_model_are_shown_escaped(run: Path) -> None:
    for result in (cli("show", run, "--samples", "6"), cli("show", run, "--row", records(run)[0]["id"])):
        assert "\\x1b[31mred\\x07" in result.out
        assert not {"\x1b", "\x07", "\u202e"} & set(result.out)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("ffffffffffffffffffff", "no candidate whose id starts with"), ("", "6 candidates start")],
)
def test_an_id_that_fits_none_or_several_is_exit_2(run: Path, prefix: str, expected: str) -> None:
    result = cli("show", run, "--row", prefix)

    assert result.code == 2
    assert expected in result.err


def test_what_lies_behind_the_target_is_surplus(tmp_path: Path) -> None:
    with Loopback(reply=graded) as server:
        refine = {"chain": "none", "judge": {"teacher": "qwen", "keep": ">= 3"}}
        path = save(tmp_path / "r.yaml", recipe(server, 40, target=9, refine=refine))
        cli("generate", path, "-o", tmp_path / "run")
    run = tmp_path / "run"
    published = {row["id"] for folder in ("data", "rejected") for row in records(run, folder)}
    surplus = next(row_id for row_id in every_id(run) if row_id not in published)

    assert story(run, surplus).json["outcome"] == "surplus"


def test_a_run_that_is_not_published_says_so(tmp_path: Path) -> None:
    with Loopback() as server:
        cli("generate", save(tmp_path / "r.yaml", recipe(server, 2)), "-o", tmp_path / "run", "--ask-only")

    result = cli("show", tmp_path / "run")

    assert result.code == 0
    assert "not published yet" in result.out
    assert "answer" in result.out


def test_the_folder_of_a_filtered_dataset_can_be_shown(run: Path, tmp_path: Path) -> None:
    cli("filter", run, "-o", tmp_path / "cut")

    result = cli("show", tmp_path / "cut", "--json")

    assert result.json["counts"]["accepted"] == len(records(tmp_path / "cut"))


def test_a_record_of_a_cut_is_shown_with_what_was_said_of_it(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Name a colour.", "completion": "Red is a colour that many people like to see on walls."},
        {"prompt": "Name a colour. ", "completion": "Red is a colour that many people like to see on walls."},
        {
            "prompt": "Name an animal.",
            "completion": "As an AI language model, I cannot name an animal for you.",
        },
    ]
    given = save_rows(tmp_path / "rows.jsonl", rows)
    cli("filter", given, "-o", tmp_path / "cut")
    gone = {record["reason"]: record for record in records(tmp_path / "cut", "rejected")}

    kept = cli("show", tmp_path / "cut", "--row", records(tmp_path / "cut")[0]["id"]).out
    refused = cli("show", tmp_path / "cut", "--row", gone["self_reference"]["id"]).out
    repeats = cli("show", tmp_path / "cut", "--row", gone["exact_duplicate"]["id"][:12])

    assert ": accepted\nsource: " in kept
    assert "filter:refusal: self_reference, score 1.0, threshold 0.0" in refused
    assert "assistant: As an AI language model" in refused
    assert "the row it repeats, " in repeats.out
    assert f": {rows[0]['completion']}" in repeats.out


def test_an_id_that_is_in_no_shard_is_refused(run: Path, tmp_path: Path) -> None:
    cli("filter", run, "-o", tmp_path / "cut")

    result = cli("show", tmp_path / "cut", "--row", "zzz")

    assert result.code == 2
    assert "no record whose id starts with 'zzz'" in result.err


def test_show_says_where_a_reject_comes_from(run: Path) -> None:
    assert f"source: {records(run, 'rejected')[0]['source']}\n" in cli("show", run).out


def test_the_story_of_a_kept_record_names_the_duplicate_check(run: Path) -> None:
    assert "dedup: kept" in story(run, records(run)[0]["id"]).json["verdicts"]


def test_later_lines_of_a_turn_stand_below_its_first(run: Path) -> None:
    lines = cli("show", run, "--row", records(run)[0]["id"]).out.splitlines()

    start = next(i for i, line in enumerate(lines) if line.startswith("  user: "))
    assert "    <instruction>" in lines[start:]
