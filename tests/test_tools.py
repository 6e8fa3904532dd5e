"""Tools: offered to the teacher in its dialect, and their calls in the records."""

import json
from pathlib import Path
from typing import Any

import pytest

from synthgen.asking.wire.anthropic_messages import AnthropicMessagesWire
from synthgen.asking.wire.openai_chat import OpenAIChatWire
from synthgen.pipeline.tools import broken_call
from synthgen.types import Message, Request, Sampling, TeacherIdentity, ToolCall
from tests.loopback import Loopback
from tests.runs import cli, graded, recipe, records, save, save_prompt

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": PARAMETERS}}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def offering(
    server: Loopback, tools: object, choice: str | None = "required", **changes: object
) -> dict[str, Any]:
    step: dict[str, object] = {"name": "answer", "prompt": "answer", "teacher": "qwen", "tools": tools}
    if choice is not None:
        step["tool_choice"] = choice
    return recipe(server, 2, **{"steps": [step], **changes})


def test_calls_and_tools_reach_the_records(tmp_path: Path) -> None:
    with Loopback() as server:
        result = cli(
            "generate", save(tmp_path / "r.yaml", offering(server, [WEATHER, CLOCK])), "-o", tmp_path / "o"
        )

    assert result.code == 0, result.err
    record = records(tmp_path / "o")[0]
    (call,) = record["messages"][-1]["tool_calls"]
    assert (record["messages"][-1]["content"], record["finish_reason"]) == ("", "tool_calls")
    assert (call["id"], call["name"]) == ("call-1", "weather")
    assert list(json.loads(call["arguments"])) == ["city"]
    assert json.loads(record["tools"]) == [WEATHER, CLOCK]


def test_an_answer_in_words_is_a_record_without_calls(tmp_path: Path) -> None:
    with Loopback() as server:
        cli("generate", save(tmp_path / "r.yaml", offering(server, [WEATHER], "auto")), "-o", tmp_path / "o")

    record = records(tmp_path / "o")[0]
    assert record["messages"][-1]["tool_calls"] is None
    assert record["messages"][-1]["content"]


def test_a_file_of_tools_lies_beside_the_recipe_and_goes_with_the_run(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps([WEATHER], indent="\t"))
    with Loopback() as server:
        result = cli(
            "generate", save(tmp_path / "r.yaml", offering(server, "tools.json")), "-o", tmp_path / "o"
        )
    (tmp_path / "tools.json").unlink()

    again = cli("filter", tmp_path / "o", "-o", tmp_path / "again")

    assert (result.code, again.code) == (0, 0), result.err + again.err
    assert records(tmp_path / "again") == records(tmp_path / "o")


@pytest.mark.parametrize(
    ("choice", "openai", "anthropic"),
    [
        ("auto", "auto", {"type": "auto"}),
        ("none", "none", {"type": "none"}),
        ("required", "required", {"type": "any"}),
        ("clock", {"type": "function", "function": {"name": "clock"}}, {"type": "tool", "name": "clock"}),
    ],
)
def test_a_choice_is_sent_in_each_dialect(choice: str, openai: object, anthropic: object) -> None:
    identity = TeacherIdentity("openai", "r", "p", "m")
    request = Request(
        (Message("user", "hi"),), identity, Sampling(), tools=json.dumps([CLOCK]), tool_choice=choice
    )

    assert OpenAIChatWire().body(request)["tool_choice"] == openai
    assert AnthropicMessagesWire().body(request)["tool_choice"] == anthropic


def test_judges_and_filters_read_the_calls(tmp_path: Path) -> None:
    assert Message("assistant", "Wait.", tool_calls=(ToolCall("1", "f", "{}"),)).said == (
        'Wait.\n{"arguments":"{}","name":"f"}'
    )
    judge = {"teacher": "qwen", "prompt": "judge_helpfulness", "keep": ">= 1"}
    refine = {"chain": "none", "judge": judge}
    with Loopback(reply=graded) as server:
        content = offering(server, [WEATHER], refine=refine)
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "o")

    assert result.code == 0, result.err
    assert len(records(tmp_path / "o")) == 2
    assert any('\\"name\\":\\"weather\\"' in json.dumps(seen.body) for seen in server.requests[2:])


def test_a_prompt_that_wants_json_takes_no_calls_for_an_answer(tmp_path: Path) -> None:
    prompt = save_prompt(
        tmp_path / "p.yaml",
        "{{ instruction }}",
        reply={"json": PARAMETERS},
        inputs=["instruction"],
        outputs=["city"],
    )
    output = {"record": {"assistant": "{{ city }}"}}
    with Loopback() as server:
        content = offering(server, [WEATHER], output=output)
        content["steps"][0]["prompt"] = str(prompt)
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "o", "--json")

    assert result.json["reasons"] == {"parse/empty": 2}


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("weather", '{"city": "Bonn"}', None),
        ("clock", "{}", None),
        ("rain", "{}", "no tool 'rain'"),
        ("weather", '{"city": 3}', "weather: city breaks `type`"),
        ("weather", '{"city": ', "weather: the arguments are no JSON"),
        ("clock", '"now"', "clock: the arguments are no object"),
    ],
)
def test_a_call_has_to_fit_its_tool(name: str, arguments: str, problem: str | None) -> None:
    call = ToolCall("1", name, arguments)

    assert broken_call(json.dumps([WEATHER, CLOCK]), [call]) == problem


def test_a_call_that_does_not_fit_is_rejected_with_the_reason(tmp_path: Path) -> None:
    strange = {**PARAMETERS, "properties": {"city": {"type": "string", "pattern": "^[0-9]+$"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": strange}}
    with Loopback() as server:
        content = save(tmp_path / "r.yaml", offering(server, [tool]))
        result = cli("generate", content, "-o", tmp_path / "o", "--json")

    assert result.json["reasons"] == {"parse/tool_call": 2}
    assert records(tmp_path / "o", "rejected")[0]["detail"] == "weather: city breaks `pattern`"


@pytest.mark.parametrize(
    ("choice", "detail"),
    [
        ("required", "no tool was called, though tool_choice is required"),
        ("clock", "clock was not called, though tool_choice names it"),
    ],
)
def test_an_answer_in_words_where_a_call_was_demanded_is_rejected(
    tmp_path: Path, choice: str, detail: str
) -> None:
    with Loopback(ignores=["tool_choice"]) as server:
        content = save(tmp_path / "r.yaml", offering(server, [WEATHER, CLOCK], choice))
        result = cli("generate", content, "-o", tmp_path / "o", "--json")

    assert result.json["reasons"] == {"parse/no_tool_call": 2}
    assert records(tmp_path / "o", "rejected")[0]["detail"] == detail


def test_tools_and_choice_belong_to_the_key(tmp_path: Path) -> None:
    plans = [([WEATHER], "auto"), ([WEATHER], "required"), ([WEATHER, CLOCK], "auto"), ([WEATHER], "auto")]
    with Loopback() as server:
        for tools, choice in plans:
            cli("generate", save(tmp_path / "r.yaml", offering(server, tools, choice)), "-o", tmp_path / "o")

    assert len(server.requests) == 6  # the last plan was bought before


@pytest.mark.parametrize(
    ("tools", "choice", "said"),
    [
        ([], None, ": steps[0].tools: list should have at least 1 item"),
        ([{"type": "function"}], None, ": steps[0].tools[0].function: is required"),
        ([{**CLOCK, "name": "x"}], None, ": steps[0].tools[0].name: unknown key"),
        (
            [{"type": "function", "function": {"name": "a b"}}],
            None,
            ": steps[0].tools[0].function.name: string should match",
        ),
        ([CLOCK, CLOCK], None, ": steps[0].tools[1].function.name: 'clock' is there twice"),
        (
            [{"type": "function", "function": {"name": "f", "parameters": {"type": "nothing"}}}],
            None,
            ": steps[0].tools[0].function.parameters: not a JSON Schema",
        ),
        ([CLOCK], "weather", ": steps[0].tool_choice: 'weather' is none of auto, none, required, clock"),
        (None, "auto", ": steps[0].tool_choice: there are no `tools` to choose from"),
        ("gone.json", None, "steps[0].tools: tools file not found"),
    ],
)
def test_what_is_wrong_with_tools_is_said_before_anything_is_sent(
    tmp_path: Path, tools: object, choice: str | None, said: str
) -> None:
    result = cli("plan", save(tmp_path / "r.yaml", offering(Loopback(), tools, choice)))

    assert result.code == 2
    assert said in " ".join(result.err.split())
    assert "r.yaml:" in result.err


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[\n {"type": "function",\n  "function": {"name": 7}}\n]\n')

    result = cli("plan", save(tmp_path / "r.yaml", offering(Loopback(), "tools.json")))

    assert result.code == 2
    assert "tools.json:3: tools[0].function.name" in result.err


def test_the_embedded_teacher_takes_none(tmp_path: Path) -> None:
    teachers = {"qwen": {"provider": "local"}}

    result = cli("plan", save(tmp_path / "r.yaml", offering(Loopback(), [CLOCK], teachers=teachers)))

    assert result.code == 2
    assert "teacher 'qwen' (provider local) takes no tools" in " ".join(result.err.split())
