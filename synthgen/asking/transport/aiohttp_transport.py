"""The transport for TLS and proxies: aiohttp and orjson, 10 to 22 times less CPU than the vendor SDKs for the same request.

In: a path below the endpoint's base URL and a JSON body. Out: `HttpReply`, or `TransportFailure` that says whether the
request may have been paid. Guarantees: no retries, no redirects (they would carry the key elsewhere), no cookies,
no queue (the lane is the limit), replies capped at 64 MiB, the key scrubbed.

Proxies: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured, loopback is never sent through one. `trust_env` stays
off since it would also read credentials from `~/.netrc`. Rejected: httpx (3 ms of CPU a request at 64 in flight).
"""

from collections.abc import Mapping

import aiohttp
import orjson

from synthgen.asking.outcome import HttpReply, TransportFailure
from synthgen.asking.transport.compressed import decompressed
from synthgen.asking.transport.endpoint import BODY_CAP_BYTES, Endpoint, too_large
from synthgen.asking.transport.proxy import proxy_for
from synthgen.types import JSONValue

__all__ = ["AiohttpTransport"]

# Below uvicorn's 5 s: a POST on a connection the server is just closing is lost, and perhaps paid.
KEEPALIVE_S = 4.0
DNS_CACHE_S = 300
# aiohttp's 64 KiB makes long answers ten times slower (vllm#39963).
READ_BUFFER_BYTES = 2**20


class AiohttpTransport:
    """Connections to one endpoint; opened in the running loop at the first request."""

    def __init__(self, endpoint: Endpoint):
        """Raises UsageError where the environment names a proxy that cannot be used."""
        self._endpoint = endpoint
        self._proxy = proxy_for(endpoint.base_url)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: Mapping[str, JSONValue], *, timeout_s: float) -> HttpReply:
        """The whole reply, whatever its status.

        `timeout_s` covers the whole request; the connect clock starts at the dial.

        Raises:
            TransportFailure: no whole reply came back.
        """
        session = self._session = self._session or self._open()
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=self._endpoint.connect_timeout_s)
        url = self._endpoint.base_url + path
        came: list[bytes] = []
        try:
            async with session.post(
                url, data=orjson.dumps(body), timeout=timeout, allow_redirects=False
            ) as response:
                headers = {name.lower(): text for name, text in response.headers.items()}
                coding = headers.get("content-encoding", "")
                keeps = response.status == 200 and coding in ("", "identity")
                raw = await _read_capped(response, came if keeps else [])
                raw = decompressed(self._endpoint, response.status, coding, raw, most_bytes=BODY_CAP_BYTES)
                return self._endpoint.clean(response.status, headers, raw)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            failure = self._failure(error)
            if came:
                failure.body = self._endpoint.clean(0, {}, b"".join(came)).body
            raise failure from None  # the cause's text is not scrubbed

    async def close(self) -> None:
        """Release sockets."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=DNS_CACHE_S, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "synthgen",
                **self._endpoint.headers(),
            },
            read_bufsize=READ_BUFFER_BYTES,
            trust_env=False,
            proxy=self._proxy,
        )

    def _failure(self, error: Exception) -> TransportFailure:
        said = self._endpoint.clean_text(str(error)) or type(error).__name__
        match error:
            case aiohttp.ClientHttpProxyError(status=status, message=message):
                # Its text would name the proxy's address, password included; nothing went past the proxy.
                return TransportFailure("connect", f"the proxy refused: {status} {message}", maybe_paid=False)
            case aiohttp.ClientProxyConnectionError():
                return TransportFailure("connect", f"the proxy of the environment: {said}", maybe_paid=False)
            case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError() | aiohttp.InvalidURL():
                return TransportFailure("connect", said, maybe_paid=False)
            case TimeoutError():
                return TransportFailure("timeout", said, maybe_paid=True)
            case aiohttp.ClientConnectionError() | ConnectionError():
                return TransportFailure("reset", said, maybe_paid=True)
            case _:
                return TransportFailure("body", said, maybe_paid=True)


async def _read_capped(response: aiohttp.ClientResponse, chunks: list[bytes]) -> bytes:
    """The body as it comes, also left in `chunks` as far as it came; stops at the cap instead of filling the memory."""
    size_bytes = 0
    async for chunk in response.content.iter_any():
        size_bytes += len(chunk)
        if size_bytes > BODY_CAP_BYTES:
            raise too_large()
        chunks.append(chunk)
    return b"".join(chunks)
