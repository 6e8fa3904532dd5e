"""`filter`: anybody's data in every known format, and a run once more, without any teacher."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import synthgen
from synthgen.assets import find_asset
from synthgen.dataset import verify
from tests.loopback import Loopback
from tests.runs import cli, graded, published_bytes, recipe, records, save, save_rows

QUESTION, ANSWER = "Why is the sky blue?", "Because air scatters short waves of light more than long ones."
# The same conversation in every format; the second row is empty of an answer, the third repeats the first.
FORMATS = {
    "messages": {
        "messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    },
    "prompt_completion": {"prompt": QUESTION, "completion": ANSWER},
    "alpaca": {"instruction": QUESTION, "output": ANSWER},
    "sharegpt": {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
}
OTHER = "How do boats float?"
REPLY = "They push away as much water as they weigh, and the water pushes back."


def variants(row: dict[str, object]) -> list[dict[str, object]]:
    """The row, one with an empty answer, one like the first, one of its own."""
    text = json.dumps(row)
    empty = text.replace(ANSWER, "").replace(QUESTION, "What is empty?")
    return [
        json.loads(text) for text in (text, empty, text, text.replace(QUESTION, OTHER).replace(ANSWER, REPLY))
    ]


@pytest.fixture(params=["jsonl", "parquet"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(folder: Path, rows: list[dict[str, object]], suffix: str = "jsonl") -> Path:
    path = folder / f"rows.{suffix}"
    if suffix == "jsonl":
        return save_rows(path, rows)
    pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_every_format_is_refined(row: dict[str, object], suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path, variants(row), suffix)

    result = cli("filter", path, "-o", tmp_path / "out", "--json")

    assert result.code == 0
    assert result.json["counts"]["accepted"] == 2
    assert result.json["reasons"] == {"dedup:exact/exact_duplicate": 1, "filter:length/empty": 1}
    assert [m["content"] for m in records(tmp_path / "out")[0]["messages"]] == [QUESTION, ANSWER]
    assert [m["content"] for m in records(tmp_path / "out")[1]["messages"]] == [OTHER, REPLY]
    assert verify(tmp_path / "out") == []


def test_the_result_has_the_same_bytes_wherever_it_is_written(tmp_path: Path) -> None:
    path = written(tmp_path, variants(FORMATS["messages"]))

    for name in ("one", "two"):
        assert cli("filter", path, "-o", tmp_path / name).code == 0

    assert published_bytes(tmp_path / "one") == published_bytes(tmp_path / "two")


def test_filtering_into_the_same_folder_again_replaces_it(tmp_path: Path) -> None:
    path = written(tmp_path, variants(FORMATS["messages"]))
    cli("filter", path, "-o", tmp_path / "out")

    result = cli("filter", path, "-o", tmp_path / "out", "--chain", "none")

    assert result.code == 0
    assert len(records(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_malformed_row_is_a_reject_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, [FORMATS["messages"], {"messages": "none"}])
    path.write_text(path.read_text() + "{broken\n")

    assert cli("filter", path, "-o", tmp_path / "out").code == 0

    rejects = records(tmp_path / "out", "rejected")
    assert [(row["stage"], row["reason"]) for row in rejects] == [("source", "malformed_row")] * 2
    assert [row["source"].rpartition(":")[2] for row in rejects] == ["2", "3"]


def test_near_duplicates_are_kept_on_demand(tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(60))
    rows = [{"prompt": QUESTION, "completion": f"{words} {end}"} for end in ("alpha", "omega")]
    path = written(tmp_path, rows)  # type: ignore[arg-type]  # texts are objects

    cli("filter", path, "-o", tmp_path / "out", "--chain", "none")
    cli("filter", path, "-o", tmp_path / "all", "--chain", "none", "--no-near")

    assert (len(records(tmp_path / "out")), len(records(tmp_path / "all"))) == (1, 2)
    assert [row["reason"] for row in records(tmp_path / "out", "rejected")] == ["near_duplicate"]


SHARED = " ".join(f"word{n}" for n in range(60))


def alike(name: str, end: str, **more: object) -> dict[str, object]:
    """A row like all others of its kind but for its end."""
    return {"id": name, "prompt": QUESTION, "completion": f"{SHARED} {end}", **more}


def test_the_same_rows_stay_however_they_are_spread_over_files(tmp_path: Path) -> None:
    parts = [[alike("b", "alpha"), alike("c", "alpha")], [alike("a", "omega"), alike("d", "alpha omega")]]
    for name, order in (("one", (0, 1)), ("two", (1, 0))):
        (tmp_path / name).mkdir()
        for file, part in enumerate(order):
            save_rows(tmp_path / name / f"{file}.jsonl", parts[part])

        assert cli("filter", tmp_path / name, "-o", tmp_path / f"{name}.out", "--chain", "none").code == 0

    for name in ("one", "two"):
        assert [row["id"] for row in records(tmp_path / f"{name}.out")] == ["a"]
        gone = {row["id"]: row["detail"] for row in records(tmp_path / f"{name}.out", "rejected")}
        assert gone == {"b": "a", "c": "a", "d": "a"}


@pytest.mark.parametrize(
    ("rule", "stays"), [("first", "a"), ("longest", "c"), ("best:reward", "b"), ("random:3", "c")]
)
def test_who_stays_of_similar_rows_is_chosen(rule: str, stays: str, tmp_path: Path) -> None:
    rows = [alike("a", "x", reward=1.0), alike("b", "y", reward=2.0), alike("c", "a long end", reward=None)]
    path = written(tmp_path, rows)

    cli("filter", path, "-o", tmp_path / "out", "--chain", "none", "--dedup", rule)

    assert [row["id"] for row in records(tmp_path / "out")] == [stays]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["dedup"]["keep"] == rule


def test_a_copy_of_a_near_duplicate_is_a_near_duplicate(tmp_path: Path) -> None:
    path = written(tmp_path, [alike("a", "x"), alike("b", "y"), alike("c", "y")])

    cli("filter", path, "-o", tmp_path / "out", "--chain", "none")

    gone = [(row["id"], row["stage"], row["detail"]) for row in records(tmp_path / "out", "rejected")]
    assert gone == [("b", "dedup:near", "a"), ("c", "dedup:near", "a")]


def test_a_set_that_looks_like_a_template_is_not_cut_down_unasked(tmp_path: Path) -> None:
    path = written(tmp_path, [alike(f"r{n}", f"end{n}") for n in range(60)])
    options = ["-o", tmp_path / "out", "--chain", "none"]

    stopped = cli("filter", path, *options)

    assert stopped.code == 3
    assert "rows.jsonl loses 59 of its 60 rows" in stopped.err
    assert not (tmp_path / "out" / "data").exists()
    assert cli("filter", path, *options, "--allow-collapse").code == 0
    assert cli("filter", path, *options, "--no-near").code == 0


def test_a_score_column_decides_and_a_row_without_one_is_unjudged(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{QUESTION} {n}", "completion": f"{ANSWER} {n}", "quality": score}
        for n, score in enumerate([5, 2, None])
    ]
    path = written(tmp_path, rows)  # type: ignore[arg-type]  # as above
    options = ["--no-near", "--score", "quality", "--keep", ">= 4"]

    result = cli("filter", path, "-o", tmp_path / "out", *options, "--json")

    assert result.json["counts"]["accepted"] == 1
    assert result.json["reasons"] == {"judge/judge_below": 1, "judge/unjudged": 1}


def test_rows_are_selected_by_a_column(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{QUESTION} {n}", "completion": f"{ANSWER} {n}", "reward": score}
        for n, score in enumerate([0.1, 0.9, None])
    ]
    path = written(tmp_path, rows)  # type: ignore[arg-type]  # as above

    options = ["--chain", "none", "--no-near", "--select", "1", "--by", "score:reward"]
    cli("filter", path, "-o", tmp_path / "out", *options)

    (kept,) = records(tmp_path / "out")
    assert kept["scores"] == [{"name": "reward", "score": 0.9}]


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, variants(FORMATS["messages"]))

    result = cli("filter", path, "--dry-run", "3", "--json")

    assert result.json["counts"]["planned"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_without_a_use_the_output_says_that_policy_was_not_evaluated(tmp_path: Path) -> None:
    cli("filter", written(tmp_path, variants(FORMATS["messages"])), "-o", tmp_path / "out")

    assert json.loads((tmp_path / "out" / "manifest.json").read_bytes())["policy"] == "unevaluated"
    assert "unevaluated" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "POLICY.json").exists()


def test_a_declared_use_and_origin_are_decided_and_stamped(tmp_path: Path) -> None:
    path = written(tmp_path, variants(FORMATS["messages"]))

    result = cli(
        "filter",
        path,
        "-o",
        tmp_path / "out",
        "--use",
        "train-general",
        "--origin",
        "Qwen/Qwen3-8B@self-hosted",
    )

    (first, _) = records(tmp_path / "out")
    assert result.code == 0
    assert (first["teacher"], first["route"]) == ("Qwen/Qwen3-8B", "self-hosted")
    assert first["policy_id"] in (tmp_path / "out" / "POLICY.json").read_text()
    assert json.loads((tmp_path / "out" / "manifest.json").read_bytes())["policy"].startswith("allow")


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--use", "train-general", "--origin", "gpt-4o@openai-api"], 4, "gpt-4o on openai-api"),
        (["--use", "train-general", "--origin", "nobody@nowhere"], 4, "deny"),
        (["--use", "train-general"], 2, "--use needs --origin"),
        (["--use", "train-general", "--origin", "qwen"], 2, "write it as teacher@route"),
        (["--use", "train-generl", "--origin", "a@b"], 2, "did you mean 'train-general'?"),
        (["--keep", "good"], 2, "write a comparison and a number"),
        (["--chain", "sft_defalt"], 2, "did you mean 'sft_default'?"),
    ],
)  # fmt: skip
def test_what_may_not_or_cannot_be_done_writes_nothing(
    tmp_path: Path, options: list[str], code: int, expected: str
) -> None:
    path = written(tmp_path, variants(FORMATS["messages"]))

    result = cli("filter", path, "-o", tmp_path / "out", *options)

    assert result.code == code
    assert expected in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_origin_column_is_decided_row_by_row(tmp_path: Path) -> None:
    good = [{**row, "from": "Qwen/Qwen3-8B@self-hosted"} for row in variants(FORMATS["prompt_completion"])]
    bad = [*good, {"prompt": "Who?", "completion": "Nobody knows that.", "from": "gpt-4o@openai-api"}]
    options = ["--use", "train-general", "--origin-column", "from"]

    allowed = cli("filter", written(tmp_path, good), "-o", tmp_path / "good", *options)
    denied = cli("filter", written(tmp_path, bad), "-o", tmp_path / "bad", *options)

    assert (allowed.code, denied.code) == (0, 4)
    assert len({row["policy_id"] for row in records(tmp_path / "good")}) == 1
    assert "gpt-4o on openai-api" in denied.err
    assert not (tmp_path / "bad" / "manifest.json").exists()


def test_a_declared_origin_does_not_cover_a_row_that_names_another(tmp_path: Path) -> None:
    row = {**FORMATS["prompt_completion"], "teacher": "gpt-4o", "route": "openai-api"}
    options = ["--use", "train-general", "--origin", "Qwen/Qwen3-8B@self-hosted"]

    result = cli("filter", written(tmp_path, [row]), "-o", tmp_path / "out", *options)

    assert result.code == 4


@pytest.mark.parametrize("content", [None, '{"text": "plain"}\n', ""])
def test_inputs_without_a_known_format_are_exit_2(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)

    result = cli("filter", path, "-o", tmp_path / "out")

    assert result.code == 2
    assert len(result.err.splitlines()) == 1


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


@pytest.fixture
def judged_run(server: Loopback, tmp_path: Path) -> Path:
    """A run of twenty rows with judgements from 1 to 5, all kept."""
    refine = {"chain": "none", "judge": {"teacher": "qwen", "keep": ">= 1"}}
    path = save(tmp_path / "r.yaml", recipe(server, 20, refine=refine))
    assert cli("generate", path, "-o", tmp_path / "run").code == 0
    return tmp_path / "run"


def test_a_run_is_cut_again_from_its_journal_without_a_request(
    server: Loopback, judged_run: Path, tmp_path: Path
) -> None:
    asked = len(server.requests)

    result = cli(
        "filter", judged_run, "-o", tmp_path / "cut", "--chain", "strict", "--keep", ">= 4", "--json"
    )

    scores = [row["scores"][0]["score"] for row in records(tmp_path / "cut") if row["scores"]]
    assert result.code == 0
    assert len(server.requests) == asked
    assert 0 < len(records(tmp_path / "cut")) < 20
    assert min(scores) >= 4
    assert json.loads((tmp_path / "cut" / "manifest.json").read_bytes())["chain"]["name"] == "strict"


def test_a_cut_with_the_same_settings_is_the_run_itself(judged_run: Path, tmp_path: Path) -> None:
    cli("filter", judged_run, "-o", tmp_path / "cut")

    assert published_bytes(tmp_path / "cut") == published_bytes(judged_run)


def test_of_similar_records_of_a_run_the_best_stays(tmp_path: Path) -> None:
    def answer(body: dict[str, object]) -> str:
        text = str(body["messages"])
        if "Rate how well the response" in text:
            return json.dumps({"reason": "Because.", "score": 5 if "omega" in text else 2})
        return f"{SHARED} {'omega' if 'Question 1' in text else 'alpha'}"

    refine = {"chain": "none", "dedup": {"near": None}, "judge": {"teacher": "qwen", "keep": ">= 1"}}
    rows = {"inline": [{"instruction": f"Question {n}"} for n in range(3)], "license": "own"}
    with Loopback(reply=answer) as server:
        path = save(tmp_path / "r.yaml", recipe(server, refine=refine, source=rows))
        assert cli("generate", path, "-o", tmp_path / "run").code == 0
        asked = len(server.requests)

        cli("filter", tmp_path / "run", "-o", tmp_path / "all")
        cli("filter", tmp_path / "run", "-o", tmp_path / "best", "--dedup", "best:judge")

        assert len(server.requests) == asked
    assert len(records(tmp_path / "all")) == 3
    (best,) = records(tmp_path / "best")
    assert best["messages"][-1]["content"].endswith("omega")
    assert json.loads((tmp_path / "best" / "manifest.json").read_bytes())["dedup"]["keep"] == "best:judge"


def test_a_cut_works_where_prompts_and_source_are_gone(server: Loopback, tmp_path: Path) -> None:
    work = tmp_path / "work"
    rows = {"source": {"jsonl": "rows.jsonl", "license": "own"}}
    path = save(
        work / "r.yaml",
        recipe(server, **rows, steps=[{"name": "a", "prompt": "./p.yaml", "teacher": "qwen"}]),
    )
    save_rows(work / "rows.jsonl", [{"instruction": QUESTION}])
    (work / "p.yaml").write_text(
        find_asset("prompts", "answer").read_text().replace("name: answer", "name: p")
    )
    assert cli("generate", path, "-o", tmp_path / "run").code == 0
    for file in work.iterdir():
        file.unlink()

    assert cli("filter", tmp_path / "run", "-o", tmp_path / "cut").code == 0
    assert published_bytes(tmp_path / "cut") == published_bytes(tmp_path / "run")


def test_a_candidate_without_a_judgement_is_rejected_in_a_cut(server: Loopback, tmp_path: Path) -> None:
    """The strict chain kept the judge from seeing some; a cut without a chain cannot ask for them."""
    refine = {"chain": str(long_answers(tmp_path)), "judge": {"teacher": "qwen", "keep": ">= 1"}}
    path = save(tmp_path / "r.yaml", recipe(server, 4, refine=refine))
    cli("generate", path, "-o", tmp_path / "run")

    result = cli("filter", tmp_path / "run", "-o", tmp_path / "cut", "--chain", "none", "--json")

    assert result.json["reasons"] == {"judge/unjudged": 4}


def long_answers(folder: Path) -> Path:
    chain = {"name": "long", "version": 1, "description": "d", "licence": "Apache-2.0"}
    return save(folder / "long.yaml", {**chain, "steps": [{"length": {"min_chars": 10_000}}]})


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--use", "no-such-use"], 2, "unknown use"),
        (["--chain", "no_such_chain"], 2, "no bundled filter named"),
        (["--keep", "4"], 2, "write a comparison and a number"),
    ],
)
def test_a_wrong_option_of_a_cut_is_one_line(
    judged_run: Path, tmp_path: Path, options: list[str], code: int, expected: str
) -> None:
    result = cli("filter", judged_run, "-o", tmp_path / "cut", *options)

    assert (result.code, len(result.err.splitlines())) == (code, 1)
    assert expected in result.err


def test_keep_on_a_run_without_a_judge_is_refused(server: Loopback, tmp_path: Path) -> None:
    cli("generate", save(tmp_path / "r.yaml", recipe(server, 1)), "-o", tmp_path / "run")

    result = cli("filter", tmp_path / "run", "-o", tmp_path / "cut", "--keep", ">= 4")

    assert result.code == 2
    assert "has no judge" in result.err


def test_a_run_cannot_be_cut_into_itself(judged_run: Path) -> None:
    result = cli("filter", judged_run, "-o", judged_run)

    assert result.code == 2
    assert "is the run itself" in result.err


def test_a_dry_run_of_a_cut_writes_nothing(judged_run: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))

    result = cli("filter", judged_run, "--dry-run", "5", "--json")

    assert result.json["counts"]["planned"] == 5
    assert sorted(tmp_path.rglob("*")) == before


def test_a_json_array_is_refused_with_the_way_to_lines(tmp_path: Path) -> None:
    (tmp_path / "alpaca.json").write_text("[]")

    result = cli("filter", tmp_path / "alpaca.json", "-o", tmp_path / "out")

    assert result.code == 2
    assert "make lines of an array first: jq -c '.[]'" in result.err


def test_one_input_need_not_be_in_a_list(judged_run: Path, tmp_path: Path) -> None:
    report = synthgen.filter(str(judged_run), tmp_path / "cut", options=synthgen.FilterOptions(chain="none"))

    assert report.exit_code == 0


def test_a_folder_with_a_readme_of_somebody_else_is_refused_before_any_work(
    judged_run: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("mine")

    result = cli("filter", judged_run, "-o", project)

    assert result.code == 6
    assert [path.name for path in project.iterdir()] == ["README.md"]
