"""Prompts: loading, consistency, rendering, reading replies, and the bundled files."""

import re
from pathlib import Path
from textwrap import dedent

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.assets import asset_names, find_asset
from synthgen.errors import RecipeError
from synthgen.templates import (
    Parsed,
    Prompt,
    Reply,
    TemplateError,
    Unusable,
    load_prompt,
    parse_reply,
    render_messages,
    split_thinking,
)
from synthgen.types import JSONValue, canonical_json

BUNDLED = asset_names("prompts")

SCHEMA: dict[str, JSONValue] = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b"]}, "note": {"type": "string"}},
    "required": ["label"],
}
TEXT = Reply("text", ("response",))
LIST = Reply("list", ("q",))
SECTIONS = Reply("sections", ("question", "answer"))
JSON = Reply("json", ("label", "note"), orjson.dumps(SCHEMA).decode())

PROMPT = """\
name: mine
version: 1
description: A test prompt.
licence: Apache-2.0
inputs: [text]
outputs: [response]
messages:
  - role: user
    content: "Say {{ text }}"
reply: {text: response}
"""


def bundled(name: str) -> Prompt:
    return load_prompt(find_asset("prompts", name))


def load(tmp_path: Path, text: str) -> Prompt:
    path = tmp_path / "mine.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return load_prompt(path)


def items(reply: Reply, text: str) -> list[dict[str, JSONValue]]:
    parsed = reply.read(text)
    assert isinstance(parsed, Parsed), parsed
    return [dict(item) for item in parsed.items]


def questions(text: str) -> list[JSONValue]:
    return [item["q"] for item in items(LIST, text)]


def reason(reply: Reply, text: str) -> str:
    parsed = reply.read(text)
    assert isinstance(parsed, Unusable), parsed
    return parsed.reason


# --- bundled files


def test_the_prompts_the_design_names_are_bundled() -> None:
    assert {
        "answer",
        "answer_reasoning",
        "classify",
        "document_qa",
        "evolve_instruction",
        "evolve_instruction_deeper",
        "evolve_instruction_wider",
        "judge_helpfulness",
        "persona_question",
        "questions_from_examples",
        "repair",
        "topic_questions",
    } <= set(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_prompts_name_is_its_files(name: str) -> None:
    assert bundled(name).name == name


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_prompt_renders_its_example_inputs_into_the_message(name: str) -> None:
    prompt = bundled(name)
    assert prompt.example is not None

    text = render_messages(prompt, prompt.example.inputs)[-1].content

    for value in prompt.example.inputs.values():
        for part in value if isinstance(value, list) else [value]:
            assert str(part) in text


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_prompts_example_reply_gives_every_output(name: str) -> None:
    prompt = bundled(name)
    assert prompt.example is not None

    parsed = parse_reply(prompt, prompt.example.reply)

    assert isinstance(parsed, Parsed)
    assert all(item.keys() == set(prompt.outputs) and all(item.values()) for item in parsed.items)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_prompt_has_no_empty_lines_in_a_row(name: str) -> None:
    prompt = bundled(name)
    required = {key: "x" for key, spec in prompt.inputs.items() if spec.required}

    text = render_messages(prompt, required)[-1].content

    assert not re.search(r"\n\s*\n\s*\n", text)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_prompt_is_apache_licensed(name: str) -> None:
    assert bundled(name).licence == "Apache-2.0"


def test_answer_sends_system_and_context_only_where_a_row_has_them() -> None:
    prompt = bundled("answer")

    bare = render_messages(prompt, {"instruction": "Q"})
    full = render_messages(prompt, {"instruction": "Q", "context": "C", "system": "S"})

    assert [(m.role, m.content) for m in bare] == [("user", "Q")]
    assert [m.role for m in full] == ["system", "user"]
    assert "<text>\nC\n</text>" in full[1].content


def test_the_judge_reads_score_and_reason() -> None:
    assert items(bundled("judge_helpfulness").reply, 'Sure: {"reason": "fine", "score": "4"} ') == [
        {"reason": "fine", "score": 4}
    ]


@pytest.mark.parametrize("text", ["high", '{"score": 6}', '{"score": "high"}', '{"score": null}', "4", "[4]"])
def test_a_judge_that_gives_no_score_in_range_is_unusable(text: str) -> None:
    assert reason(bundled("judge_helpfulness").reply, text) in {"not_json", "schema"}


# --- loading


def test_a_prompt_file_loads_with_all_its_parts(tmp_path: Path) -> None:
    prompt = load(tmp_path, PROMPT)

    assert (prompt.name, prompt.version, prompt.outputs, list(prompt.inputs)) == (
        "mine",
        1,
        ("response",),
        ["text"],
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("licence: Apache-2.0", "license: Apache-2.0", 4, "licence"),
        ("{{ text }}", "{{ txt }}", 9, "uses txt"),
        ("{{ text }}", "{{ text", 9, "not a valid template"),
        ("inputs: [text]", "inputs: [text, other]", 5, "no message uses it"),
        ("outputs: [response]", "outputs: [answer]", 6, "the reply gives response"),
        ("{text: response}", "{text: response, list: response}", 10, "exactly one"),
        ("{text: response}", "{xml: response}", 10, "unknown key"),
        ("{text: response}", "{json: {type: object}}", 10, "properties"),
        ("{text: response}", "{json: {type: nope, properties: {response: {}}}}", 10, "nope"),
        ("role: user", "role: assistant", 7, "the user's"),
        ("version: 1", "version: 0", 2, "version"),
    ],
)
def test_a_wrong_prompt_file_is_refused_at_its_line(
    tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, PROMPT.replace(old, new))

    assert f"mine.yaml:{line}: " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ("{inputs: {text: x}, reply: ''}", "example.reply: empty"),
        ("{inputs: {}, reply: y}", "'text' is missing"),
        ("{inputs: {text: x, more: y}, reply: z}", "'more' is not an input"),
    ],
)
def test_an_example_that_lies_is_refused(tmp_path: Path, example: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        load(tmp_path, PROMPT + f"example: {example}\n")


def test_a_schema_that_points_to_the_network_is_refused_without_asking_it(tmp_path: Path) -> None:
    schema = "{json: {properties: {response: {$ref: 'http://127.0.0.1:9/x.json'}}}}"

    with pytest.raises(RecipeError, match=r"mine\.yaml:10: reply: "):
        load(tmp_path, PROMPT.replace("{text: response}", schema))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Say {{ text }}", "Tell {{ text }}"),
        ("role: user\n", "role: system\n    content: x\n  - role: user\n"),
        ("inputs: [text]", "inputs: {text: {default: x}}"),
        ("{text: response}", "{list: response}"),
    ],
)
def test_the_digest_changes_with_what_changes_a_request_or_its_reading(
    tmp_path: Path, old: str, new: str
) -> None:
    assert load(tmp_path, PROMPT.replace(old, new)).digest != load(tmp_path, PROMPT).digest


@pytest.mark.parametrize(
    ("old", "new"), [("A test prompt.", "Other words."), ("Apache-2.0", "MIT"), ("1", "2")]
)
def test_the_digest_ignores_what_only_people_read(tmp_path: Path, old: str, new: str) -> None:
    assert load(tmp_path, PROMPT.replace(old, new, 1)).digest == load(tmp_path, PROMPT).digest


# --- rendering


@pytest.mark.parametrize(
    ("fields", "says"), [({}, "missing"), ({"text": None}, "missing"), ({"text": " \n"}, "blank")]
)
def test_a_required_input_must_have_text(tmp_path: Path, fields: dict[str, JSONValue], says: str) -> None:
    prompt = load(tmp_path, PROMPT)

    with pytest.raises(TemplateError, match=f"prompt mine: input 'text' is {says}"):
        render_messages(prompt, fields)


@pytest.mark.parametrize("fields", [{}, {"text": None}])
def test_a_default_stands_in_for_a_missing_input(tmp_path: Path, fields: dict[str, JSONValue]) -> None:
    prompt = load(tmp_path, PROMPT.replace("[text]", "{text: {default: hello}}"))

    assert render_messages(prompt, fields)[0].content == "Say hello"


def test_a_prompt_sees_only_its_declared_inputs(tmp_path: Path) -> None:
    prompt = load(
        tmp_path,
        PROMPT.replace("{{ text }}", "{{ text }} {{ other | default('-') }}").replace(
            "[text]", "{text:, other: {default: null}}"
        ),
    )

    assert render_messages(prompt, {"text": "x", "unknown": "y"})[0].content == "Say x"


# --- thinking


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", (None, "plain")),
        ("<think>\nhm\n</think>\n\nyes", ("hm", "yes")),
        ("hm\n</think>\nyes", ("hm", "yes")),
        ("<think>never ends", ("never ends", "")),
        ("The tag <think> opens and </think> closes.", (None, "The tag <think> opens and </think> closes.")),
    ],
)
def test_a_thinking_block_at_the_start_is_set_aside(text: str, expected: tuple[str | None, str]) -> None:
    assert split_thinking(text) == expected


def test_thinking_is_kept_beside_the_answer() -> None:
    assert TEXT.read("<think>hm</think>yes") == Parsed(({"response": "yes"},), "hm")


# --- text


@pytest.mark.parametrize("text", ["", " \n ", "<think>cut", "<think>x</think> ", "<response> </response>"])
def test_a_reply_without_text_is_empty(text: str) -> None:
    assert reason(TEXT, text) == "empty"


def test_a_reply_wrapped_in_the_tags_of_its_field_is_unwrapped() -> None:
    assert items(TEXT, "<response>\nyes\n</response>") == [{"response": "yes"}]


# --- json


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "a"}',
        '```json\n{"label": "a"}\n```',
        'Here it is: {"label": "a"} I hope that helps {smile}.',
        '<think>{"label": "b"}</think>{"label": "a"}',
        'First {"label": "b"}, no: {"label": "a"}',
        'In {"label": "a"} there is no {"label": "z"}',
        'Let f = {x}. {"label": "a"}',
        '{"label": "a", "other": {"label": "b"}}',
        '{"label": "a", "more": "line\nbreak"}',
    ],
)
def test_json_is_found_in_what_models_write_around_it(text: str) -> None:
    assert items(JSON, text) == [{"label": "a", "note": None}]


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "[1]",
        '{"label": "a"',
        "{'label': 'a'}",
        '{"label": NaN}',
        '{"label": "\\ud800"}',
        "{" * 5000,
        '{"a":' * 5000,
    ],
)
def test_what_is_no_json_object_is_not_json(text: str) -> None:
    assert reason(JSON, text) == "not_json"


@pytest.mark.parametrize("text", ['{"label": "c"}', "{}", '{"label": "a", "note": 3}'])
def test_an_object_against_the_schema_is_unusable(text: str) -> None:
    assert reason(JSON, text) == "schema"


def test_a_schema_problem_names_the_field_and_quotes_nothing() -> None:
    parsed = JSON.read('{"label": "sesame"}')

    assert parsed == Unusable("schema", "label breaks `enum`")


def test_json_too_deep_to_store_is_not_json() -> None:
    free = Reply("json", ("x",), '{"properties": {"x": {}}}')

    assert reason(free, '{"x": ' + "[" * 250 + "]" * 250 + "}") == "not_json"


# --- sections


@pytest.mark.parametrize(
    "text",
    [
        "<question>Q?</question><answer>A.</answer>",
        "Sure!\n<Question>\nQ?\n</Question>\n\n<ANSWER>A.</ANSWER>\nBye",
        "<answer>A.</answer><question>Q?</question>",
        "<question>Q?\n<answer>A.",
        "<question>Q?</question>\n<answer>A.",
        "I use <question> tags. <question>Q?</question><answer>A.</answer>",
        "<question>Q?</question><answer>A.</answer><question>R?</question><answer>B.</answer>",
    ],
)
def test_sections_are_found_in_what_models_write_around_them(text: str) -> None:
    assert items(SECTIONS, text) == [{"question": "Q?", "answer": "A."}]


@pytest.mark.parametrize(
    "text", ["Q? A.", "<question>Q?</question>", "<question></question><answer>A</answer>"]
)
def test_a_missing_or_empty_section_is_unusable(text: str) -> None:
    assert reason(SECTIONS, text) == "missing_section"


# --- list


@pytest.mark.parametrize(
    "text",
    [
        '["one", "two"]',
        '```json\n["one",\n "two"]\n```',
        'Here are two:\n["one", "two"]\nEnjoy!',
        '{"questions": ["one", "two"]}',
        '[{"q": "one"}, {"text": "two"}]',
        "1. one\n2. two",
        "1) one\n2) two",
        "Sure, here they are:\n\n1. one\n\n2. two\n\nI hope this helps!",
        "**1.** one\n**2.** two",
        "**1. one**\n**2. two**",
        "Question 1: one\nQuestion 2: two",
        "- one\n- two",
        "* one\n• two",
        '1. "one"\n2. “two”',
        "one\ntwo",
        "Questions:\none\n\ntwo",
        "<think>1. no</think>1. one\n2. two",
    ],
)
def test_lists_are_read_as_models_write_them(text: str) -> None:
    assert questions(text) == ["one", "two"]


def test_an_item_runs_over_lines_and_nested_marks() -> None:
    assert questions("1. one\n   more\n   - sub\n2. two\n") == ["one\nmore\n- sub", "two"]


def test_paragraphs_of_items_stay_together_where_items_have_several() -> None:
    assert questions("1. one\n\nbody\n\n2. two\n\nbody") == ["one\n\nbody", "two\n\nbody"]


def test_json_inside_an_item_is_part_of_it() -> None:
    assert questions('1. Mend this:\n{"a": }\n2. two') == ['Mend this:\n{"a": }', "two"]


def test_a_single_item_that_holds_a_dash_line_is_not_cut_to_it() -> None:
    assert questions("one\ntwo\n- three\nfour") == ["one", "two", "- three", "four"]


@pytest.mark.parametrize("text", ["[]", '{"q": []}', '["", " "]', "1. \n2. "])
def test_a_list_without_an_item_is_empty(text: str) -> None:
    assert reason(LIST, text) == "empty_list"


@pytest.mark.parametrize(
    "text", ['["one", "tw', '[{"q": "one"}, {"q"', '["one", 2e', '{"q": "one"}', '["one", ["two"]]']
)
def test_a_json_list_that_is_broken_or_not_of_texts_is_not_json(text: str) -> None:
    assert reason(LIST, text) == "not_json"


# --- any text

_PIECES = st.sampled_from(
    ['{"label": "a"', "}", "[", "]", '"', "\\", "<think>", "</think>", "<question>", "</question>", "<answer>",
     "```json\n", "```", "\n", "1. ", "- ", "**", ":", '"score": 3', "\\ud800", "NaN", "\x00", "é", " "]
)  # fmt: skip
_REPLIES = [
    TEXT,
    LIST,
    SECTIONS,
    JSON,
    Reply("score", ("reason", "score"), '{"properties": {"score": {}}}', (("score", 1.0),)),
]


@pytest.mark.parametrize("reply", _REPLIES, ids=lambda reply: reply.kind)
@given(text=st.one_of(st.text(), st.lists(_PIECES, max_size=30).map("".join)))
def test_reading_never_raises_and_gives_every_output_as_storable_json(reply: Reply, text: str) -> None:
    parsed = reply.read(text)

    if isinstance(parsed, Parsed):
        assert parsed.items
        for item in parsed.items:
            assert tuple(item) == reply.outputs
            canonical_json(dict(item))
