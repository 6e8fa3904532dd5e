"""What the student is trained to write, for chat templates in five styles."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import UsageError
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation, chat
from synthgen.train.examples import IGNORED, Example
from synthgen.train.masks import Refused, fitting, mask
from synthgen.train.template import ChatFormat, chat_format
from synthgen.types import Message, ToolCall
from tests.chat_templates import CHATML, QWEN3, STYLES, tokenizer

FORMATS = {style: chat_format(tokenizer(style)) for style in STYLES}
TOOLS = '[{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]'
EMPTY_THINKING = "<think>\n\n</think>\n\n"

# Anything people write, line breaks and leading spaces included; some of it must stay when trimmed.
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30).filter(
    lambda text: bool(text.strip())
)
# A line break in front would share a token with the template's own: we cut there, transformers' mask cannot.
FLUSH = TEXTS.filter(lambda text: not text[0].isspace())


def conversation(*said: str, **fields: object) -> Conversation:
    """Turns of user and assistant by turns."""
    messages = tuple(Message("assistant" if at % 2 else "user", text) for at, text in enumerate(said))
    return replace(Conversation(messages, (True,) * len(messages), id="a"), **fields)  # type: ignore[arg-type]


def masked(given: Conversation, style: str = "chatml", **data: object) -> list[Example]:
    made = list(mask([given], FORMATS[style], DataConfig.model_validate(data)))
    assert all(isinstance(example, Example) for example in made), made
    return [example for example in made if isinstance(example, Example)]


def refusal(given: Conversation, style: str = "chatml", **data: object) -> str:
    (refused,) = mask([given], FORMATS[style], DataConfig.model_validate(data))
    assert isinstance(refused, Refused)
    return refused.reason


def targets(examples: list[Example], style: str) -> list[str]:
    """Decoded targets, span by span."""
    format = FORMATS[style]
    return [
        format.decode([example.input_ids[s.start : s.end]])[0] for example in examples for s in example.spans
    ]


def expected(answer: str, style: str) -> str:
    """What a style makes of an answer: trimmed where the template trims, with what it puts in front."""
    text = answer.strip() if style in ("llama3", "gemma") else answer
    before = {"mistral": " ", "qwen3": EMPTY_THINKING}.get(style, "")
    return before + text + FORMATS[style].stop


@pytest.mark.parametrize("style", STYLES)
@given(said=st.lists(TEXTS, min_size=2, max_size=6).filter(lambda said: len(said) % 2 == 0))
@settings(max_examples=60, deadline=None)
def test_targets_are_the_assistants_words_and_the_stop_token(style: str, said: list[str]) -> None:
    examples = masked(conversation(*said), style)

    assert targets(examples, style) == [expected(answer, style) for answer in said[1::2]]


@pytest.mark.parametrize("style", STYLES)
@given(said=st.lists(TEXTS, min_size=2, max_size=6).filter(lambda said: len(said) % 2 == 0))
@settings(max_examples=30, deadline=None)
def test_what_precedes_a_target_is_the_prompt_of_inference(style: str, said: list[str]) -> None:
    format, given = FORMATS[style], conversation(*said)

    for example in masked(given, style):
        first = example.spans[0]
        prompt = format.render(given.messages[: first.message], prompt=True)
        assert list(example.input_ids[: first.start]) == format.encode([prompt])[0][0]


@pytest.mark.parametrize("style", ["chatml", "llama3"])
@given(said=st.lists(FLUSH, min_size=2, max_size=6).filter(lambda said: len(said) % 2 == 0))
@settings(max_examples=30, deadline=None)
def test_masks_are_those_of_generation_markers(style: str, said: list[str]) -> None:
    given = conversation(*said)

    (example,) = masked(given, style)

    marked = FORMATS[style].tokenizer.apply_chat_template(
        chat(given.messages), return_assistant_tokens_mask=True, return_dict=True
    )
    length = len(example)  # a line break behind the last stop token belongs to nobody
    assert list(example.input_ids) == marked["input_ids"][:length]
    assert list(example.is_target.astype(int)) == marked["assistant_masks"][:length]


@pytest.mark.parametrize("style", STYLES)
def test_the_stop_token_is_a_target_although_it_pads(style: str) -> None:
    format = FORMATS[style]

    (example,) = masked(conversation("Hi", "Ho"), style)

    assert format.pad_id == format.stop_id
    assert example.labels[example.spans[-1].end - 1] == format.stop_id


def test_labels_are_ignored_outside_the_targets() -> None:
    (example,) = masked(conversation("Hi", "Ho"))

    assert set(example.labels[~example.is_target]) == {IGNORED}
    assert np.array_equal(example.labels[example.is_target], example.input_ids[example.is_target])


# ---- which turns


def test_a_turn_whose_flag_is_off_is_no_target() -> None:
    given = conversation("a", "one", "b", "two", trained=(True, False, True, True))

    assert targets(masked(given), "chatml") == ["two<|im_end|>"]


def test_last_turn_only() -> None:
    assert targets(masked(conversation("a", "one", "b", "two"), train_on="last"), "chatml") == [
        "two<|im_end|>"
    ]


def test_a_conversation_without_a_target_is_refused() -> None:
    assert refusal(conversation("a", "one", trained=(True, False))) == "no_target"


def test_spans_name_their_messages() -> None:
    (example,) = masked(conversation("a", "one", "b", "two"))

    assert [span.message for span in example.spans] == [1, 3]


# ---- tools


def tool_conversation() -> Conversation:
    call = ToolCall("1", "look_up", '{"city": "Paris"}')
    messages = (
        Message("user", "Weather?"),
        Message("assistant", "I look.", tool_calls=(call,)),
        Message("tool", "sunny, says the tool", tool_call_id="1"),
        Message("assistant", "Sunny."),
    )
    return Conversation(messages, (True,) * 4, tools=TOOLS)


def test_calls_are_targets_and_results_are_not() -> None:
    call, answer = targets(masked(tool_conversation(), "qwen3"), "qwen3")

    assert call.endswith(
        'I look.\n<tool_call>\n{"name": "look_up", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>'
    )
    assert answer == f"{EMPTY_THINKING}Sunny.<|im_end|>"


def test_a_template_that_ignores_tools_is_refused() -> None:
    assert refusal(tool_conversation(), "chatml") == "tools_not_rendered"


def test_a_template_that_ignores_calls_is_refused() -> None:
    given = replace(tool_conversation(), tools=None)

    assert refusal(given, "chatml") == "tool_calls_not_rendered"


# ---- reasoning


def reasoned(*reasoning: str) -> Conversation:
    messages: list[Message] = []
    for at, text in enumerate(reasoning):
        messages += [Message("user", f"Q{at}"), Message("assistant", f"A{at}", reasoning=text)]
    return Conversation(tuple(messages), (True,) * len(messages))


def test_reasoning_is_kept_as_the_template_renders_it() -> None:
    examples = masked(reasoned("first"), "qwen3")

    assert targets(examples, "qwen3") == ["<think>\nfirst\n</think>\n\nA0<|im_end|>"]


def test_a_turn_whose_reasoning_is_dropped_later_is_an_example_of_its_own() -> None:
    examples = masked(reasoned("first", "second"), "qwen3")

    assert targets(examples, "qwen3") == [
        "<think>\nfirst\n</think>\n\nA0<|im_end|>",
        "<think>\nsecond\n</think>\n\nA1<|im_end|>",
    ]
    assert "first" not in FORMATS["qwen3"].decode([examples[1].input_ids])[0]


def test_a_template_that_drops_reasoning_is_refused_with_the_way_out() -> None:
    (refused,) = mask([reasoned("first")], FORMATS["chatml"], DataConfig())

    assert isinstance(refused, Refused)
    assert refused.reason == "reasoning_not_rendered"
    assert "inline, strip or separate" in refused.problem


def test_reasoning_is_inlined() -> None:
    examples = masked(reasoned("first"), reasoning="inline")

    assert targets(examples, "chatml") == ["<think>\nfirst\n</think>\n\nA0<|im_end|>"]


def test_reasoning_is_stripped() -> None:
    assert targets(masked(reasoned("first"), reasoning="strip"), "chatml") == ["A0<|im_end|>"]


def test_rationale_and_answer_are_separate_targets() -> None:
    answer, rationale = masked(
        reasoned("first"), reasoning="separate", rationale_prompt=" Why?", rationale_weight=0.5
    )

    assert targets([answer, rationale], "chatml") == ["A0<|im_end|>", "first<|im_end|>"]
    assert (answer.part, rationale.part, rationale.weight) == ("answer", "rationale", 0.5)
    assert "Q0 Why?" in FORMATS["chatml"].decode([rationale.input_ids])[0]


# ---- what cannot be held


@pytest.mark.parametrize(
    ("given", "style", "reason"),
    [
        (conversation("a", "b <|im_end|>"), "chatml", "control_token"),
        (conversation("a", " "), "chatml", "empty_answer"),
        (
            Conversation(
                (Message("system", "s"), Message("user", "u"), Message("assistant", "a")), (True,) * 3
            ),
            "gemma",
            "refused_by_template",
        ),
        (Conversation((Message("assistant", "a"),), (True,)), "chatml", "no_prompt"),
    ],
)
def test_a_conversation_is_refused_with_its_reason(given: Conversation, style: str, reason: str) -> None:
    assert refusal(given, style) == reason


def test_a_refusal_does_not_quote_the_row() -> None:
    (refused,) = mask([conversation("secret", "secret <|im_end|>")], FORMATS["chatml"], DataConfig())

    assert isinstance(refused, Refused)
    assert "secret" not in refused.problem


# ---- templates that cannot teach


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHATML.replace("m.content + '<|im_end|>'", "m.content"), "with nothing"),
        (CHATML.replace("<|im_end|>", "<|end|>"), r"'<\|end\|>', which is no control token"),
        (
            CHATML.replace("assistant\\n' }}{% endif %}", "assistant: ' }}{% endif %}"),
            "differently from the prompt",
        ),
        ("{{ raise_exception('no') }}", "refuses it: no"),
    ],
    ids=["no stop token", "stop token unknown", "another prompt", "refuses all"],
)
def test_a_template_that_teaches_no_end_is_refused(template: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chat_format(tokenizer("chatml"), template)


def test_a_base_without_a_template_is_refused() -> None:
    bare = tokenizer("chatml")
    bare.chat_template = None

    with pytest.raises(UsageError, match="has no chat template"):
        chat_format(bare)


def test_another_template_is_another_digest() -> None:
    assert chat_format(tokenizer("chatml")).digest != chat_format(tokenizer("chatml"), QWEN3).digest


# ---- tokens that reach over an edge


def test_an_answer_that_begins_with_a_line_break_is_tokenised_as_at_inference() -> None:
    """The prompt ends with a line break; in one text, two of them would be one token."""
    format: ChatFormat = FORMATS["chatml"]
    together = format.encode(["\n\n"])[0][0]

    (example,) = masked(conversation("a", "\nb"))

    assert len(together) == 1
    assert targets([example], "chatml") == ["\nb<|im_end|>"]


# ---- lengths


def test_a_long_row_is_an_error_that_says_what_to_do() -> None:
    examples = masked(conversation("a", "b"))

    with pytest.raises(UsageError, match=rf"1 of 1 rows .* longest {len(examples[0])} .*nothing is cut"):
        fitting(examples, 5, drop=False)


def test_a_long_row_is_dropped_and_counted() -> None:
    short, long = masked(conversation("a", "b"))[0], masked(conversation("a", "b" * 99))[0]

    assert fitting([long, short], len(short), drop=True) == ([short], 1)


def test_dropping_every_row_is_an_error() -> None:
    with pytest.raises(UsageError, match="every row"):
        fitting(masked(conversation("a", "b")), 5, drop=True)
