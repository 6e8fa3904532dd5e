"""The vendors' own clients as a transport: for setups where only the SDK's plumbing works (clouds, odd TLS).

In: a path below the endpoint's base URL and a JSON body. Out: the same `HttpReply` and `TransportFailure` as the aiohttp
transport, for the same wire bodies. Guarantees: the SDK's retries are off, its parsing is not used, redirects
are not followed, and its environment cannot add a header: what is sent are the endpoint's. A reply is scrubbed of the
key, and of whatever credential its request really carried (AWS repeats the session token in the error about a wrong
signature).
The SDKs stand on httpx2 and are imported when a teacher asks for them; the client object they get is the one of
their own making (a legacy httpx one breaks every call), with a hook that stops reading at the cap. Rejected:
`chat.completions.create` (bad JSON escapes it as a bare `JSONDecodeError`, new fields are lost).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Protocol, cast

from synthgen.asking.outcome import HttpReply, TransportFailure
from synthgen.asking.transport.compressed import decompressed
from synthgen.asking.transport.endpoint import BODY_CAP_BYTES, Endpoint, too_large
from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue

if TYPE_CHECKING:
    import anthropic
    import httpx2
    import openai

__all__ = ["NO_KEY", "SdkTransport", "VendorSdk", "capped", "of_anthropic", "of_openai", "open_vendor"]

# The SDKs want a key at construction; the header is what is sent.
NO_KEY = "unset"
# The cap counts bytes as they arrive; a compressed body could unfold to any size behind it, so the SDK must not know of one.
_CODING = "synthgen.coding"
_PLAIN = {"Accept-Encoding": "identity"}
_CREDENTIALS = ("authorization", "api-key", "x-api-key", "x-amz-security-token")

Headers = Mapping[str, str]
Credential = Callable[[], Awaitable[Headers]]
Refused = Callable[[Exception], TransportFailure | None]


class Sdk(Protocol):
    """What all the vendors' clients have in common: they come from one generator."""

    async def post(
        self,
        path: str,
        *,
        cast_to: "type[httpx2.Response]",
        body: Mapping[str, JSONValue],
        options: Mapping[str, object],
    ) -> "httpx2.Response":
        """One request; the reply as it came."""
        ...

    async def close(self) -> None:
        """Release sockets."""
        ...


@dataclass(frozen=True, slots=True)
class VendorSdk:
    """A vendor's client and what is particular about it.

    `headers` are the endpoint's, and the SDK's own left out. `credential` brings such as change with time; `refused`
    tells whether an error is one of the credentials. `prefix` stands before a wire's path, `fixed` overwrites fields
    of its body.
    """

    client: Sdk
    status_error: "type[openai.APIStatusError] | type[anthropic.APIStatusError]"
    connection_error: "type[openai.APIConnectionError] | type[anthropic.APIConnectionError]"
    headers: Mapping[str, object]
    credential: Credential | None = None
    refused: Refused | None = None
    prefix: str = ""
    fixed: Mapping[str, JSONValue] = field(default_factory=dict)


class SdkTransport:
    """A vendor's client, by the endpoint's dialect where none is given."""

    def __init__(self, endpoint: Endpoint, sdk: VendorSdk | None = None):
        """Imports the SDK: a second now, instead of a stalled loop at the first request."""
        self._endpoint = endpoint
        self._sdk = sdk or open_vendor(endpoint)

    async def post(self, path: str, body: Mapping[str, JSONValue], *, timeout_s: float) -> HttpReply:
        """The whole reply, whatever its status; `timeout_s` covers the whole request.

        Raises:
            TransportFailure: no whole reply came back.
        """
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(path, body, timeout_s)
        except TimeoutError as error:
            raise TransportFailure("timeout", f"no reply after {timeout_s:g} s", maybe_paid=True) from error
        except TransportFailure as failure:
            said = self._endpoint.clean_text(str(failure))
            # The cause's text is not scrubbed.
            raise TransportFailure(failure.reason, said, maybe_paid=failure.maybe_paid) from None
        coding = str(response.extensions.get(_CODING, ""))
        content = decompressed(
            self._endpoint, response.status_code, coding, response.content, most_bytes=BODY_CAP_BYTES
        )
        sent = [response.request.headers.get(name, "").rpartition(" ")[2] for name in _CREDENTIALS]
        return self._endpoint.clean(response.status_code, response.headers, content, also=sent)

    async def _send(self, path: str, body: Mapping[str, JSONValue], timeout_s: float) -> "httpx2.Response":
        import httpx2

        sdk = self._sdk
        credential = await sdk.credential() if sdk.credential else {}
        try:
            return await sdk.client.post(
                sdk.prefix + path,
                cast_to=httpx2.Response,
                body={**body, **sdk.fixed},
                options={
                    "headers": {**sdk.headers, **credential},
                    "timeout": httpx2.Timeout(timeout_s, connect=self._endpoint.connect_timeout_s),
                    "follow_redirects": False,
                },
            )
        except sdk.status_error as error:
            return error.response
        except sdk.connection_error as error:
            raise _failure(error) from error
        except Exception as error:  # of the cloud's own library, which signs inside the SDK
            failure = sdk.refused(error) if sdk.refused else None
            if failure is None:
                raise
            raise failure from error

    async def close(self) -> None:
        """Release sockets."""
        await self._sdk.client.close()


def open_vendor(endpoint: Endpoint) -> VendorSdk:
    """`AsyncOpenAI` or `AsyncAnthropic` at the endpoint, with its headers."""
    if endpoint.dialect == "anthropic":
        import anthropic

        return of_anthropic(
            anthropic.AsyncAnthropic(
                api_key=endpoint.key or NO_KEY,
                base_url=endpoint.base_url,
                max_retries=0,
                open_telemetry=False,
                http_client=anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [capped]}),
            ),
            endpoint.headers(),
        )
    import openai

    return of_openai(
        openai.AsyncOpenAI(
            api_key=endpoint.key or NO_KEY,
            base_url=endpoint.base_url,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [capped]}),
        ),
        endpoint.headers(),
    )


def of_openai(
    client: "openai.AsyncOpenAI",
    headers: Headers,
    *,
    credential: Credential | None = None,
    refused: Refused | None = None,
    fixed: Mapping[str, JSONValue] | None = None,
) -> VendorSdk:
    """One of OpenAI's clients that sends these headers, and none of its own that says who asks."""
    import openai

    own = ("Authorization", "api-key", "OpenAI-Organization", "OpenAI-Project", *_from_environment("OPENAI"))
    return VendorSdk(
        cast(Sdk, client),
        openai.APIStatusError,
        openai.APIConnectionError,
        {**dict.fromkeys(own, openai.Omit()), **_PLAIN, **headers},
        credential,
        refused,
        fixed=fixed or {},
    )


def of_anthropic(
    client: "anthropic.AsyncAnthropic | anthropic.AsyncAnthropicBedrock | anthropic.AsyncAnthropicVertex",
    headers: Headers,
    *,
    credential: Credential | None = None,
    refused: Refused | None = None,
    prefix: str = "",
    fixed: Mapping[str, JSONValue] | None = None,
) -> VendorSdk:
    """One of Anthropic's clients, likewise."""
    import anthropic

    own = ("Authorization", *_from_environment("ANTHROPIC"))
    return VendorSdk(
        cast(Sdk, client),
        anthropic.APIStatusError,
        anthropic.APIConnectionError,
        {**dict.fromkeys(own, anthropic.Omit()), **_PLAIN, **headers},
        credential,
        refused,
        prefix,
        fixed or {},
    )


def _from_environment(vendor: str) -> list[str]:
    """Names of the headers that the SDK would take from its environment variable."""
    lines = os.environ.get(f"{vendor}_CUSTOM_HEADERS", "").split("\n")
    return [line.partition(":")[0].strip() for line in lines if ":" in line]


async def capped(response: "httpx2.Response") -> None:
    """Stop reading at the cap instead of filling the memory, whatever the status: the SDKs read whole bodies.

    A body that is compressed stays so.
    """
    import httpx2

    response.extensions[_CODING] = response.headers.pop("content-encoding", "")
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
