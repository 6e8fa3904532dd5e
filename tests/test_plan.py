"""`plan`: what a run would ask and cost, without asking anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import synthgen
from synthgen.errors import RecipeError
from tests.loopback import Loopback
from tests.runs import bill_usd, cli, graded, questions, recipe, save, save_rows, teacher

PRICE = {"input": 20, "output": 60}


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


def test_a_plan_sends_and_writes_nothing(server: Loopback, tmp_path: Path) -> None:
    result = cli("plan", save(tmp_path / "r.yaml", recipe(server)), "--json")

    assert (result.code, server.requests) == (0, [])
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_a_plan_counts_rows_samples_steps_teachers_and_judgements(server: Loopback, tmp_path: Path) -> None:
    teachers = {"one": teacher(server), "two": teacher(server, model="qwen3-two")}
    content = recipe(
        server,
        rows=8,
        teachers=teachers,
        steps=[
            {"name": "vary", "prompt": "evolve_instruction", "teacher": "one", "samples": 2},
            {"name": "answer", "prompt": "answer", "teacher": {"one": 1, "two": 3}},
        ],
        refine={"judge": {"teacher": "two"}},
    )

    plan = cli("plan", save(tmp_path / "r.yaml", content), "--json").json

    found = [(line["step"], line["teacher"], line["requests"]) for line in plan["lines"]]
    assert found == [("vary", "one", 16), ("answer", "one", 4), ("answer", "two", 12), ("judge", "two", 16)]
    assert (plan["rows"], plan["requests"]) == (8, 48)


def test_what_a_run_costs_lies_in_the_planned_interval(server: Loopback, tmp_path: Path) -> None:
    content = recipe(
        server, 20, teachers={"qwen": teacher(server, price=PRICE)}, refine={"judge": {"teacher": "qwen"}}
    )

    plan = synthgen.plan(content)
    synthgen.generate(content, tmp_path / "run")

    usd = plan.usd()
    assert usd is not None
    assert usd[0] < bill_usd(server, **PRICE) < usd[2]


def test_malformed_rows_are_counted_apart(server: Loopback, tmp_path: Path) -> None:
    rows = save_rows(tmp_path / "rows.jsonl", questions(2))
    rows.write_text(rows.read_text() + "{broken\n")
    content = recipe(server, source={"jsonl": "rows.jsonl", "license": "own"})

    plan = cli("plan", save(tmp_path / "r.yaml", content), "--json").json

    assert (plan["rows"], plan["bad_rows"], plan["requests"]) == (3, 1, 2)


def test_an_unknown_price_is_said_and_not_taken_for_nothing(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server, teachers={"qwen": teacher(server, price=None)}))

    assert cli("plan", path, "--json").json["usd"] is None
    assert "cost: unknown" in cli("plan", path).out


def test_a_plan_for_people_tells_cost_cap_and_policy(server: Loopback, tmp_path: Path) -> None:
    content = recipe(server, teachers={"qwen": teacher(server, price=PRICE)}, budget_usd=3)

    out = cli("plan", save(tmp_path / "r.yaml", content)).out

    for expected in ("5 rows", "USD", "cap: 3 USD", "qwen (teacher) on self-hosted: allow", "policy: allow"):
        assert expected in out


def test_a_plan_shows_the_prompts_it_would_send(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server, rows=9))

    shown = cli("plan", path, "--show", 2, "--json").json["questions"]
    text = cli("plan", path, "--show", 2).out

    assert [(question["row"], question["teacher"]) for question in shown] == [(1, "qwen"), (2, "qwen")]
    assert "subject number 1?" in shown[1]["messages"][-1]["content"]
    assert "row 2, step answer, sample 0, to teacher qwen:" in text
    assert "subject number 1?" in text
    assert "subject number 2?" not in text
    assert server.requests == []


def test_a_row_that_would_not_be_asked_is_shown_with_its_reason(server: Loopback, tmp_path: Path) -> None:
    rows = [{"instruction": "Why?"}, {"other": "no instruction"}]
    path = save(tmp_path / "r.yaml", recipe(server, source={"inline": rows}))

    out = cli("plan", path, "--show", 5).out

    assert "row 2, step answer, sample 0: rejected, render/missing_field" in out


def test_the_prompts_shown_are_the_prompts_sent(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server, rows=3))
    shown = cli("plan", path, "--show", 9, "--json").json["questions"]

    cli("generate", path, "-o", tmp_path / "run")

    sent = [seen.body["messages"] for seen in server.requests]
    assert sorted(map(str, sent)) == sorted(str(question["messages"]) for question in shown)


@pytest.mark.parametrize("verb", ["plan", "generate"])
def test_a_route_that_is_nearly_known_is_named(verb: str, server: Loopback, tmp_path: Path) -> None:
    content = recipe(server, teachers={"qwen": teacher(server, route="selfhosted")})

    result = cli(verb, save(tmp_path / "r.yaml", content))

    assert result.code == 4
    assert "teachers.qwen.route: unknown route 'selfhosted'; did you mean 'self-hosted'?" in result.err


def test_a_denied_plan_is_printed_and_exits_4_with_one_line(server: Loopback, tmp_path: Path) -> None:
    content = recipe(server, teachers={"qwen": teacher(server, hf=None, model="gpt-4o")})

    result = cli("plan", save(tmp_path / "r.yaml", content))

    assert result.code == 4
    assert "deny by default.model-not-on-route" in result.out
    assert len(result.err.splitlines()) == 1


def test_the_plan_of_a_run_is_stored_with_it(server: Loopback, tmp_path: Path) -> None:
    content = recipe(server)

    synthgen.generate(content, tmp_path / "run")

    assert f'"requests": {synthgen.plan(content).requests}' in (tmp_path / "run" / "plan.json").read_text()


def test_a_template_whose_field_no_row_has_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    with Loopback() as server:
        broken = recipe(server, output={"record": {"user": "{{ question }}"}})
        path = save(tmp_path / "recipe.yaml", broken)

        with pytest.raises(
            RecipeError, match=r"recipe.yaml:\d+: output.record.user: no row has the field 'question'"
        ):
            synthgen.generate(path, tmp_path / "run")

    assert not server.requests


def test_a_field_that_one_row_lacks_is_no_error_of_the_recipe(tmp_path: Path) -> None:
    with Loopback() as server:
        rows = [{"instruction": "Why is the sky blue?"}, {"other": "?"}]
        path = save(tmp_path / "recipe.yaml", recipe(server, source={"inline": rows}))

        assert synthgen.plan(path).rows == 2


def test_samples_that_go_together_read_their_prompt_once(server: Loopback, tmp_path: Path) -> None:
    def input_tokens(**changes: object) -> int:
        steps = [{"name": "answer", "prompt": "answer", "teacher": "qwen", "samples": 4}]
        content = recipe(server, steps=steps, teachers={"qwen": teacher(server, **changes)})
        planned = cli("plan", save(tmp_path / "r.yaml", content), "--json").json
        assert planned["requests"] == 4 * 5
        return int(planned["lines"][0]["input_tokens"])

    assert input_tokens(samples_per_request=1) == pytest.approx(4 * input_tokens(), abs=4)


def test_a_timeout_too_short_for_max_tokens_is_named(server: Loopback, tmp_path: Path) -> None:
    long = {"max_tokens": 32_000}
    teachers = {
        "short": teacher(server, timeout_s=900, sampling=long),
        "long": teacher(server, timeout_s=3200, sampling=long),
        "unset": teacher(server, sampling=long),
    }
    step = {"name": "answer", "prompt": "answer", "teacher": {"short": 1, "long": 1, "unset": 1}}

    result = cli("plan", save(tmp_path / "r.yaml", recipe(server, teachers=teachers, steps=[step])))

    said = " ".join(result.out.split())
    assert "teacher short: an answer of max_tokens (32000) keeps timeout_s (900) only at 36 tokens/s" in said
    assert said.count("keeps timeout_s") == 1
