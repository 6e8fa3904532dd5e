"""The vendors' own clients as a transport: for setups where only the SDK's plumbing works (proxies, odd TLS).

In: a path below the endpoint's base URL and a JSON body. Out: the same `HttpReply` and `TransportFailure` as the aiohttp
transport, for the same wire bodies. Guarantees: the SDK's retries are off, its parsing is not used, redirects
are not followed, and its environment cannot add a credential: the headers are the endpoint's, on every request.
The SDKs stand on httpx2 and are imported when a teacher asks for them; the client object they get is the one of
their own making (a legacy httpx one breaks every call), with a hook that stops reading at the cap. Rejected: `chat.completions.create` (bad JSON escapes it as a bare
`JSONDecodeError`, new fields are lost).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from synthgen.asking.outcome import HttpReply, TransportFailure
from synthgen.asking.transport.endpoint import BODY_CAP_BYTES, Endpoint, too_large
from synthgen.types import JSONValue

if TYPE_CHECKING:
    import httpx2

__all__ = ["SdkTransport"]

# The SDKs want a key at construction; the header below is what is sent.
_NO_KEY = "unset"
# The cap counts bytes as they arrive; a compressed body could unfold to any size behind it.
_PLAIN = {"Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class _Client:
    """What the two SDKs have in common, with the differing exception classes."""

    send: "Callable[[str, dict[str, JSONValue], float], Awaitable[httpx2.Response]]"
    close: Callable[[], Awaitable[None]]


class SdkTransport:
    """`AsyncOpenAI` or `AsyncAnthropic`, by the endpoint's dialect."""

    def __init__(self, endpoint: Endpoint):
        """Imports the SDK: a second now, instead of a stalled loop at the first request."""
        self._endpoint = endpoint
        self._client = (_open_anthropic if endpoint.dialect == "anthropic" else _open_openai)(endpoint)

    async def post(self, path: str, body: Mapping[str, JSONValue], *, timeout_s: float) -> HttpReply:
        """The whole reply, whatever its status; `timeout_s` covers the whole request.

        Raises:
            TransportFailure: no whole reply came back.
        """
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._client.send(path, dict(body), timeout_s)
        except TimeoutError as error:
            raise TransportFailure("timeout", f"no reply after {timeout_s:g} s", maybe_paid=True) from error
        except TransportFailure as failure:
            said = self._endpoint.clean_text(str(failure))
            # The cause's text is not scrubbed.
            raise TransportFailure(failure.reason, said, maybe_paid=failure.maybe_paid) from None
        if len(response.content) > BODY_CAP_BYTES:  # a server that compresses all the same
            raise too_large()
        return self._endpoint.clean(response.status_code, response.headers, response.content)

    async def close(self) -> None:
        """Release sockets."""
        await self._client.close()


def _open_openai(endpoint: Endpoint) -> _Client:
    import httpx2
    import openai

    client = openai.AsyncOpenAI(
        api_key=endpoint.key or _NO_KEY,
        base_url=endpoint.base_url,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [_cap]}),
    )
    unset = openai.Omit()
    headers: dict[str, str | openai.Omit] = {
        "Authorization": unset,
        "OpenAI-Organization": unset,
        "OpenAI-Project": unset,
        **_PLAIN,
        **endpoint.headers(),
    }

    async def send(path: str, body: dict[str, JSONValue], timeout_s: float) -> httpx2.Response:
        timeout = httpx2.Timeout(timeout_s, connect=endpoint.connect_timeout_s)
        try:
            return await client.post(
                path,
                cast_to=httpx2.Response,
                body=body,
                options={"headers": headers, "timeout": timeout, "follow_redirects": False},
            )
        except openai.APIStatusError as error:
            return error.response
        except openai.APIConnectionError as error:
            raise _failure(error) from error

    return _Client(send, client.close)


def _open_anthropic(endpoint: Endpoint) -> _Client:
    import anthropic
    import httpx2

    client = anthropic.AsyncAnthropic(
        api_key=endpoint.key or _NO_KEY,
        base_url=endpoint.base_url,
        max_retries=0,
        open_telemetry=False,
        http_client=anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [_cap]}),
    )
    headers: dict[str, str | anthropic.Omit] = {
        "Authorization": anthropic.Omit(),
        **_PLAIN,
        **endpoint.headers(),
    }

    async def send(path: str, body: dict[str, JSONValue], timeout_s: float) -> httpx2.Response:
        timeout = httpx2.Timeout(timeout_s, connect=endpoint.connect_timeout_s)
        try:
            return await client.post(
                path,
                cast_to=httpx2.Response,
                body=body,
                options={"headers": headers, "timeout": timeout, "follow_redirects": False},
            )
        except anthropic.APIStatusError as error:
            return error.response
        except anthropic.APIConnectionError as error:
            raise _failure(error) from error

    return _Client(send, client.close)


async def _cap(response: "httpx2.Response") -> None:
    """Stop reading at the cap instead of filling the memory, whatever the status: the SDKs read whole bodies."""
    import httpx2

    stream = cast(httpx2.AsyncByteStream, response.stream)  # the client is an asynchronous one

    class Capped(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size_bytes = 0
            async for chunk in stream:
                size_bytes += len(chunk)
                if size_bytes > BODY_CAP_BYTES:
                    raise too_large()
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    response.stream = Capped()


def _failure(error: Exception) -> TransportFailure:
    """The cause decides: what broke before the request was out cannot be paid."""
    import httpx2

    cause = error.__cause__ or error
    said = f"{type(cause).__name__}: {cause}"
    match cause:
        case TransportFailure():
            return cause
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout() | httpx2.ProxyError():
            return TransportFailure("connect", said, maybe_paid=False)
        case httpx2.TimeoutException():
            return TransportFailure("timeout", said, maybe_paid=True)
        case httpx2.DecodingError():
            return TransportFailure("body", said, maybe_paid=True)
        case httpx2.RemoteProtocolError() if "body" in str(cause) or "chunked" in str(cause):
            return TransportFailure("body", said, maybe_paid=True)
        case _:
            return TransportFailure("reset", said, maybe_paid=True)
