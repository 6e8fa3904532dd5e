"""The values that travel through a run: messages, requests, completions.

In: nothing but the standard library and orjson. Out: frozen dataclasses and `Request.key`.
Guarantee: two requests with the same key mean the same question to the same teacher, whatever the transport,
the alias in the recipe, the row order or the version of the package; `tests/test_keys.py` pins keys for good.
Rejected: hashing the wire body (it changes with the transport and with the vendor's dialect).
"""

from collections.abc import Mapping
from dataclasses import field
from hashlib import blake2b
from types import MappingProxyType
from typing import Literal

import orjson
from typing_extensions import TypeAliasType

from synthgen.dataclasses import dataclass, inner

__all__ = [
    "Completion",
    "FinishReason",
    "JSONValue",
    "Logprobs",
    "Message",
    "Request",
    "Role",
    "Sampling",
    "TeacherIdentity",
    "ToolCall",
    "Usage",
    "canonical_json",
    "digest",
]

JSONValue = TypeAliasType(
    "JSONValue", "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"
)
Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "refusal", "content_filter", "unknown"]

KEY_VERSION = 1
_EMPTY: Mapping[str, JSONValue] = MappingProxyType({})


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest(value: object) -> str:
    """blake2b-128 of the canonical JSON of `value`, 32 lower-case hex digits."""
    return blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def _size_bytes(text: str) -> int:
    """Length in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call a model asked for; `arguments` is a JSON string, as the model wrote it."""

    id: str
    name: str
    arguments: str

    def as_json(self) -> dict[str, JSONValue]:
        """The shape stored in the journal and hashed into keys."""
        return {"id": self.id, "name": self.name, "arguments": self.arguments}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `reasoning` is the visible chain of thought, where a teacher gives one."""

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def said(self) -> str:
        """All there is to read: the content, and below it the tool calls as JSON, one a line."""
        if not self.tool_calls:
            return self.content
        calls = (canonical_json({"name": call.name, "arguments": call.arguments}) for call in self.tool_calls)
        return "\n".join(filter(None, (self.content, *(call.decode() for call in calls))))

    def as_json(self) -> dict[str, JSONValue]:
        """`role` and `content` always; the rest only where set, so that plain chat hashes alike for ever."""
        out: dict[str, JSONValue] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            out["reasoning"] = self.reasoning
        if self.tool_calls:
            out["tool_calls"] = [call.as_json() for call in self.tool_calls]
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            out["name"] = self.name
        return out


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the teacher draws tokens. None means "the teacher's default" and is not sent.

    `seed` is the base seed; sample k of a request is sent with `seed + k`.
    `extra` holds fields only some servers know (vLLM: `chat_template_kwargs`, `min_tokens`, ...); they go to
    the top level of the wire body untouched.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    extra: Mapping[str, JSONValue] = field(default_factory=lambda: _EMPTY)
    hashed: bytes = field(init=False, compare=False, repr=False)
    _set: Mapping[str, JSONValue] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Written once: it is part of every request and every key of its step."""
        values = self._values()
        object.__setattr__(self, "_set", values)
        object.__setattr__(self, "hashed", canonical_json(values))

    def as_json(self) -> dict[str, JSONValue]:
        """Only what is set."""
        return dict(self._set)

    def _values(self) -> dict[str, JSONValue]:
        values: dict[str, JSONValue] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "max_tokens": self.max_tokens,
            "stop": list(self.stop) or None,
            "seed": self.seed,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "extra": dict(self.extra) or None,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class TeacherIdentity:
    """Who is asked, as far as the answer depends on it.

    `pool` is the base URL, or the name of a pool of servers that serve one model (then hosts may move without
    buying again). `revision` pins weights where the recipe names them (`hf: org/name@rev`).
    """

    provider: str
    route: str
    pool: str
    model: str
    revision: str | None = None
    hashed: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Written once: it is part of every key of this teacher."""
        object.__setattr__(self, "hashed", canonical_json(self.as_json()))

    def as_json(self) -> dict[str, JSONValue]:
        """The part of the key that names the teacher."""
        out: dict[str, JSONValue] = {
            "provider": self.provider,
            "route": self.route,
            "pool": self.pool,
            "model": self.model,
        }
        if self.revision is not None:
            out["revision"] = self.revision
        return out


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one teacher: the unit that is paid for, and the unit of the journal.

    `tools` and `response_schema` are JSON text, `tool_choice` is `auto`, `none`, `required` or a tool's name. `occurrence` tells apart questions that read alike but are
    meant twice: for a first step the running number among identical requests in source order, for a later
    step the key of the request it follows, for a judge nothing (same text, same score). `capture` names what the
    reply has to hold besides its text: `logprobs:K`, the K likeliest tokens of each position; `texts`, their texts rather
    than their ids, where a server gives one or the other.
    """

    messages: tuple[Message, ...]
    teacher: TeacherIdentity
    sampling: Sampling
    tools: str | None = None
    response_schema: str | None = None
    capture: tuple[str, ...] = ()
    sample: int = 0
    occurrence: str = ""
    tool_choice: str | None = None
    _key: str | None = field(init=False, default=None, compare=False, repr=False)

    def key(self) -> str:
        """Content key, 32 hex digits, of everything that changes the answer: the journal holds at most one answer per key."""
        if self._key is not None:
            return self._key
        content: dict[str, object] = {
            "v": KEY_VERSION,
            "messages": [message.as_json() for message in self.messages],
            "teacher": orjson.Fragment(self.teacher.hashed),
            "sampling": orjson.Fragment(self.sampling.hashed),
            "tools": self.tools,
            "response_schema": self.response_schema,
            "capture": self.capture,
            "sample": self.sample,
            "occurrence": self.occurrence,
        }
        if self.tool_choice is not None:  # absent from keys older than it
            content["tool_choice"] = self.tool_choice
        key = digest(content)
        object.__setattr__(self, "_key", key)
        return key

    @property
    def top_logprobs(self) -> int | None:
        """How many alternatives a token is captured with (`logprobs:5` in `capture`); None: no logprobs."""
        named = (name.partition(":") for name in self.capture)
        return next((int(count) for name, _, count in named if name == "logprobs"), None)

    def input_tokens_bound(self) -> int:
        """Upper bound on input tokens: a token is at least one byte; 16 a message for its frame."""
        size_bytes = 16 * len(self.messages)
        for text in (self.tools, self.response_schema):
            size_bytes += _size_bytes(text) if text else 0
        for message in self.messages:
            size_bytes += _size_bytes(message.content)
            if message.reasoning or message.name:
                size_bytes += _size_bytes(message.reasoning or "") + _size_bytes(message.name or "")
            for call in message.tool_calls:
                size_bytes += _size_bytes(call.id) + _size_bytes(call.name) + _size_bytes(call.arguments)
        return size_bytes


@inner(frozen=True, slots=True)
class Usage:
    """Tokens as the teacher counted them. `cached_input_tokens` is part of `input_tokens`;
    `reasoning_tokens` is part of `output_tokens`."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def as_json(self) -> dict[str, JSONValue]:
        """The shape stored in the journal."""
        return {
            "input_tokens": self.input_tokens,
            "cached_input_tokens": self.cached_input_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
        }


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural log-probabilities of a reply's tokens, in columns: one entry per token the teacher generated.

    The prompt is not covered. `tokens` are texts, None where the server gave only an id; `token_bytes` says what a
    text cannot: tokens that are part of a character. `top_*` list the likeliest tokens of a position, most likely
    first: at most as many as were asked for, the generated one where it was among them (vLLM: always).
    """

    tokens: tuple[str | None, ...]
    token_bytes: tuple[bytes | None, ...]
    ids: tuple[int | None, ...]
    logprobs: tuple[float, ...]
    top_tokens: tuple[tuple[str | None, ...], ...]
    top_ids: tuple[tuple[int | None, ...], ...]
    top_logprobs: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        columns = (
            self.token_bytes,
            self.ids,
            self.logprobs,
            self.top_tokens,
            self.top_ids,
            self.top_logprobs,
        )
        if any(len(column) != len(self.tokens) for column in columns):
            raise ValueError("the columns of logprobs differ in length")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def ids_complete(self) -> bool:
        """Whether every token and every alternative has its id: what training on them needs."""
        return None not in self.ids and not any(None in ids for ids in self.top_ids)


@inner(frozen=True, slots=True)
class Completion:
    """What a teacher answered, normalised over vendors.

    `served_model` is the name in the reply (None: the reply names none), `upstream` the host behind a router,
    `reply_id` the vendor's id of the reply. `usage` is None where the teacher reports none. `flags` say what is
    wrong with an answer that is kept all the same (`logprobs_missing`).
    """

    text: str
    finish_reason: FinishReason
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    served_model: str | None = None
    upstream: str | None = None
    reply_id: str | None = None
    logprobs: Logprobs | None = None
    flags: tuple[str, ...] = ()
