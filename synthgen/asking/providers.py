"""Teachers behind HTTP: what a recipe says of them, their credentials, and the wiring of wire and transport.

In: a `RemoteTeacherConfig` from the recipe, and environment variables it names. Out: a `RemoteTeacher`. Guarantees: a
recipe cannot hold a key (there is no field for one, and URLs with a user are refused); a missing key is found
before anything is sent; importing this module loads neither aiohttp nor an SDK.

A key named by `api_key_env` must exist. Without `api_key_env`, the vendor's variable is used at the vendor's own host
and must exist; any other `base_url` gets no credential: one vendor's key is never shown to another host unasked.
Rejected: guessing the dialect from the URL.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from synthgen.asking.outcome import HttpReply, LaneStop, Outcome, Retry, Transport, TransportFailure, Wire
from synthgen.asking.transport.endpoint import Dialect, Endpoint
from synthgen.asking.wire.anthropic_messages import AnthropicMessagesWire
from synthgen.asking.wire.openai_chat import OpenAIChatWire
from synthgen.dataclasses import dataclass
from synthgen.errors import MissingKeyError
from synthgen.plugins import Plugin
from synthgen.recipe.model import TeacherConfig
from synthgen.types import JSONValue, Request

__all__ = [
    "ANTHROPIC",
    "OPENAI",
    "SLOW_TOKENS_A_S",
    "VLLM",
    "AnthropicConfig",
    "BatchTeacherConfig",
    "Exchange",
    "OpenAIConfig",
    "RemoteTeacher",
    "RemoteTeacherConfig",
    "VllmConfig",
    "check_key",
    "connect",
    "credentials",
    "endpoint_of",
    "read_key",
    "samples_at_once",
    "wire_of",
]

_VERSION_SEGMENT = re.compile(r"v\d+\w*")
_HEADER_SAFE = re.compile(r"[!-~]+")
# What an attempt may take where the recipe does not say, and how slow a server may write before that is too short: a
# large model on one card, shared by many, still does as much.
_USUAL_TIMEOUT_S, SLOW_TOKENS_A_S = 900.0, 10.0
_ENDPOINT_PATHS = ("/chat/completions", "/messages")


class RemoteTeacherConfig(TeacherConfig):
    """A teacher behind HTTP. `base_url` may end with or without its version and slash.

    `base_urls` instead of it name several servers of the same model, a pool with a name; `base_url` is then the first
    of them. `limits` hold for each. What is asked goes to whichever can take it, and moving servers re-asks nothing.
    `timeout_s` is the time one attempt may take in all, by default 900 or a tenth of `max_tokens` if that is more; the
    lane's patience is `give_up_after_s`. `transport: auto` asks plain HTTP without a proxy directly, and everything else
    through aiohttp.
    """

    vendor_host: ClassVar[str | None] = None
    version_path: ClassVar[str] = "/v1"

    base_url: str = Field(validate_default=True)
    base_urls: tuple[str, ...] = ()
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    transport: Literal["auto", "aiohttp", "sdk"] = "auto"
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    connect_timeout_s: float = Field(default=10.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, values: object) -> object:
        """The first of `base_urls` stands for all wherever one is enough to know."""
        if not isinstance(values, dict) or "base_urls" not in values:
            return values
        urls = values["base_urls"]
        if "base_url" in values:
            raise ValueError("give base_url or base_urls, not both")
        if not isinstance(urls, list | tuple) or not urls:
            raise ValueError("base_urls is a list of at least one URL")
        return {**values, "base_url": urls[0]}

    @field_validator("base_url")
    @classmethod
    def _normal_url(cls, url: str) -> str:
        return cls._normal(url)

    @field_validator("base_urls")
    @classmethod
    def _normal_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(cls._normal, urls))

    @model_validator(mode="after")
    def _pool_is_one_teacher(self) -> Self:
        if not self.base_urls:
            return self
        if self.pool is None:
            raise ValueError(
                "base_urls needs `pool: NAME`: answers are kept under that name, whatever the hosts"
            )
        if len(set(self.base_urls)) < len(self.base_urls):
            raise ValueError("base_urls names a server twice")
        if len({host.at_vendor for host in self.each_host()}) > 1:
            raise ValueError(
                "base_urls mixes the vendor's own hosts with others: they are different teachers"
            )
        return self

    def patience_s(self, max_tokens: int | None = None) -> float:
        """`timeout_s`; without it a quarter of an hour, or as long as a slow server writes `max_tokens`."""
        return self.timeout_s or max(_USUAL_TIMEOUT_S, (max_tokens or 0) / SLOW_TOKENS_A_S)

    def each_host(self) -> tuple[Self, ...]:
        """This teacher once for each of its servers."""
        if not self.base_urls:
            return (self,)
        return tuple(self.model_copy(update={"base_url": url, "base_urls": ()}) for url in self.base_urls)

    @classmethod
    def _normal(cls, url: str) -> str:
        """Scheme and host in lower case, a version as last part, no slash behind it."""
        parts = urlsplit(url.strip())
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError("the port is no number in 0..65535") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an http:// or https:// URL, like http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("no user, query or fragment: name the credential's variable in api_key_env")
        path = parts.path.rstrip("/")
        for endpoint in _ENDPOINT_PATHS:
            path = path.removesuffix(endpoint)
        if cls.version_path and not any(_VERSION_SEGMENT.fullmatch(segment) for segment in path.split("/")):
            path += cls.version_path
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{path}"

    @property
    def host(self) -> str:
        """The host of `base_url`."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def at_vendor(self) -> bool:
        """True if `base_url` is the vendor's own host (or one of its regional ones)."""
        vendor = self.vendor_host
        return vendor is not None and (self.host == vendor or self.host.endswith(f".{vendor}"))

    @property
    def dialect(self) -> Dialect:
        """Which wire is spoken there."""
        return "openai"

    @property
    def key_variable(self) -> str | None:
        """The environment variable that holds the credential to send, None for no credential."""
        return self.api_key_env if self.at_vendor or "api_key_env" in self.model_fields_set else None


class BatchTeacherConfig(RemoteTeacherConfig):
    """A teacher whose vendor also answers in batches: half the price, within a day.

    `live` sends each request as it comes, `batch` collects them; `auto` is `batch` where the plan makes that worth
    while and nobody has to wait for an answer to ask on, else `live`. `price` is always that of live requests.
    """

    mode: Literal["live", "batch", "auto"] = "live"

    @model_validator(mode="after")
    def _has_batches(self) -> Self:
        if self.mode != "live" and not self.base_url.endswith("/v1"):
            raise ValueError(
                f"mode: {self.mode} needs a base_url that ends with /v1: the batch endpoints stand there"
            )
        if self.mode != "live" and len(self.base_urls) > 1:
            raise ValueError(f"mode: {self.mode} needs one server: a batch belongs to the one that has it")
        return self


class OpenAIConfig(BatchTeacherConfig):
    """OpenAI, or any server that speaks its chat completions; `upstream` pins hosts behind OpenRouter."""

    vendor_host = "api.openai.com"

    base_url: str = Field(default="https://api.openai.com/v1", validate_default=True)
    api_key_env: str | None = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    upstream: list[str] = Field(default=[])

    @property
    def at_openrouter(self) -> bool:
        """True for OpenRouter's host, whatever route is declared, and for a gateway declared as that route."""
        return self.route == "openrouter" or self.host == "openrouter.ai"

    def most_logprobs(self) -> int | None:
        """20 at the vendor's own host (API reference, `top_logprobs`); other servers have limits of their own."""
        return 20 if self.at_vendor else 1024

    def most_samples(self, *, seeded: bool) -> int:
        """Sixteen by default. With a seed one: what the second choice's seed is, nobody says."""
        return 1 if seeded else samples_at_once(self.samples_per_request)

    @model_validator(mode="after")
    def _upstream_has_a_router(self) -> "OpenAIConfig":
        if self.upstream and not self.at_openrouter:
            raise ValueError("upstream names hosts behind OpenRouter; it needs `route: openrouter`")
        if self.at_openrouter and self.mode != "live":
            raise ValueError("OpenRouter has no batch endpoints: `mode: live` is all it can")
        return self


class VllmConfig(RemoteTeacherConfig):
    """A vLLM server (or SGLang, llama.cpp: the same dialect), usually without a key."""

    base_url: str = Field(default="http://127.0.0.1:8000/v1", validate_default=True)

    def most_logprobs(self) -> int | None:
        """Whatever the server was started with (`--max-logprobs`, 20 by default)."""
        return 1024

    def most_samples(self, *, seeded: bool) -> int:
        """Sixteen by default, also with a seed: choice k is drawn with the seed plus k (`ParentRequest`, vLLM 0.6 on)."""
        return samples_at_once(self.samples_per_request)


class AnthropicConfig(BatchTeacherConfig):
    """Anthropic, or a server that speaks its Messages dialect."""

    vendor_host = "api.anthropic.com"

    base_url: str = Field(default="https://api.anthropic.com/v1", validate_default=True)
    api_key_env: str | None = Field(default="ANTHROPIC_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")

    @property
    def dialect(self) -> Dialect:
        """Messages."""
        return "anthropic"

    @property
    def speaks_messages(self) -> bool:
        """Always."""
        return True


def samples_at_once(setting: Literal["auto"] | int) -> int:
    """How many samples to ask for at once.

    With 16 the shared prompt costs a sixteenth; more saves little and makes every loss of a reply dearer.
    """
    return 16 if setting == "auto" else setting


@dataclass(frozen=True, slots=True)
class Exchange:
    """One attempt, as it came over the wire and as it was read; `reply` is None where no whole one came."""

    reply: HttpReply | None
    outcome: Outcome


class RemoteTeacher:
    """A wire over a transport: one attempt per call."""

    def __init__(self, wire: Wire, transport: Transport, *, patience_s: Callable[[int | None], float]):
        """`patience_s`: seconds that an answer of at most so many tokens is waited for."""
        self._wire = wire
        self._transport = transport
        self._patience_s = patience_s

    async def answer(self, request: Request, samples: int = 1) -> Outcome:
        """One attempt at `request` and the samples behind it. Never raises for anything a server can do."""
        try:
            body = self._wire.body(request, samples)
            timeout_s = self._patience_s(request.sampling.max_tokens)
            reply = await self._transport.post(self._wire.path, body, timeout_s=timeout_s)
        except TransportFailure as failure:
            return _no_reply(failure)
        return self._wire.read(reply, request)

    async def exchange(
        self,
        request: Request,
        samples: int = 1,
        *,
        added: Mapping[str, JSONValue],
        timeout_s: float | None = None,
    ) -> Exchange:
        """One attempt at `request` whose body also has the fields `added` (None takes one out), and its reply.

        Never raises either.
        """
        body = {**self._wire.body(request, samples), **added}
        if added:
            body = {name: value for name, value in body.items() if value is not None}
        if timeout_s is None:
            timeout_s = self._patience_s(request.sampling.max_tokens)
        try:
            reply = await self._transport.post(self._wire.path, body, timeout_s=timeout_s)
        except TransportFailure as failure:
            return Exchange(None, _no_reply(failure))
        return Exchange(reply, self._wire.read(reply, request))

    async def close(self) -> None:
        """Release sockets."""
        await self._transport.close()


def _no_reply(failure: TransportFailure) -> Outcome:
    if failure.reason == "auth":
        return LaneStop("auth", str(failure))
    return Retry(failure.reason, str(failure), maybe_paid=failure.maybe_paid, body=failure.body)


def check_key(config: TeacherConfig) -> None:
    """Make sure that the credential this teacher needs is there, before anything is sent.

    Raises:
        MissingKeyError: the variable is unset or empty, or its value cannot stand in a header.
    """
    if isinstance(config, RemoteTeacherConfig):
        read_key(config)


def credentials(config: TeacherConfig) -> list[str]:
    """The secret values this teacher uses, for whoever has to keep them out of a text."""
    if not isinstance(config, RemoteTeacherConfig) or not config.key_variable:
        return []
    key = os.environ.get(config.key_variable, "").strip()
    return [key] if key else []


def read_key(config: RemoteTeacherConfig) -> str | None:
    """The credential from its environment variable, None where the teacher has none.

    Raises:
        MissingKeyError: see `check_key`.
    """
    name = config.key_variable
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise MissingKeyError(f"environment variable {name} is not set: model {config.model!r} needs it")
    if not _HEADER_SAFE.fullmatch(key):
        raise MissingKeyError(f"environment variable {name} holds characters no key has (space, line break)")
    return key


def connect(config: RemoteTeacherConfig) -> RemoteTeacher:
    """The teacher of this config. Nothing is sent; sockets are opened at the first request.

    Raises:
        MissingKeyError: see `check_key`.
    """
    return RemoteTeacher(
        wire_of(config), _transport(config, endpoint_of(config)), patience_s=config.patience_s
    )


def endpoint_of(config: RemoteTeacherConfig) -> Endpoint:
    """Where this teacher is, with its credential.

    Raises:
        MissingKeyError: see `check_key`.
    """
    return Endpoint(config.base_url, config.dialect, read_key(config), config.connect_timeout_s)


def wire_of(config: RemoteTeacherConfig) -> Wire:
    """The dialect of this teacher."""
    if isinstance(config, AnthropicConfig):
        return AnthropicMessagesWire()
    if not isinstance(config, OpenAIConfig):
        return OpenAIChatWire(token_ids=True)
    pin: dict[str, JSONValue] | None = None
    if config.at_openrouter:
        pin = {"allow_fallbacks": False, "enforce_distillable_text": True}
        if config.upstream:
            pin["only"] = list(config.upstream)
    return OpenAIChatWire(
        max_tokens_field="max_completion_tokens" if config.at_vendor else "max_tokens", provider_pin=pin
    )


def _transport(config: RemoteTeacherConfig, endpoint: Endpoint) -> Transport:
    if config.transport == "sdk":
        from synthgen.asking.transport.sdk import SdkTransport

        return SdkTransport(endpoint)
    if config.transport == "auto":
        from synthgen.asking.transport.direct import DirectTransport, is_direct

        if is_direct(endpoint.base_url):
            return DirectTransport(endpoint)
    from synthgen.asking.transport.aiohttp_transport import AiohttpTransport

    return AiohttpTransport(endpoint)


OPENAI = Plugin("openai", params=OpenAIConfig, run=connect)
VLLM = Plugin("vllm", params=VllmConfig, run=connect)
ANTHROPIC = Plugin("anthropic", params=AnthropicConfig, run=connect)
