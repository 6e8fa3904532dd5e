"""Servers that stream although nobody asked: what was paid for is put together again."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.asking.outcome import Answer, HttpReply, LaneStop, Outcome, Retry
from synthgen.asking.wire.anthropic_messages import AnthropicMessagesWire
from synthgen.asking.wire.openai_chat import OpenAIChatWire
from synthgen.types import Completion, Message, Request, Sampling, TeacherIdentity, ToolCall, Usage

OPENAI = OpenAIChatWire()
ANTHROPIC = AnthropicMessagesWire()
TEACHER = TeacherIdentity("openai", "openai-api", "https://api.openai.com/v1", "m")

USAGE = {"prompt_tokens": 5, "completion_tokens": 3}
CHUNKS: list[Mapping[str, object]] = [
    {"id": "r", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"id": "r", "choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}}]},
    {"id": "r", "choices": [{"index": 0, "delta": {"content": "Look"}, "finish_reason": None}]},
    {"id": "r", "choices": [{"index": 0, "delta": {"content": "ing."}, "finish_reason": "stop"}]},
    {"id": "r", "choices": [], "usage": USAGE},
]
EVENTS: list[Mapping[str, object]] = [
    {"type": "message_start", "message": {"id": "r", "model": "m", "usage": {"input_tokens": 5}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Look"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ing."}},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "c", "name": "f"},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"a"'},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": ": 1}"},
    },
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]


def stream(events: list[Mapping[str, object]], *, end: str = "", line: str = "\n") -> HttpReply:
    text = "".join(f": alive{line}data: {json.dumps(event)}{line}{line}" for event in events) + end
    return HttpReply(200, {"content-type": "text/event-stream"}, text.encode())


def completion(outcome: Outcome) -> Completion:
    assert isinstance(outcome, Answer)
    return outcome.completion


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_chunks_become_the_answer_they_were_cut_from(line: str) -> None:
    answer = completion(OPENAI.read(stream(CHUNKS, end="data: [DONE]\n\n", line=line)))

    assert (answer.text, answer.reasoning, answer.finish_reason) == ("Looking.", "Hm", "stop")
    assert (answer.usage, answer.served_model, answer.reply_id) == (Usage(5, 0, 3), "m", "r")


def test_a_stream_without_its_mark_ends_with_its_finish_reasons() -> None:
    assert completion(OPENAI.read(stream(CHUNKS))).text == "Looking."


@pytest.mark.parametrize("count", range(1, 4))
def test_a_stream_that_broke_off_is_no_answer(count: int) -> None:
    outcome = OPENAI.read(stream(CHUNKS[:count]))

    assert isinstance(outcome, Retry)
    assert outcome.body is not None


def test_tool_calls_are_joined_by_their_place() -> None:
    def delta(*calls: Mapping[str, object], finish: str | None = None) -> Mapping[str, object]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": finish}]}

    answer = completion(
        OPENAI.read(
            stream(
                [
                    delta({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}),
                    delta({"index": 0, "function": {"arguments": '{"x": '}}),
                    delta({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
                    delta({"index": 0, "function": {"arguments": "1}"}}, finish="tool_calls"),
                ]
            )
        )
    )

    assert answer.tool_calls == (ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}"))


def test_choices_that_come_mixed_are_samples_of_their_own() -> None:
    chunks: list[Mapping[str, object]] = [
        {"choices": [{"index": place, "delta": {"content": text}, "finish_reason": finish}]}
        for place, text, finish in ((0, "a", None), (1, "x", None), (0, "b", "stop"), (1, "y", "length"))
    ]

    outcome = OPENAI.read(stream(chunks))

    assert isinstance(outcome, Answer)
    assert [(one.text, one.finish_reason) for one in outcome.completions] == [
        ("ab", "stop"),
        ("xy", "length"),
    ]


def test_logprobs_are_captured_from_a_stream() -> None:
    def part(token: str, finish: str | None = None) -> Mapping[str, object]:
        entry = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
        listed = {**entry, "top_logprobs": [entry]}
        choice = {"index": 0, "delta": {"content": token}, "logprobs": {"content": [listed]}}
        return {"choices": [{**choice, "finish_reason": finish}]}

    request = Request((Message("user", "hi"),), TEACHER, Sampling(), capture=("logprobs:1",))

    answer = completion(OPENAI.read(stream([part("Look"), part("ing.", "stop")]), request))

    assert answer.flags == ()
    assert answer.logprobs is not None
    assert answer.logprobs.tokens == ("Look", "ing.")


def test_an_error_among_the_events_is_read_as_one() -> None:
    error = {"error": {"code": "insufficient_quota", "message": "no money"}}

    outcome = OPENAI.read(stream([*CHUNKS[:2], error]))

    assert isinstance(outcome, LaneStop)
    assert outcome.reason == "quota"


def test_anthropics_events_become_the_message() -> None:
    answer = completion(ANTHROPIC.read(stream(EVENTS)))

    assert (answer.text, answer.reasoning, answer.finish_reason) == ("Looking.", "Hm", "tool_calls")
    assert answer.tool_calls == (ToolCall("c", "f", '{"a":1}'),)
    assert answer.usage == Usage(5, 0, 3)


def test_anthropics_stream_that_broke_off_is_no_answer() -> None:
    assert isinstance(ANTHROPIC.read(stream(EVENTS[:-2])), Retry)


@given(pieces=st.lists(st.sampled_from([*map(json.dumps, [*CHUNKS, *EVENTS]), "[DONE]", "{", "[]", "1"])))
def test_no_order_of_events_raises(pieces: list[str]) -> None:
    body = "".join(f"data: {piece}\n\n" for piece in pieces).encode()

    for wire in (OPENAI, ANTHROPIC):
        assert isinstance(wire.read(HttpReply(200, {}, body)), Answer | Retry)
