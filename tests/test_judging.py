"""Rubrics, panels and contests in whole runs: what is asked, what is kept, what is stored, and never bought twice."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import synthgen
from synthgen.errors import SynthgenError
from tests.judges import classroom, judged, text_of, worth
from tests.loopback import Act, Body, Loopback, refuse
from tests.runs import cli, published_bytes, records, save


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=classroom()) as server:
        yield server


def answer_of(record: dict[str, Any]) -> str:
    return str(record["messages"][-1]["content"])


def scores_of(record: dict[str, Any]) -> dict[str, float]:
    return {score["name"]: score["score"] for score in record["scores"]}


def asked(server: Loopback) -> Counter[str]:
    return Counter(str(seen.body["model"]) for seen in server.requests)


# --- rubrics


def test_a_rubric_is_stored_by_criterion_and_its_weighted_mean_decides(tmp_path: Path) -> None:
    with Loopback(reply=classroom(clarity=lambda _: 1)) as server:
        content = judged(server, {"teacher": "one", "prompt": "rubric_answer", "keep": ">= 3"})
        synthgen.generate(content, tmp_path / "run")

    everything = [*records(tmp_path / "run"), *records(tmp_path / "run", "rejected")]
    assert len(everything) == 12
    for record in everything:
        mean = (worth(answer_of(record)) * 7 + 1) / 8
        scores = scores_of(record)
        assert scores["judge"] == pytest.approx(mean)
        assert (scores["judge:correctness"], scores["judge:clarity"]) == (worth(answer_of(record)), 1.0)
        assert ("stage" in record) == (mean < 3)


def test_weights_of_the_recipe_replace_those_of_the_rubric(tmp_path: Path) -> None:
    weights = {"correctness": 1, "completeness": 1, "compliance": 1, "clarity": 5}
    with Loopback(reply=classroom(clarity=lambda _: 1)) as server:
        judge = {"teacher": "one", "prompt": "rubric_answer", "keep": ">= 1", "weights": weights}
        synthgen.generate(judged(server, judge), tmp_path / "run")

    for record in records(tmp_path / "run"):
        assert scores_of(record)["judge"] == pytest.approx((3 * worth(answer_of(record)) + 5) / 8)


def test_a_rule_for_one_criterion_rejects_with_its_name(tmp_path: Path) -> None:
    keep = {"overall": ">= 1", "clarity": ">= 2"}
    with Loopback(reply=classroom(clarity=lambda _: 1)) as server:
        synthgen.generate(
            judged(server, {"teacher": "one", "prompt": "rubric_answer", "keep": keep}), tmp_path / "run"
        )

    rejected = records(tmp_path / "run", "rejected")
    assert {(r["reason"], r["score"], r["threshold"], r["detail"]) for r in rejected} == {
        ("judge_below", 1.0, 2.0, "clarity breaks >= 2")
    }


def test_half_a_rubric_is_unjudged_and_never_a_score(tmp_path: Path) -> None:
    with Loopback(reply=classroom(clarity=lambda _: None)) as server:
        synthgen.generate(
            judged(server, {"teacher": "one", "prompt": "rubric_answer", "keep": "<= 5"}), tmp_path / "run"
        )

    rejected = records(tmp_path / "run", "rejected")
    assert {(r["reason"], r["detail"], len(r["scores"])) for r in rejected} == {
        ("unjudged", "one: unparsable", 0)
    }


def test_a_judge_nobody_can_read_is_named_with_an_example_and_what_to_do(tmp_path: Path) -> None:
    with Loopback(reply=classroom(score=lambda answer: "fine" if worth(answer) < 5 else 5)) as server:
        report = synthgen.generate(judged(server, {"teacher": "one"}), tmp_path / "run")

    lost = [record["id"] for record in records(tmp_path / "run", "rejected")]
    said = f"judge one: {len(lost)} of 12 replies could not be read; see one with `synthgen show {tmp_path / 'run'} --row "
    assert len(lost) >= 5
    assert [warning[: len(said)] for warning in report.warnings] == [said]
    assert any(record in report.warnings[0] for record in lost)


def test_a_verdict_that_was_cut_off_is_told_from_one_that_is_none(tmp_path: Path) -> None:
    def cut_off(body: Body, answer: Body) -> Body:
        choices: Any = answer["choices"]
        return {**answer, "choices": [{**choice, "finish_reason": "length"} for choice in choices]}

    with Loopback(
        reply=classroom(score=lambda _: "fine"),
        edit=lambda body, answer: cut_off(body, answer) if body["model"] == "judge-one" else answer,
    ) as server:
        report = synthgen.generate(judged(server, {"teacher": "one"}), tmp_path / "run")

    assert {record["detail"] for record in records(tmp_path / "run", "rejected")} == {"one: truncated"}
    assert "12 of 12 replies could not be read (12 ended at `max_tokens`)" in report.warnings[0]


def test_judgements_are_published_with_reasons(server: Loopback, tmp_path: Path) -> None:
    judge = {"teacher": "one", "prompt": "rubric_answer", "keep": ">= 3"}
    synthgen.generate(judged(server, judge), tmp_path / "run")

    rows = records(tmp_path / "run", "judgements")
    assert len(rows) == 12
    assert {(row["judge"], row["prompt"], row["reason"]) for row in rows} == {
        ("one", "rubric_answer", "So it is.")
    }
    assert all(len(row["scores"]) == 4 for row in rows)


def test_a_judge_that_only_selects_publishes_no_judgement(server: Loopback, tmp_path: Path) -> None:
    judge = {"teacher": "one", "prompt": "rubric_answer", "keep": {"clarity": ">= 3"}, "ship_score": False}
    synthgen.generate(judged(server, judge), tmp_path / "run")

    everything = [*records(tmp_path / "run"), *records(tmp_path / "run", "rejected")]
    assert {(len(r["scores"]), r.get("score"), r.get("detail")) for r in everything} == {(0, None, None)}
    assert not (tmp_path / "run" / "judgements").exists()


def test_captured_score_tokens_give_expected_values(tmp_path: Path) -> None:
    with Loopback(reply=classroom()) as server:
        content = judged(server, {"teacher": "one", "keep": ">= 1", "capture": {"logprobs": 3}}, rows=3)
        synthgen.generate(content, tmp_path / "run")

    bodies = [seen.body for seen in server.requests if seen.body["model"] == "judge-one"]
    assert {(body["top_logprobs"], "return_tokens_as_token_ids" in body) for body in bodies} == {(3, False)}
    scores = [score for row in records(tmp_path / "run", "judgements") for score in row["scores"]]
    assert len(scores) == 3
    assert all(score["written"] in (1, 2, 3, 4, 5) for score in scores)


# --- panels


def test_judges_are_combined_and_their_disagreement_is_stored(tmp_path: Path) -> None:
    def reply(body: Any) -> str:
        if body["model"] == "judge-two":
            return classroom(score=lambda answer: 5)(body)
        return classroom()(body)

    with Loopback(reply=reply) as server:
        synthgen.generate(judged(server, {"teacher": ["one", "two"], "keep": ">= 1"}), tmp_path / "run")

    for record in records(tmp_path / "run"):
        own = worth(answer_of(record))
        assert scores_of(record) == {
            "judge": (own + 5) / 2,
            "judge@one": own,
            "judge@two": 5.0,
            "judge:spread": 5 - own,
        }


@pytest.mark.parametrize(("combine", "kept"), [("mean", False), ("median", True), ("majority", True)])
def test_ways_to_combine_three_judges(combine: str, kept: bool, tmp_path: Path) -> None:
    given = {"judge-one": 4, "judge-two": 4, "judge-three": 1}

    def reply(body: Any) -> str:
        return classroom(score=lambda _: given.get(str(body["model"]), 1))(body)

    with Loopback(reply=reply) as server:
        judge = {"teacher": ["one", "two", "three"], "combine": combine, "keep": ">= 4"}
        report = synthgen.generate(judged(server, judge, rows=2), tmp_path / "run")

    assert report.counts["accepted"] == (2 if kept else 0)


@pytest.mark.parametrize(("least", "outcome"), [(None, "accepted"), (2, "accepted"), (3, "rejected")])
def test_fewer_scores_than_min_judges_are_no_judgement(
    least: int | None, outcome: str, tmp_path: Path
) -> None:
    def reply(body: Any) -> str:
        return "no idea" if body["model"] == "judge-three" else classroom(score=lambda _: 5)(body)

    judge: dict[str, Any] = {"teacher": ["one", "two", "three"], "keep": ">= 4"}
    judge |= {"min_judges": least} if least else {}
    with Loopback(reply=reply) as server:
        report = synthgen.generate(judged(server, judge, rows=2), tmp_path / "run")

    assert report.counts[outcome] == 2
    if outcome == "rejected":
        said = {(r["reason"], r["detail"]) for r in records(tmp_path / "run", "rejected")}
        assert said == {
            ("unjudged", "2 of 3 judges gave a score, 3 are needed (three: unparsable)"),
        }


def test_every_teacher_is_asked_with_every_prompt(server: Loopback, tmp_path: Path) -> None:
    judge = {"teacher": ["one", "two"], "prompt": ["judge_helpfulness", "rubric_answer"], "keep": ">= 1"}
    synthgen.generate(judged(server, judge, rows=2), tmp_path / "run")

    assert asked(server) == {"qwen3": 2, "judge-one": 4, "judge-two": 4}
    assert {row["judge"] for row in records(tmp_path / "run", "judgements")} == {
        f"{alias}/{prompt}" for alias in ("one", "two") for prompt in ("judge_helpfulness", "rubric_answer")
    }


# --- the one paid path


def test_a_panel_and_a_contest_are_planned_priced_and_gated(server: Loopback, tmp_path: Path) -> None:
    content = judged(server, {"teacher": ["one", "two"]}, rows=4, samples=3)
    content["refine"]["best_of"] = {"teacher": "three"}

    plan = synthgen.plan(content)

    assert [(line.step, line.teacher, line.requests) for line in plan.lines] == [
        ("answer", "qwen", 12),
        ("judge", "one", 12),
        ("judge", "two", 12),
        ("best_of", "three", 24),
    ]
    parts: Any = plan.policy
    roles = {(part["teacher"], part["role"]) for part in parts["parts"]}
    assert roles == {
        ("qwen", "teacher"),
        ("one", "judge-shipped"),
        ("two", "judge-shipped"),
        ("three", "judge-shipped"),
    }
    assert server.requests == []


def test_a_judge_teacher_that_policy_refuses_stops_the_run_before_it_sends(
    server: Loopback, tmp_path: Path
) -> None:
    content = judged(server, {"teacher": ["one", "two"]})
    content["teachers"]["two"] |= {"hf": "nobody/unknown-model", "model": "unknown-model"}

    with pytest.raises(SynthgenError) as refused:
        synthgen.generate(content, tmp_path / "run")

    assert refused.value.exit_code == 4
    assert server.requests == []


def test_no_judgement_is_bought_twice(server: Loopback, tmp_path: Path) -> None:
    content = judged(server, {"teacher": ["one", "two"], "keep": ">= 2"}, samples=3, rows=4)
    content["refine"]["best_of"] = {"teacher": "three"}
    synthgen.generate(content, tmp_path / "run")
    bought = len(server.requests)

    again = synthgen.generate(content, tmp_path / "run")
    content["refine"]["judge"]["keep"] = ">= 1"
    content["refine"]["judge"]["combine"] = "median"
    content["refine"]["best_of"]["keep"] = 2
    looser = synthgen.generate(content, tmp_path / "run")

    assert again.sent == 0
    assert server.paid_twice == 0
    # A looser rule lets more samples into the contest: only their comparisons are new.
    assert {seen.body["model"] for seen in server.requests[bought:]} <= {"judge-three"}
    assert looser.problem is None


def test_refiltering_by_a_criterion_buys_nothing_and_equals_a_run_with_that_rule(
    server: Loopback, tmp_path: Path
) -> None:
    content = judged(server, {"teacher": "one", "prompt": "rubric_answer", "keep": ">= 1"})
    synthgen.generate(content, tmp_path / "run")
    bought = len(server.requests)

    cut = cli("filter", tmp_path / "run", "-o", tmp_path / "cut", "--keep", ">= 4", "--json")
    content["refine"]["judge"]["keep"] = ">= 4"
    synthgen.generate(content, tmp_path / "run")

    assert cut.code == 0
    assert len(server.requests) == bought
    assert published_bytes(tmp_path / "cut") == published_bytes(tmp_path / "run")


def test_the_wave_size_changes_no_byte(server: Loopback, tmp_path: Path) -> None:
    content = judged(server, {"teacher": ["one", "two"], "keep": ">= 2"}, samples=3, rows=7, target=4)
    content["refine"]["best_of"] = {"teacher": "three"}

    synthgen.generate({**content, "wave": 1}, tmp_path / "small")
    synthgen.generate({**content, "wave": 100}, tmp_path / "large")

    assert published_bytes(tmp_path / "small") == published_bytes(tmp_path / "large")


# --- best of n


def contest(server: Loopback, **best_of: Any) -> Any:
    return judged(server, rows=6, samples=3, refine={"best_of": {"teacher": "three", **best_of}})


def by_row(run: Path) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for record in [*records(run), *records(run, "rejected")]:
        rows.setdefault(record["row"], []).append(record)
    return rows


def test_the_best_of_the_samples_is_kept(server: Loopback, tmp_path: Path) -> None:
    report = synthgen.generate(contest(server), tmp_path / "run")

    assert report.counts["accepted"] == 6
    assert report.reasons == {"best_of/not_best": 12}
    for samples in by_row(tmp_path / "run").values():
        (kept,) = (record for record in samples if record.get("stage") is None)
        assert worth(answer_of(kept)) == max(worth(answer_of(record)) for record in samples)
        assert {r["detail"] for r in samples if r is not kept} == {kept["id"]}


def test_every_two_samples_are_shown_in_both_orders(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(contest(server), tmp_path / "run")

    shown = [text_of(seen.body) for seen in server.requests if seen.body["model"] == "judge-three"]
    assert len(shown) == len(set(shown)) == 6 * 3 * 2


def test_a_judge_that_follows_the_order_makes_ties_and_the_first_sample_stays(tmp_path: Path) -> None:
    with Loopback(reply=classroom(prefer=lambda first, second: "A")) as server:
        synthgen.generate(contest(server), tmp_path / "run")

    assert {record["sample"] for record in records(tmp_path / "run")} == {0}
    assert {scores_of(record)["best_of"] for record in records(tmp_path / "run")} == {0.5}


def test_comparisons_that_cannot_be_read_reject_as_unjudged(tmp_path: Path) -> None:
    with Loopback(reply=classroom(prefer=lambda first, second: "both")) as server:
        report = synthgen.generate(contest(server), tmp_path / "run")

    assert report.reasons == {"best_of/unjudged": 18}
    rows = records(tmp_path / "run", "judgements")
    assert {(row["preferred"], row["problem"]) for row in rows} == {(None, "unparsable")}


def test_without_a_comparing_teacher_the_judge_s_score_decides(server: Loopback, tmp_path: Path) -> None:
    content = judged(
        server, {"teacher": "one", "keep": ">= 1"}, rows=6, samples=3, refine={"best_of": {"keep": 2}}
    )
    report = synthgen.generate(content, tmp_path / "run")

    assert report.counts["accepted"] == 12
    for samples in by_row(tmp_path / "run").values():
        kept = [worth(answer_of(r)) for r in samples if r.get("stage") is None]
        dropped = [worth(answer_of(r)) for r in samples if r.get("stage") is not None]
        assert min(kept) >= max(dropped)


def test_a_judge_that_cannot_be_asked_leaves_its_questions_pending(server: Loopback, tmp_path: Path) -> None:
    def no_comparisons(_number: int, body: Any) -> Act | None:
        return refuse(401) if body["model"] == "judge-three" else None

    with Loopback(reply=classroom(), script=no_comparisons) as without:
        short = synthgen.generate(contest(without), tmp_path / "run")
    whole = synthgen.generate(contest(server), tmp_path / "run")

    assert (short.exit_code, short.counts["pending"]) == (3, 18)
    assert (whole.counts["pending"], whole.counts["accepted"]) == (0, 6)
    assert asked(server) == {"judge-three": 36}


# --- recipes that do not fit


@pytest.mark.parametrize(
    ("refine", "expected"),
    [
        (
            {"judge": {"teacher": "one", "keep": {"clarity": ">= 3"}}},
            "refine.judge.keep: no criterion 'clarity' in judge_helpfulness",
        ),
        (
            {"judge": {"teacher": "one", "prompt": "rubric_answer", "keep": {"clarty": ">= 3"}}},
            "did you mean 'clarity'",
        ),
        (
            {"judge": {"teacher": "one", "weights": {"style": 2}}},
            "refine.judge.weights: no criterion 'style'",
        ),
        ({"judge": {"teacher": "one", "prompt": "compare_answers"}}, "belongs to `refine.best_of`"),
        ({"judge": {"teacher": ["one", "nobody"]}}, "no teacher 'nobody'"),
        (
            {"judge": {"teacher": "one", "min_judges": 2}},
            "refine.judge.min_judges: 2 is more than the 1 judges",
        ),
        ({"best_of": {"teacher": "one", "keep": 3}}, "write `samples: 4` or more"),
        ({"best_of": {}}, "refine.best_of: by what?"),
        (
            {"best_of": {"teacher": "one", "prompt": "judge_helpfulness"}},
            "refine.best_of.prompt: a comparing prompt",
        ),
        (
            {"judge": {"teacher": "one", "keep": {"overall": "good"}}},
            "write a comparison and a number, like '>= 4'",
        ),
    ],
)
def test_a_judge_that_does_not_fit_is_refused_at_its_line(
    refine: dict[str, Any], expected: str, server: Loopback, tmp_path: Path
) -> None:
    path = save(tmp_path / "r.yaml", {**judged(server, samples=3), "refine": refine})

    result = cli("plan", path)

    assert result.code == 2
    assert expected in result.err
    assert f"{path}:" in result.err


def test_the_manifest_and_the_card_name_every_judge(server: Loopback, tmp_path: Path) -> None:
    content = judged(server, {"teacher": ["one", "two"], "keep": ">= 1"}, samples=2, rows=2)
    content["refine"]["best_of"] = {"teacher": "three"}
    synthgen.generate(content, tmp_path / "run")

    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert [judge["name"] for judge in manifest["judge"]["judges"]] == ["one", "two"]
    assert manifest["judge"]["calibration"] is None
    assert manifest["best_of"]["judges"][0]["prompt"]["name"] == "compare_answers"
    card = (tmp_path / "run" / "README.md").read_text()
    assert "compare_answers" in card
    assert card.count("judge_helpfulness") == 2


def test_the_story_of_a_record_shows_what_its_judges_said(server: Loopback, tmp_path: Path) -> None:
    content = judged(server, {"teacher": ["one", "two"], "keep": ">= 1"}, samples=2, rows=2)
    content["refine"]["best_of"] = {"teacher": "three"}
    synthgen.generate(content, tmp_path / "run")
    kept = records(tmp_path / "run")[0]

    told = cli("show", tmp_path / "run", "--row", kept["id"], "--json").json

    assert [step["step"] for step in told["steps"]] == ["answer", "judge", "judge", "best_of"]
