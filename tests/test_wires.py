"""The two dialects without a network: bodies, replies, and the error taxonomy row by row."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.asking.outcome import (
    Answer,
    Gate,
    HttpReply,
    LaneStop,
    Outcome,
    Retry,
    RowFailure,
    SeenLimit,
    Wire,
)
from synthgen.asking.wire.anthropic_messages import AnthropicMessagesWire
from synthgen.asking.wire.openai_chat import OpenAIChatWire
from synthgen.asking.wire.waits import Wait, named_limits, read_limits, read_wait
from synthgen.types import Completion, JSONValue, Message, Request, Sampling, TeacherIdentity, ToolCall, Usage

NOW = 1_700_000_000.0
OPENAI = OpenAIChatWire(clock=lambda: NOW)
ANTHROPIC = AnthropicMessagesWire(clock=lambda: NOW)
WIRES: dict[str, Wire] = {"openai": OPENAI, "anthropic": ANTHROPIC}
TEACHER = TeacherIdentity("openai", "openai-api", "https://api.openai.com/v1", "m")
WEATHER = (
    '[{"type":"function","function":{"name":"weather","description":"d","parameters":{"type":"object"}}}]'
)


def reply(payload: object, status: int = 200, **headers: str) -> HttpReply:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return HttpReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def chat(message: Mapping[str, object], finish: str | None = "stop", **fields: object) -> HttpReply:
    return reply(
        {"id": "r", "model": "m", "choices": [{"message": message, "finish_reason": finish}], **fields}
    )


def claude(*content: Mapping[str, object], stop: str = "end_turn", **fields: object) -> HttpReply:
    return reply(
        {"type": "message", "id": "r", "model": "m", "content": content, "stop_reason": stop, **fields}
    )


def completion(outcome: Outcome) -> Completion:
    assert isinstance(outcome, Answer)
    return outcome.completion


def request(*messages: Message, sampling: Sampling | None = None, sample: int = 0) -> Request:
    return Request(messages or (Message("user", "hi"),), TEACHER, sampling or Sampling(), sample=sample)


# ---------------------------------------------------------------- bodies


def test_openai_sends_only_what_is_set() -> None:
    assert OPENAI.body(request()) == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_the_vendors_own_models_get_max_completion_tokens() -> None:
    wire = OpenAIChatWire(max_tokens_field="max_completion_tokens")

    body = wire.body(request(sampling=Sampling(max_tokens=7)))

    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body


def test_sample_k_is_sent_with_seed_plus_k() -> None:
    assert OPENAI.body(request(sampling=Sampling(seed=40), sample=2))["seed"] == 42


def test_extra_fields_go_to_the_top_level() -> None:
    sampling = Sampling(
        top_k=5, min_p=0.1, repetition_penalty=1.1, extra={"chat_template_kwargs": {"thinking": False}}
    )

    body = OPENAI.body(request(sampling=sampling))

    assert body["chat_template_kwargs"] == {"thinking": False}
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (5, 0.1, 1.1)


def test_openai_tool_turns_keep_their_calls() -> None:
    call = ToolCall("c1", "weather", '{"city":"Bonn"}')

    body = OPENAI.body(
        request(Message("assistant", "", tool_calls=(call,)), Message("tool", "12 C", tool_call_id="c1"))
    )

    assert body["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Bonn"}'},
                }
            ],
        },
        {"role": "tool", "content": "12 C", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            True,
        ),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, False),
        ({"type": "object", "properties": {"a": {}}, "required": [], "additionalProperties": False}, False),
    ],
    ids=["closed", "open", "optional"],
)
def test_a_schema_is_strict_only_where_openai_accepts_it(schema: JSONValue, strict: bool) -> None:
    asked = Request((Message("user", "hi"),), TEACHER, Sampling(), response_schema=json.dumps(schema))

    assert OPENAI.body(asked)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": strict},
    }


def test_the_provider_pin_wins_over_extra() -> None:
    wire = OpenAIChatWire(provider_pin={"allow_fallbacks": False})

    body = wire.body(
        request(sampling=Sampling(extra={"provider": {"allow_fallbacks": True, "sort": "price"}}))
    )

    assert body["provider"] == {"allow_fallbacks": False, "sort": "price"}


def test_anthropic_takes_system_out_and_always_sends_max_tokens() -> None:
    body = ANTHROPIC.body(request(Message("system", "a"), Message("user", "hi"), sampling=Sampling(seed=1)))

    assert body == {
        "model": "m",
        "system": "a",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_anthropic_puts_parallel_tool_results_into_one_user_turn() -> None:
    calls = (ToolCall("c1", "f", '{"x":1}'), ToolCall("c2", "f", ""))

    body = ANTHROPIC.body(
        request(
            Message("user", "go"),
            Message("assistant", "ok", tool_calls=calls),
            Message("tool", "one", tool_call_id="c1"),
            Message("tool", "two", tool_call_id="c2"),
            Message("user", "thanks"),
        )
    )

    assert body["messages"] == [
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "ok"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "c2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "two"},
            ],
        },
        {"role": "user", "content": "thanks"},
    ]


def test_anthropic_translates_tools_and_schema() -> None:
    asked = Request(
        (Message("user", "hi"),),
        TEACHER,
        Sampling(extra={"output_config": {"effort": "low"}}),
        tools=WEATHER,
        response_schema='{"type":"object"}',
    )

    body = ANTHROPIC.body(asked)

    assert body["tools"] == [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}]
    assert body["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}},
    }


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "message",
    [
        {"content": "42", "reasoning_content": "six times seven"},
        {"content": "42", "reasoning": "six times seven"},
        {"content": "42", "reasoning": "six times seven", "reasoning_content": "six times seven"},
        {"content": "42", "reasoning_details": [{"type": "reasoning.text", "text": "six times seven"}]},
        {"content": "<think>\nsix times seven\n</think>\n\n42"},
        {"content": [{"type": "thinking", "thinking": "six times seven"}, {"type": "text", "text": "42"}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "six times seven"}]},
                {"type": "text", "text": "42"},
            ]
        },
    ],
    ids=["deepseek", "vllm", "both", "openrouter", "think", "blocks", "mistral"],
)
def test_openai_reasoning_is_found_wherever_it_stands(message: Mapping[str, object]) -> None:
    answer = completion(OPENAI.read(chat(message)))

    assert (answer.text, answer.reasoning) == ("42", "six times seven")


def test_an_unclosed_think_block_is_all_reasoning() -> None:
    answer = completion(OPENAI.read(chat({"content": "<think>still going"}, "length")))

    assert (answer.text, answer.reasoning, answer.finish_reason) == ("", "still going", "length")


def test_a_think_tag_inside_the_text_stays() -> None:
    answer = completion(OPENAI.read(chat({"content": "Use <think> tags </think>."})))

    assert (answer.text, answer.reasoning) == ("Use <think> tags </think>.", None)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("something_new", "unknown"),
        (None, "unknown"),
    ],
)
def test_openai_finish_reasons(sent: str | None, read: str) -> None:
    assert completion(OPENAI.read(chat({"content": "x"}, sent))).finish_reason == read


@pytest.mark.parametrize("reason", ["abort", "error", "insufficient_system_resource"])
def test_an_answer_the_server_broke_off_is_retried_as_paid(reason: str) -> None:
    outcome = OPENAI.read(chat({"content": "half"}, reason))

    assert isinstance(outcome, Retry)
    assert outcome.maybe_paid
    assert outcome.body


def test_a_refusal_is_an_answer_flagged_as_refusal() -> None:
    answer = completion(OPENAI.read(chat({"content": None, "refusal": "I cannot."})))

    assert (answer.text, answer.finish_reason) == ("I cannot.", "refusal")


def test_empty_content_is_kept_as_an_answer() -> None:
    answer = completion(OPENAI.read(chat({"content": None, "reasoning": "long thoughts"}, "length")))

    assert (answer.text, answer.reasoning, answer.finish_reason) == ("", "long thoughts", "length")


def test_openai_usage_counts_cached_and_reasoning_tokens() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }

    assert completion(OPENAI.read(chat({"content": "x"}, usage=usage))).usage == Usage(10, 4, 7, 3)


def test_missing_usage_is_none_and_not_zero() -> None:
    assert completion(OPENAI.read(chat({"content": "x"}))).usage is None


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"total_tokens": 40},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": 30},
        {"prompt_tokens": 10, "completion_tokens": 0},
        {"prompt_tokens": 10},
    ],
)
def test_usage_that_counts_no_tokens_of_a_text_is_none_and_not_free(usage: object) -> None:
    assert completion(OPENAI.read(chat({"content": "x"}, usage=usage))).usage is None


@pytest.mark.parametrize(
    "usage",
    [{"input_tokens": 0, "output_tokens": 0}, {"input_tokens": 5}, {"output_tokens": 9}],
)
def test_anthropic_usage_that_counts_no_tokens_of_a_text_is_none(usage: object) -> None:
    assert completion(ANTHROPIC.read(claude({"type": "text", "text": "x"}, usage=usage))).usage is None


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "10", "completion_tokens": "30"},
        {"prompt_tokens": 10.0, "completion_tokens": 30.0},
        {"input_tokens": 10, "output_tokens": 30},
    ],
    ids=["texts", "floats", "names of Responses"],
)
def test_counts_are_read_however_they_are_spelt(usage: object) -> None:
    assert completion(OPENAI.read(chat({"content": "x"}, usage=usage))).usage == Usage(10, 0, 30)


def test_an_empty_answer_of_no_tokens_keeps_its_usage() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 0}

    assert completion(OPENAI.read(chat({"content": ""}, usage=usage))).usage == Usage(10)


def test_openrouter_names_its_upstream() -> None:
    assert completion(OPENAI.read(chat({"content": "x"}, provider="DeepInfra"))).upstream == "DeepInfra"


@pytest.mark.parametrize("arguments", ['{"city":"Bonn"}', {"city": "Bonn"}], ids=["text", "object"])
def test_openai_tool_call_arguments_are_json_text(arguments: object) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}

    answer = completion(OPENAI.read(chat({"content": None, "tool_calls": [call]}, "tool_calls")))

    assert answer.tool_calls == (ToolCall("c1", "weather", '{"city":"Bonn"}'),)


def test_a_lone_surrogate_does_not_lose_a_paid_answer() -> None:
    body = b'{"choices":[{"message":{"content":"cut \\ud83d"},"finish_reason":"length"}]}'

    assert completion(OPENAI.read(reply(body))).text == "cut ?"


def test_bytes_that_are_no_utf8_do_not_lose_a_paid_answer() -> None:
    body = b'{"choices":[{"message":{"content":"cut \xf0\x9f\x98"},"finish_reason":"length"}]}'

    assert completion(OPENAI.read(reply(body))).text == "cut \ufffd"


@pytest.mark.parametrize(
    "content",
    [["Look", "ing."], {"type": "text", "text": "Looking."}, ["Look", {"type": "text", "text": "ing."}]],
    ids=["texts", "lone block", "both"],
)
def test_content_in_odd_shapes_does_not_lose_a_paid_answer(content: object) -> None:
    assert completion(OPENAI.read(chat({"content": content}))).text == "Looking."


def test_a_number_that_is_none_does_not_lose_a_paid_answer() -> None:
    body = b'{"choices":[{"message":{"content":"x"},"logprobs":{"top":NaN},"finish_reason":"stop"}]}'

    assert completion(OPENAI.read(reply(body))).text == "x"


def test_anthropic_blocks_become_text_reasoning_and_tool_calls() -> None:
    outcome = ANTHROPIC.read(
        claude(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "Look"},
            {"type": "text", "text": "ing."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bonn"}},
            stop="tool_use",
        )
    )

    answer = completion(outcome)
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("Looking.", "hm", "tool_calls")
    assert answer.tool_calls == (ToolCall("t1", "weather", '{"city":"Bonn"}'),)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "refusal"),
        ("something_new", "unknown"),
    ],
)
def test_anthropic_stop_reasons(sent: str, read: str) -> None:
    assert completion(ANTHROPIC.read(claude({"type": "text", "text": "x"}, stop=sent))).finish_reason == read


def test_anthropic_input_counts_cache_reads_and_writes() -> None:
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 20,
        "cache_creation_input_tokens": 100,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }

    assert completion(ANTHROPIC.read(claude(usage=usage))).usage == Usage(125, 20, 9, 4)


# ---------------------------------------------------------------- the taxonomy


def error(message: str = "no", **fields: object) -> dict[str, object]:
    return {"error": {"message": message, **fields}}


TAXONOMY: list[tuple[str, HttpReply, str, str]] = [
    ("bad parameter", reply(error(type="invalid_request_error"), 400), "RowFailure", "invalid"),
    ("context code", reply(error(code="context_length_exceeded"), 400), "RowFailure", "context"),
    ("context vllm", reply(error("This model's maximum context length is 8"), 400), "RowFailure", "context"),
    ("context claude", reply(error("prompt is too long: 9 > 8"), 400), "RowFailure", "context"),
    ("balance", reply(error("Your credit balance is too low"), 400), "LaneStop", "quota"),
    ("policy", reply(error(code="content_policy_violation"), 400), "RowFailure", "policy"),
    ("policy azure", reply(error(code="content_filter"), 400), "RowFailure", "policy"),
    ("policy router", reply(error(metadata={"flagged_input": "x"}), 403), "RowFailure", "policy"),
    ("key", reply(error(code="invalid_api_key"), 401), "LaneStop", "auth"),
    ("billing", reply(error(type="billing_error"), 402), "LaneStop", "quota"),
    ("region", reply(error(), 403), "LaneStop", "auth"),
    ("model", reply(error(code="model_not_found"), 404), "LaneStop", "model"),
    ("model as 400", reply(error(code="model_not_found"), 400), "LaneStop", "model"),
    ("path", reply(b"404 page not found", 404), "LaneStop", "model"),
    ("timeout", reply(error(), 408), "Retry", "busy"),
    ("lock", reply(error(), 409), "Retry", "busy"),
    ("early", reply(error(), 425), "Retry", "busy"),
    ("bedrock model", reply({"message": "try again"}, 424), "Retry", "busy"),
    (
        "bedrock quota",
        reply({"message": "quota"}, 400, x_amzn_errortype="ServiceQuotaExceededException:http://x/"),
        "Gate",
        "rate_limit",
    ),
    (
        "bedrock input",
        reply({"message": "no"}, 400, x_amzn_errortype="ValidationException:http://x/"),
        "RowFailure",
        "invalid",
    ),
    ("bedrock login", reply({"message": "token expired"}, 403), "LaneStop", "auth"),
    (
        "google rate",
        reply([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], 429),
        "Gate",
        "rate_limit",
    ),
    ("size", reply(error(type="request_too_large"), 413), "RowFailure", "too_large"),
    ("fastapi", reply({"detail": [{"loc": ["body"], "msg": "bad role"}]}, 422), "RowFailure", "invalid"),
    ("rate", reply(error(code="rate_limit_exceeded"), 429), "Gate", "rate_limit"),
    ("rate claude", reply(error(type="rate_limit_error"), 429), "Gate", "rate_limit"),
    ("rate text", reply(b"slow down", 429), "Gate", "rate_limit"),
    ("quota", reply(error(code="insufficient_quota"), 429), "LaneStop", "quota"),
    ("hard limit", reply(error(code="billing_hard_limit_reached"), 429), "LaneStop", "quota"),
    ("spend", reply(error(details={"error_code": "enforced_spend_limit_reached"}), 429), "LaneStop", "quota"),
    ("ramp", reply(error(details={"error_code": "ramp_limit_exceeded"}), 429), "Gate", "ramp"),
    ("flex", reply(error(code="resource_unavailable"), 429), "Gate", "flex"),
    ("500", reply(error(), 500), "Retry", "server_error"),
    ("502 html", reply(b"<html><title>502</title>", 502), "Retry", "server_error"),
    ("504", reply(error(), 504), "Retry", "server_error"),
    ("503", reply(error(), 503), "Gate", "overloaded"),
    ("529", reply(error(type="overloaded_error"), 529), "Gate", "overloaded"),
    ("200 overloaded", reply({"type": "error", **error(type="overloaded_error")}), "Gate", "overloaded"),
    ("200 with code 429", reply(error(code=429)), "Gate", "rate_limit"),
    ("200 with code 402", reply(error(code=402)), "LaneStop", "quota"),
    ("200 with code 502", reply(error(code="502")), "Retry", "server_error"),
    ("200 vllm error", reply({"object": "error", "message": "x", "code": 400}), "RowFailure", "invalid"),
    ("200 unknown", reply(error("odd")), "Retry", "server_error"),
    ("200 html", reply(b"<html>login</html>"), "Retry", "server_error"),
    ("200 truncated", reply(b'{"id": "r", "choi'), "Retry", "bad_body"),
    ("200 nothing", reply(b""), "Retry", "bad_body"),
    ("200 empty", reply({"choices": [], "content": None}), "Retry", "bad_body"),
    ("redirect", reply(b"", 308, location="https://x/v1"), "LaneStop", "endpoint"),
    ("no such status", reply(b"", 799), "Retry", "server_error"),
]


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
@pytest.mark.parametrize(
    ("sent", "kind", "reason"), [row[1:] for row in TAXONOMY], ids=[row[0] for row in TAXONOMY]
)
def test_a_refusal_is_what_the_taxonomy_says(wire: Wire, sent: HttpReply, kind: str, reason: str) -> None:
    outcome = wire.read(sent)

    assert not isinstance(outcome, Answer)
    assert (type(outcome).__name__, outcome.reason) == (kind, reason)


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (reply(b"<html><title>Log in</title>"), "HTTP 200: HTML page 'Log in'"),
        (reply(b"\xef\xbb\xbf<HTML><title>Log in</title>"), "HTTP 200: HTML page 'Log in'"),
        (
            reply(b"<!-- by proxy --><head><title>Log in</title>", content_type="text/html; charset=x"),
            "HTTP 200: HTML page 'Log in'",
        ),
        (
            reply(b'data: {"text": "private"}', content_type="text/event-stream; x"),
            "no JSON object but text/event-stream",
        ),
        (reply(b'{"id": "priv', content_type="application/json"), "the body is no JSON object"),
    ],
    ids=["page", "page with a mark", "page by its type", "stream", "cut"],
)
def test_a_body_that_is_no_object_is_named_by_its_kind(wire: Wire, sent: HttpReply, said: str) -> None:
    outcome = wire.read(sent)

    assert isinstance(outcome, Retry)
    assert outcome.message.endswith(said)
    assert "priv" not in outcome.message


@pytest.mark.parametrize(
    ("sent", "maybe_paid"),
    [
        (reply(error(), 500), False),
        (reply(error(), 504), True),
        (reply(error("odd")), True),
        (reply(b"{"), True),
        (reply(b"data: {}", content_type="text/event-stream"), True),
        (reply(b"\n<!DOCTYPE html><html>login"), False),
    ],
    ids=["500", "504", "error in a 200", "broken 200", "stream", "page"],
)
def test_retries_say_whether_they_may_have_been_paid(sent: HttpReply, maybe_paid: bool) -> None:
    outcome = OPENAI.read(sent)

    assert isinstance(outcome, Retry)
    assert outcome.maybe_paid is maybe_paid


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (reply(error("used up", code="insufficient_quota")), "HTTP 200 with an error: used up"),
        (reply(error("odd")), "HTTP 200 with an error: odd"),
        (reply(error("odd", code=502)), "HTTP 200 with an error (502): odd"),
        (reply(error("odd"), 500), "HTTP 500: odd"),
    ],
)
def test_an_error_is_told_with_the_status_it_came_with(sent: HttpReply, said: str) -> None:
    outcome = OPENAI.read(sent)

    assert isinstance(outcome, Retry | LaneStop)
    assert outcome.message == said


@pytest.mark.parametrize(
    ("sent", "hints"),
    [
        (reply(b"404 page not found", 404), True),
        (reply({"detail": "Not Found"}, 404), True),  # FastAPI, and so vLLM
        (reply(error("no such model", code="model_not_found"), 404), False),
        (reply(error("The model `x` does not exist.", type="NotFoundError", code=404), 404), False),
    ],
    ids=["text", "detail", "openai", "vllm"],
)
def test_a_path_where_nothing_is_served_is_told_from_a_model_that_is_not_there(
    sent: HttpReply, hints: bool
) -> None:
    outcome = OPENAI.read(sent)

    assert isinstance(outcome, LaneStop)
    assert outcome.message.endswith("; is base_url right?") is hints


def test_an_error_inside_a_choice_counts() -> None:
    sent = reply({"choices": [{"message": {"content": "ha"}, "error": {"code": 502, "message": "upstream"}}]})

    outcome = OPENAI.read(sent)

    assert isinstance(outcome, Retry)
    assert outcome.maybe_paid


@pytest.mark.parametrize("status", [400, 401])
def test_the_vendors_message_is_kept_and_shortened_to_300_characters(status: int) -> None:
    outcome = OPENAI.read(reply(error("the vendor says " + "x" * 5000), status))

    assert isinstance(outcome, RowFailure | LaneStop)
    assert "the vendor says" in outcome.message
    assert len(outcome.message) <= 300


def test_a_routers_message_names_the_upstreams_error() -> None:
    outcome = OPENAI.read(reply(error("Provider returned error", metadata={"raw": "tools: bad type"}), 400))

    assert isinstance(outcome, RowFailure)
    assert "tools: bad type" in outcome.message


def test_a_gate_whose_headers_say_nothing_remains_is_exhausted() -> None:
    sent = reply(error(), 429, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="2s")

    assert OPENAI.read(sent) == Gate("rate_limit", 2.0, exhausted=True)


# ---------------------------------------------------------------- waits


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e9"}, 1e9),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        (
            {"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT", "date": "Tue, 14 Nov 2023 22:13:45 GMT"},
            5.0,
        ),
        ({"retry-after-ms": "150", "retry-after": "9"}, 0.15),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({}, None),
    ],
    ids=str,
)
def test_retry_after_in_every_spelling(headers: dict[str, str], seconds: float | None) -> None:
    assert read_wait(headers, NOW).seconds == seconds


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h0m2.5s", 3602.5),
        ("2m59.56s", 179.56),
        ("4", 4.0),
        ("2023-11-14T22:13:30Z", 10.0),
        ("2023-11-14T22:13:30", 10.0),
        ("1700000003", 3.0),
        ("1700000003000", 3.0),
        ("6m0", None),
        ("garbage", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("name", ["x-ratelimit-{}-tokens", "anthropic-ratelimit-input-tokens-{}"])
def test_resets_of_a_spent_limit_in_every_spelling(name: str, reset: str, seconds: float | None) -> None:
    headers = {name.format("remaining"): "0", name.format("reset"): reset}

    wait = read_wait(headers, NOW)

    assert wait.exhausted
    assert wait.seconds == (None if seconds is None else pytest.approx(seconds))


def test_a_limit_with_something_left_says_nothing() -> None:
    headers = {"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "60s"}

    assert read_wait(headers, NOW) == Wait(None, exhausted=False)


def test_azures_minus_one_is_not_exhausted() -> None:
    assert not read_wait({"x-ratelimit-remaining-tokens": "-1"}, NOW).exhausted


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_that_azure_does_not_keep_is_not_exhausted(limit: str) -> None:
    headers = {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "60",
    }

    assert read_wait(headers, NOW) == Wait(None, exhausted=False)


def test_the_longest_of_several_spent_limits_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "8s",
    }

    assert read_wait(headers, NOW).seconds == 8.0


# ---------------------------------------------------------------- never raises

FUZZ = settings(derandomize=True, deadline=None, max_examples=200)
STATUS = st.one_of(
    st.sampled_from([200, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503]), st.integers(-1, 999)
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "retry-after",
            "retry-after-ms",
            "date",
            "location",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ]
    ),
    st.one_of(st.text(max_size=30), st.just("0"), st.floats().map(str), st.datetimes().map(str)),
)
# Keys the wires look at, so that random values land where they are read.
NAME_TEXT = (
    "error code type message detail metadata raw flagged_input details error_code object choices finish_reason content "
    "reasoning reasoning_content reasoning_details refusal tool_calls function function_call arguments name id model "
    "provider usage prompt_tokens completion_tokens prompt_tokens_details cached_tokens input_tokens output_tokens "
    "stop_reason text thinking input summary"
)
NAMES = st.sampled_from(NAME_TEXT.split())
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["text", "thinking", "tool_use", "error", "<think>", "length"]),
)
JSONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=6)),
    max_leaves=30,
)


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
@FUZZ
@given(status=STATUS, headers=HEADERS, body=st.binary(max_size=200))
def test_read_never_raises_on_random_bytes(
    wire: Wire, status: int, headers: dict[str, str], body: bytes
) -> None:
    outcome = wire.read(HttpReply(status, headers, body))

    assert isinstance(outcome, Answer | Retry | Gate | RowFailure | LaneStop)


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
@FUZZ
@given(status=STATUS, headers=HEADERS, payload=st.dictionaries(NAMES, JSONS, max_size=8))
def test_read_never_raises_on_random_json(
    wire: Wire, status: int, headers: dict[str, str], payload: dict[str, object]
) -> None:
    outcome = wire.read(HttpReply(status, headers, json.dumps(payload).encode()))

    assert isinstance(outcome, Answer | Retry | Gate | RowFailure | LaneStop)


@FUZZ
@given(message=st.dictionaries(NAMES, JSONS, max_size=8))
def test_read_never_raises_on_random_openai_messages(message: dict[str, object]) -> None:
    payload = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": message}

    outcome = OPENAI.read(HttpReply(200, {}, json.dumps(payload).encode()))

    assert isinstance(outcome, Answer | Retry)


@FUZZ
@given(blocks=st.lists(st.dictionaries(NAMES, JSONS, max_size=8), max_size=3))
def test_read_never_raises_on_random_anthropic_blocks(blocks: list[dict[str, object]]) -> None:
    outcome = ANTHROPIC.read(HttpReply(200, {}, json.dumps({"content": blocks}).encode()))

    assert isinstance(outcome, Answer | Retry)


def test_read_never_raises_on_very_deep_json() -> None:
    assert isinstance(OPENAI.read(HttpReply(200, {}, b"[" * 100_000)), Retry)


# ---------------------------------------------------------------- limits in headers


def limit_headers(name: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {name.format("limit"): limit, name.format("remaining"): remaining, name.format("reset"): reset}


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        (
            limit_headers("x-ratelimit-{}-requests", "500", "499", "120ms"),
            [SeenLimit("requests", 500, 499, 60)],
        ),
        (
            limit_headers("x-ratelimit-{}-tokens", "200000", "150000", "15s"),
            [SeenLimit("tokens", 200_000, 150_000, 60)],
        ),
        (
            limit_headers("x-ratelimit-{}-requests", "14400", "14370", "2m59.56s"),
            [SeenLimit("requests", 14_400, 14_370, 86_400)],
        ),
        (limit_headers("x-ratelimit-{}-requests", "14400", "14399", "6s"), []),
        (
            limit_headers("x-ratelimit-{}-requests", "60", "20", "31s"),
            [SeenLimit("requests", 60, 20, 60)],
        ),
        (
            limit_headers("x-ratelimit-{}-tokens", "120000", "115000", "59.5s"),  # a window that slides
            [SeenLimit("tokens", 120_000, 115_000, 60)],
        ),
        (limit_headers("x-ratelimit-{}-tokens", "120000", "120000", "0s"), []),
        (
            limit_headers("anthropic-ratelimit-input-tokens-{}", "400000", "399000", "2026-01-01T00:00:01Z"),
            [SeenLimit("input_tokens", 400_000, 399_000, 60)],
        ),
        (
            limit_headers("anthropic-ratelimit-output-tokens-{}", "80000", "0", "garbage"),
            [SeenLimit("output_tokens", 80_000, 0, 60)],
        ),
        (
            limit_headers("x-ratelimit-{}-requests-day", "14400", "14399", "33011.4")
            | limit_headers("x-ratelimit-{}-tokens-minute", "60000", "59000", "11.3"),
            [SeenLimit("requests", 14_400, 14_399, 86_400), SeenLimit("tokens", 60_000, 59_000, 60)],
        ),
        (
            limit_headers("x-ratelimit-{}-tokens-per-day", "1000000", "999000", "1790000000"),
            [SeenLimit("tokens", 1_000_000, 999_000, 86_400)],
        ),
        ({"x-ratelimit-limit-tokens": "1000"}, [SeenLimit("tokens", 1000, None, 60)]),
        (limit_headers("x-ratelimit-{}-requests", "-1", "-1", ""), []),
        (limit_headers("x-ratelimit-{}-requests", "0", "0", ""), []),
        (limit_headers("x-ratelimit-{}-tokens", "1000", "-1", ""), [SeenLimit("tokens", 1000, None, 60)]),
        (limit_headers("x-ratelimit-{}-tokens", "many", "few", "soon"), []),
        ({"content-type": "application/json"}, []),
    ],
)
def test_limits_in_every_vendors_headers(headers: dict[str, str], seen: list[SeenLimit]) -> None:
    assert list(read_limits(headers, NOW)) == seen


def test_a_spent_limit_whose_name_has_its_window_names_the_wait() -> None:
    headers = limit_headers("x-ratelimit-{}-tokens-minute", "60000", "0", "11.5")

    assert read_wait(headers, NOW) == Wait(11.5, exhausted=True)


def test_limits_are_named_even_where_their_window_is_not_known() -> None:
    headers = limit_headers("x-ratelimit-{}-requests", "10000", "9999", "8.64s")
    azure = limit_headers("x-ratelimit-{}-tokens", "-1", "-1", "")

    assert named_limits(headers | azure | {"content-type": "application/json"}) == (
        "x-ratelimit-limit-requests: 10000, remaining 9999, reset 8.64s",
    )


@pytest.mark.parametrize("wire", [OPENAI, ANTHROPIC])
def test_a_429_tells_the_limits_it_names(wire: OpenAIChatWire | AnthropicMessagesWire) -> None:
    outcome = wire.read(
        reply(error(), 429, x_ratelimit_limit_requests="60", x_ratelimit_remaining_requests="0")
    )

    assert isinstance(outcome, Gate)
    assert outcome.limits == (SeenLimit("requests", 60, 0, 60),)
