"""What can be learnt of an endpoint for nothing: is it there, which models does it list, what does it say of itself.

In: an `Endpoint`. Out: `Finding`s, and the replies to GET requests. httpx, since this is the control plane: a handful of
requests, none of them paid. Guarantees: nothing is sent that costs money; credentials go to the endpoint's own host only, redirects
are not followed, and what comes back is scrubbed of the key; a failure is a finding, never an exception.
DNS, TCP and TLS are tried one after the other, so that each can be told from the next; behind a proxy only the proxy
knows, and HTTP alone is tried.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from synthgen.asking.doctor.findings import Finding
from synthgen.asking.outcome import HttpReply, TransportFailure
from synthgen.asking.transport.endpoint import Endpoint, beside
from synthgen.asking.transport.proxy import proxy_for
from synthgen.asking.wire.loose import as_list, as_object, as_text, parse_object, shorten
from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue

__all__ = [
    "ControlPlane",
    "ModelList",
    "find_metrics",
    "find_required_limit",
    "find_token_count",
    "find_version",
    "find_version_header",
    "read_models",
]

TIMEOUT_S = 15.0
# A list of models or a page of metrics; nobody's is larger.
_PAGE_BYTES = 8 * 2**20
_METRIC = "vllm:num_requests_waiting"
_EVIDENCE_CHARS = 160


class ControlPlane:
    """GET requests below and beside a base URL. Use as an asynchronous context manager."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S):
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context()  # what the data plane trusts, not httpx's own list
        self._client = httpx.AsyncClient(
            headers={"User-Agent": "synthgen", "Accept-Encoding": "identity", **endpoint.headers()},
            timeout=httpx.Timeout(timeout_s, connect=endpoint.connect_timeout_s),
            verify=self._tls,
            follow_redirects=False,
            trust_env=False,
            proxy=proxy_for(endpoint.base_url),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def reach(self) -> tuple[Finding, HttpReply | None]:
        """DNS, TCP, TLS, HTTP, up to the first that fails; and the reply of `/models`, the first thing asked."""
        if proxy_for(self.endpoint.base_url) is None:
            try:
                await self._dial()
            except _Unreachable as failure:
                said = self.endpoint.clean_text(f"{failure.stage}: {failure}")
                return Finding("reachable", "no", shorten(said, _EVIDENCE_CHARS), failure.stage), None
        started = time.perf_counter()
        try:
            reply = await self.get("/models", params={"limit": "1000"} if self._is_anthropic else None)
        except TransportFailure as failure:
            return Finding("reachable", "no", shorten(f"HTTP: {failure}", _EVIDENCE_CHARS), "HTTP"), None
        waited_ms = (time.perf_counter() - started) * 1000
        return Finding("reachable", "yes", f"HTTP {reply.status} after {waited_ms:.0f} ms", "HTTP"), reply

    async def get(
        self, path: str, *, params: Mapping[str, str] | None = None, without: str | None = None
    ) -> HttpReply:
        """The reply to a GET of `path` below the base URL; a header may be left out.

        Raises:
            TransportFailure: no whole reply came back.
        """
        return await self._send("GET", self.endpoint.base_url + path, params=params, without=without)

    async def get_beside(self, path: str) -> HttpReply:
        """The reply to a GET of `path` on the same host, outside the versioned API, where servers have their own pages.

        Raises:
            TransportFailure: no whole reply came back.
        """
        return await self._send("GET", beside(self.endpoint.base_url, path))

    async def post(self, path: str, body: dict[str, JSONValue]) -> HttpReply:
        """The reply to a POST that costs nothing.

        Raises:
            TransportFailure: no whole reply came back.
        """
        return await self._send("POST", self.endpoint.base_url + path, body=body)

    @property
    def _is_anthropic(self) -> bool:
        return self.endpoint.dialect == "anthropic"

    async def _dial(self) -> None:
        parts = urlsplit(self.endpoint.base_url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.endpoint.connect_timeout_s):
                await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:  # TimeoutError is one
            raise _Unreachable("DNS", f"{host}: {_says(error)}") from error
        await self._connect("TCP", host, port, None)
        if parts.scheme == "https":
            await self._connect("TLS", host, port, self._tls)

    async def _connect(self, stage: str, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        try:
            async with asyncio.timeout(self.endpoint.connect_timeout_s):
                _, writer = await asyncio.open_connection(host, port, ssl=tls)
        except OSError as error:  # ssl.SSLError and TimeoutError are
            raise _Unreachable(stage, f"{host}:{port}: {_says(error)}") from error
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        body: dict[str, JSONValue] | None = None,
        without: str | None = None,
    ) -> HttpReply:
        request = self._client.build_request(method, url, params=params, json=body)
        if without is not None:
            request.headers.pop(without, None)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.send(request, stream=True)
                try:
                    raw = await _read_capped(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            said = self.endpoint.clean_text(str(error)) or type(error).__name__
            raise TransportFailure("connect", said, maybe_paid=False) from None  # the cause is not scrubbed
        return self.endpoint.clean(response.status_code, response.headers, raw)


class _Unreachable(Exception):
    def __init__(self, stage: str, said: str) -> None:
        super().__init__(said)
        self.stage = stage


def _says(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return getattr(error, "verify_message", "") or (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__


async def _read_capped(response: httpx.Response) -> bytes:
    chunks = []
    size_bytes = 0
    async for chunk in response.aiter_bytes():
        size_bytes += len(chunk)
        if size_bytes > _PAGE_BYTES:
            raise TransportFailure("body", f"a page above {_PAGE_BYTES >> 20} MiB", maybe_paid=False)
        chunks.append(chunk)
    return b"".join(chunks)


@dataclass(frozen=True, slots=True)
class ModelList:
    """Model id -> what the list says of it; None: the endpoint offers no list."""

    models: Mapping[str, dict[str, JSONValue]] | None
    why: str = ""


def read_models(reply: HttpReply) -> ModelList:
    """The reply of `/models`; both dialects keep them under `data`."""
    payload = parse_object(reply.body)
    listed = payload.get("data") if payload else None
    if reply.status != 200 or not isinstance(listed, list):
        return ModelList(None, f"GET /models: HTTP {reply.status}")
    found = (as_object(item) for item in as_list(listed))
    return ModelList({as_text(item.get("id")): item for item in found if item.get("id")})


# ---- quirks, one request each


async def find_version(control: ControlPlane) -> Finding:
    """vLLM's own version page."""
    reply = await _page(control, "/version")
    version = as_text(as_object(parse_object(reply.body)).get("version")) if reply else ""
    if reply is None or not version:
        return Finding("version", "unknown", "no /version page: not vLLM, or behind a proxy")
    return Finding("version", "yes", shorten(f"vLLM {version}", _EVIDENCE_CHARS), version)


async def find_metrics(control: ControlPlane) -> Finding:
    """Whether the queue length can be read, which tells a crowded server from a slow one."""
    reply = await _page(control, "/metrics")
    if reply is None:
        return Finding("metrics", "error", "/metrics: no reply")
    if reply.status != 200:
        return Finding("metrics", "no", f"/metrics: HTTP {reply.status}")
    if _METRIC.encode() not in reply.body:
        return Finding("metrics", "no", f"/metrics holds no {_METRIC}")
    return Finding("metrics", "yes", f"/metrics holds {_METRIC}")


async def find_required_limit(control: ControlPlane, model: str) -> Finding:
    """Whether `max_tokens` may be left out (synthgen always sends it).

    Asked with a conversation of no message, which nobody can answer: an answer without a limit has no upper price.
    """
    name = "max_tokens_required"
    try:
        reply = await control.post("/messages", {"model": model, "messages": []})
    except TransportFailure as failure:
        return Finding(name, "error", shorten(str(failure), _EVIDENCE_CHARS))
    if reply.status in (400, 422) and b"max_tokens" in reply.body:
        return Finding(name, "yes", f"HTTP {reply.status} names it where it is left out")
    return Finding(name, "unknown", f"HTTP {reply.status}, and nothing is said about it")


async def find_version_header(control: ControlPlane) -> Finding:
    """Whether requests without `anthropic-version` are refused (synthgen always sends it)."""
    name = "anthropic-version"
    try:
        reply = await control.get("/models", without=name)
    except TransportFailure as failure:
        return Finding("version_header", "error", shorten(str(failure), _EVIDENCE_CHARS))
    if reply.status == 400:
        return Finding("version_header", "yes", f"{name} is demanded: HTTP 400 without it")
    if reply.status == 200:
        return Finding("version_header", "no", f"{name} may be left out")
    return Finding("version_header", "unknown", f"HTTP {reply.status} without it")


async def find_token_count(control: ControlPlane, model: str) -> Finding:
    """Whether tokens can be counted for nothing beforehand."""
    body: dict[str, JSONValue] = {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}
    try:
        reply = await control.post("/messages/count_tokens", body)
    except TransportFailure as failure:
        return Finding("count_tokens", "error", shorten(str(failure), _EVIDENCE_CHARS))
    counted = as_object(parse_object(reply.body)).get("input_tokens")
    if reply.status == 200 and isinstance(counted, int):
        return Finding("count_tokens", "yes", f"{counted} tokens for a short question", counted)
    return Finding("count_tokens", "no", f"HTTP {reply.status}, no count")


async def _page(control: ControlPlane, path: str) -> HttpReply | None:
    try:
        return await control.get_beside(path)
    except TransportFailure:
        return None
