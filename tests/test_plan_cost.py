"""What `plan` says a run will cost, against what a server charges that counts tokens as current tokenizers do."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import synthgen
from tests.judges import classroom, judged
from tests.loopback import Body, Loopback
from tests.runs import Recipe, teacher

PRICE = {"input": 20, "output": 60}
# Word pieces, digits, signs, lines: within 10 % of SmolLM2's tokenizer on the bundled prompts and their example replies.
TOKEN = re.compile(r"[^\W\d_]{1,8}|\d|[^\w\s]|_|\n+")
RUBRIC = "rubric_answer"
VARY = {"name": "vary", "prompt": "evolve_instruction", "teacher": "qwen"}
ANSWER = {"name": "answer", "prompt": "answer", "teacher": "qwen"}
SHAPES: dict[str, Recipe] = {
    "no judge": {},
    "one score": {"judge": {"teacher": "one"}},
    "a rubric": {"judge": {"teacher": "one", "prompt": RUBRIC}},
    "an ensemble of four": {"judge": {"teacher": ["one", "two"], "prompt": [RUBRIC, "judge_helpfulness"]}},
    "best of three": {"samples": 3, "refine": {"best_of": {"teacher": "one"}}},
    "a rubric, then the best of four by two": {
        "samples": 4,
        "judge": {"teacher": "one", "prompt": RUBRIC},
        "refine": {"best_of": {"teacher": ["two", "three"], "keep": 2}},
    },
    "a second step and a rubric": {"judge": {"teacher": "one", "prompt": RUBRIC}, "steps": [VARY, ANSWER]},
}


def count_tokens(text: str) -> int:
    return len(TOKEN.findall(text))


def charge(body: Body, answer: Body) -> Body:
    """The answer with a bill for what was read and written."""
    messages: Any = body["messages"]
    choices: Any = answer["choices"]
    usage = {
        "prompt_tokens": sum(4 + count_tokens(str(message["content"])) for message in messages),
        "completion_tokens": sum(count_tokens(choice["message"]["content"]) for choice in choices),
    }
    return {**answer, "usage": {**usage, "total_tokens": sum(usage.values())}}


def priced(server: Loopback, shape: Recipe) -> Recipe:
    """A recipe in which every word costs."""
    content = judged(server, **shape)
    prices = {alias: {**given, "price": PRICE} for alias, given in content["teachers"].items()}
    return {**content, "teachers": prices}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_run_costs_what_its_plan_says_line_by_line(shape: Recipe, tmp_path: Path) -> None:
    with Loopback(reply=classroom(), edit=charge) as server:
        content = priced(server, shape)

        plan = synthgen.plan(content)
        report = synthgen.generate(content, tmp_path / "run")

    planned: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for line in plan.lines:
        assert line.usd_low is not None
        assert line.usd_high is not None
        ends = planned[line.step, line.teacher]
        ends[0] += line.usd_low
        ends[1] += line.usd_high
    usage: Any = report.usage
    paid = {(row["step"], row["teacher"]): row["cost_usd"] for row in usage["by_step_and_teacher"]}
    assert paid.keys() == planned.keys()
    assert not {key: (ends, paid[key]) for key, ends in planned.items() if not ends[0] < paid[key] < ends[1]}


@pytest.mark.parametrize("shape", list(SHAPES.values())[1:], ids=list(SHAPES)[1:])
def test_what_judges_read_is_foreseen_within_a_third(shape: Recipe, tmp_path: Path) -> None:
    with Loopback(reply=classroom(), edit=charge) as server:
        content = priced(server, shape)
        content["teachers"]["qwen"]["sampling"] = {
            "max_tokens": 100
        }  # answers of 20 words use the usual 0.4 of it

        plan = synthgen.plan(content)
        report = synthgen.generate(content, tmp_path / "run")

    usage: Any = report.usage
    steps = {line.step for line in plan.lines} & {"judge", "best_of"}
    assert steps
    for step in steps:
        planned = sum(line.input_tokens for line in plan.lines if line.step == step)
        requests = sum(line.requests for line in plan.lines if line.step == step)
        rows = [row for row in usage["by_step_and_teacher"] if row["step"] == step]
        each = sum(row["input_tokens"] for row in rows) / sum(row["requests"] for row in rows)
        assert planned / requests == pytest.approx(each, rel=0.33)


def test_the_least_a_run_may_cost_leaves_the_judges_nothing_to_do(tmp_path: Path) -> None:
    rejecting = tmp_path / "nothing.yaml"
    rejecting.write_text(
        "name: nothing\nversion: 1\ndescription: None.\nsteps:\n- length: {min_chars: 100000}\n",
        encoding="utf-8",
    )
    with Loopback(reply=classroom(), edit=charge) as server:
        content = priced(server, {"judge": {"teacher": "one", "prompt": RUBRIC}})
        content["refine"]["chain"] = str(rejecting)

        low, _, _ = synthgen.plan(content).usd() or (None, None, None)
        report = synthgen.generate(content, tmp_path / "run")

    usage: Any = report.usage
    assert low is not None
    assert [row["step"] for row in usage["by_step_and_teacher"]] == ["answer"]
    assert low < usage["spent_usd"]


def test_an_answer_of_several_kinds_of_fields_does_not_stop_the_plan() -> None:
    with Loopback() as server:
        content = judged(server, judge={"teacher": "one", "prompt": RUBRIC})
        content["output"] = {
            "record": {"user": "{{ instruction.text.upper() }}", "assistant": "{{ response }}"}
        }
        content["source"] = {"inline": [{"instruction": "Why?"}]}
        content["teachers"]["one"] = teacher(server, price=PRICE)

        lines = {line.step: line for line in synthgen.plan(content).lines}

    assert lines["judge"].input_tokens > 300
