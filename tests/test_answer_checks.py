"""Filters that compare answers with references, other samples and stored scores; and what a run hands to filters."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from synthgen.plugins import load_plugin
from synthgen.refine import Verdicts, load_chain, run_chain, view_of
from tests.loopback import Body, Loopback
from tests.runs import cli, questions, recipe, records, save, save_prompt, save_rows


def judge(name: str, rows: list[dict[str, object]], **params: object) -> Verdicts:
    plugin = load_plugin("filter", name)
    frame = view_of(pl.DataFrame([{"id": str(i), **row} for i, row in enumerate(rows)]))
    verdicts = plugin.run(frame, plugin.params.model_validate(params))
    assert isinstance(verdicts, Verdicts)
    return verdicts


MATH = [
    ("1/2", "The answer is $0.5$.", None),
    ("72", "She sold 48 + 24 = 72 clips.\n#### 72", None),
    (r"\frac{3}{4}", r"So it is \boxed{\frac{3}{4}}.", None),
    ("x^2+1", "$1+x^2$", None),
    (r"\sqrt{8}", r"$2\sqrt{2}$", None),
    ("10", r"First \boxed{10}, no: \boxed{11}", "math_wrong"),
    ("(1,2)", "$(2,1)$", "math_wrong"),
    ("x<2", "$x>2$", "math_wrong"),
    ("5", "I do not know.", "math_unparsed"),
    ("1", "$2003^{2002^{2001}}$", "math_timeout"),
    ("3", r"\boxed{3}", None),
]


def test_final_answers_are_compared_as_mathematics_and_every_comparison_ends() -> None:
    rows: list[dict[str, object]] = [
        {"completion": said, "fields": json.dumps({"answer": reference})} for reference, said, _ in MATH
    ]

    with ThreadPoolExecutor(1) as pool:  # math-verify's own alarms work in the main thread only
        verdicts = pool.submit(
            judge, "math_answer", [*rows, {"completion": "No reference.", "fields": "{}"}], cpu_s=0.5
        ).result()

    assert verdicts.reason.to_list() == [*(reason for *_, reason in MATH), None]
    assert verdicts.score is not None
    assert verdicts.score.to_list() == [*(float(reason is None) for *_, reason in MATH), None]


def sampled(*answers: str, group: str | None = "row/answer") -> list[dict[str, object]]:
    return [{"completion": answer, "group": group} for answer in answers]


def test_the_answer_of_the_minority_is_inconsistent() -> None:
    said = sampled(r"So \boxed{1,000}.", "It is\n#### 1000", "Thus\n$1000$.", "#### 999")

    verdicts = judge("consistency", said)

    assert verdicts.reason.to_list() == [None, None, None, "inconsistent"]
    assert verdicts.score is not None
    assert verdicts.score.to_list() == [0.75, 0.75, 0.75, 0.25]


def test_a_question_all_samples_agree_on_can_be_too_easy() -> None:
    assert (
        judge("consistency", sampled("#### 4", "#### 4"), max_share=0.9).reason.to_list() == ["too_easy"] * 2
    )


def test_a_sample_without_another_one_has_no_share() -> None:
    verdicts = judge("consistency", [*sampled("a"), *sampled("b", "c", group=None)])

    assert verdicts.score is not None
    assert verdicts.score.to_list() == [None, None, None]


def test_a_later_step_cuts_by_the_score_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: c\nversion: 1\nsteps:\n  - length: {id: size, min_chars: 0}\n  - score: {of: size, keep: '> 3'}\n"
    )

    judged = run_chain(
        load_chain("c.yaml", tmp_path), pl.DataFrame({"id": ["1", "2"], "completion": ["abc", "abcd"]})
    )

    assert judged.select("reason", "score", "threshold").rows() == [
        ("score_below", 3.0, 3.0),
        (None, None, None),
    ]


def test_stored_scores_are_cut_again_and_the_rejected_rows_come_back(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: one\nversion: 1\nsteps:\n  - length: {max_chars: 60}\n")
    (tmp_path / "two.yaml").write_text(
        "name: two\nversion: 1\nsteps:\n  - score: {of: length, keep: '<= 80'}\n"
    )
    rows = [{"prompt": f"Question {n}?", "completion": f"{n}" * size} for n, size in enumerate((9, 70, 90))]
    path, out = save_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out"

    cli("filter", path, "-o", out, "--chain", tmp_path / "one.yaml")
    again = cli(
        "filter",
        out / "data",
        out / "rejected",
        "-o",
        tmp_path / "again",
        "--chain",
        tmp_path / "two.yaml",
        "--json",
    )

    assert len(records(out)) == 1
    assert again.json["counts"]["accepted"] == 2
    assert again.json["reasons"] == {"filter:score/score_below": 1}


def test_columns_of_a_data_set_are_fields_to_filters(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\nversion: 1\nsteps:\n  - grounded: {document: source_text}\n")
    rows = [
        {"prompt": f"When, {word}?", "completion": f"In {year}.", "source_text": "Founded in 1867."}
        for word, year in (("please", 1867), ("then", 1868))
    ]

    cli("filter", save_rows(tmp_path / "r.jsonl", rows), "-o", tmp_path / "o", "--chain", tmp_path / "c.yaml")

    rejected = records(tmp_path / "o", "rejected")
    assert [(row["reason"], row["score"], row["threshold"], row["detail"]) for row in rejected] == [
        ("ungrounded", 0.0, 0.8, "1868")
    ]


def chained(tmp_path: Path, steps: str) -> dict[str, str]:
    (tmp_path / "c.yaml").write_text(f"name: c\nversion: 1\nsteps:\n{steps}")
    return {"chain": "c.yaml"}


def test_the_reply_of_a_structured_step_is_held_to_its_schema(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    prompt = save_prompt(
        tmp_path / "p.yaml",
        "{{ instruction }}",
        reply={"json": schema},
        inputs=["instruction"],
        outputs=["city"],
    )

    def reply(body: Body) -> str:
        text = json.dumps({"city": "Bonn"})
        return f"I think: {text}" if "number 1?" in str(body["messages"]) else text

    with Loopback(reply=reply, ignores=["response_format"]) as server:
        steps = [{"name": "s", "prompt": str(prompt), "teacher": "qwen", "structured": True}]
        content = recipe(
            server,
            rows=2,
            steps=steps,
            output={"record": {"assistant": "{{ city }}"}},
            refine=chained(tmp_path, "  - json_schema\n") | {"dedup": {"near": None}},
        )
        cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "o")

    assert [row["reason"] for row in records(tmp_path / "o", "rejected")] == ["not_json"]


def test_samples_of_a_run_are_compared_and_show_says_so(tmp_path: Path) -> None:
    said = iter(["#### 1", "#### 2", "#### 2"])
    with Loopback(reply=lambda _body: next(said)) as server:
        steps = [{"name": "answer", "prompt": "answer", "teacher": "qwen", "samples": 3}]
        content = recipe(
            server,
            source={"inline": questions(1)},
            steps=steps,
            refine=chained(tmp_path, "  - consistency\n") | {"dedup": {"near": None}},
        )
        content["teachers"]["qwen"]["samples_per_request"] = 1
        content["teachers"]["qwen"]["limits"] = {"concurrency": 1}
        cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "o")

    odd = next(row for row in records(tmp_path / "o", "rejected") if row["reason"] == "inconsistent")
    assert (odd["score"], odd["threshold"]) == (pytest.approx(1 / 3), 0.5)
    told = cli("show", tmp_path / "o", "--row", odd["id"], "--json").json["verdicts"]
    assert any(line.startswith("filter:consistency: inconsistent, score 0.33") for line in told)


def test_the_manifest_names_each_step_with_its_version_and_parameters(tmp_path: Path) -> None:
    with Loopback() as server:
        content = recipe(server, rows=1, refine=chained(tmp_path, "  - length: {min_chars: 3, id: size}\n"))
        cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "o")

    step = json.loads((tmp_path / "o" / "manifest.json").read_text())["chain"]["steps"][0]
    assert (step["id"], step["filter"], step["version"], step["params"]["min_chars"]) == (
        "size",
        "length",
        1,
        3,
    )
