"""The transport for plain HTTP without a proxy, as self-hosted servers are asked: one socket, one request at a time.

In: a path below the endpoint's base URL and a JSON body. Out: `HttpReply`, or `TransportFailure` that says whether the
request may have been paid. Guarantees, the same as of the aiohttp transport: no retries, no redirects, no cookies, no
queue (the lane is the limit), replies capped at 64 MiB, the key scrubbed; a connection that was not left clean is
never used again.
Rejected: aiohttp here as well (100 of the 300 microseconds of CPU a row costs), and doing without it altogether (TLS,
proxies and several addresses of a host are what it is good at).
"""

import asyncio
from collections.abc import Mapping
from typing import cast
from urllib.parse import quote, urlsplit

import orjson

from synthgen.asking.outcome import HttpReply, TransportFailure
from synthgen.asking.transport.endpoint import BODY_CAP_BYTES, Endpoint, too_large
from synthgen.asking.transport.http1 import Malformed, ReplyReader, TooLarge
from synthgen.asking.transport.proxies import proxy_for
from synthgen.types import JSONValue

__all__ = ["DirectTransport", "is_direct"]

# Below uvicorn's 5 s: a POST on a connection the server is just closing is lost, and perhaps paid.
KEEPALIVE_S = 4.0


def is_direct(url: str) -> bool:
    """Whether this transport can ask there."""
    return url.startswith("http://") and url.isascii() and proxy_for(url) is None


class DirectTransport:
    """Connections to one endpoint; opened in the running loop as requests need them."""

    def __init__(self, endpoint: Endpoint) -> None:
        parts = urlsplit(endpoint.base_url)
        self._endpoint = endpoint
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._base_path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        headers = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "synthgen",
            **endpoint.headers(),
        }
        self._head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._idle: list[_Connection] = []

    async def post(self, path: str, body: Mapping[str, JSONValue], *, timeout_s: float) -> HttpReply:
        """The whole reply, whatever its status.

        `timeout_s` covers the whole request but the dial, which has a clock of its own.

        Raises:
            TransportFailure: no whole reply came back.
        """
        content = orjson.dumps(body)
        head = f"POST {self._base_path}{path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n"
        connection = self._take() or await self._dial()
        try:
            reader = await connection.exchange(head.encode() + content, timeout_s)
        except TransportFailure as failure:
            said = self._endpoint.clean_text(str(failure))
            raise TransportFailure(failure.reason, said, maybe_paid=failure.maybe_paid) from None
        if reader.keep_alive:
            self._idle.append(connection)
        else:
            connection.hang_up()
        return self._endpoint.clean(reader.status, reader.headers, reader.body)

    def _take(self) -> "_Connection | None":
        """The connection used last. Where that one is too old, all are."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fresh:
                return connection
            connection.hang_up()
        return None

    async def _dial(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._endpoint.connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop), self._host, self._port
                )
        except TimeoutError:
            message = f"no connection to {self._host} within {self._endpoint.connect_timeout_s:g} s"
            raise TransportFailure("connect", message, maybe_paid=False) from None
        except (OSError, UnicodeError) as error:
            said = self._endpoint.clean_text(str(error)) or type(error).__name__
            raise TransportFailure("connect", said, maybe_paid=False) from None
        return connection

    async def close(self) -> None:
        """Release sockets."""
        for connection in self._idle:
            connection.hang_up()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop closes them in its next turn


class _Connection(asyncio.Protocol):
    """One socket: a request, its reply, then the next."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[ReplyReader] | None = None
        self._reader = ReplyReader(BODY_CAP_BYTES)
        self._used_at = 0.0

    @property
    def is_fresh(self) -> bool:
        """Whether the server can be expected to be still there."""
        return self._transport is not None and self._loop.time() - self._used_at < KEEPALIVE_S

    async def exchange(self, request: bytes, timeout_s: float) -> ReplyReader:
        """Send one request and read its reply.

        Raises:
            TransportFailure: no whole reply came back; the connection is closed.
        """
        if self._transport is None:
            raise TransportFailure("reset", "the server has closed the connection", maybe_paid=False)
        self._reader = ReplyReader(BODY_CAP_BYTES)
        self._waiting = waiting = self._loop.create_future()
        late = TransportFailure("timeout", f"no whole reply within {timeout_s:g} s", maybe_paid=True)
        timer = self._loop.call_later(timeout_s, self._fail, late)
        try:
            self._transport.write(request)
            reader: ReplyReader = await waiting
        except asyncio.CancelledError:
            self.hang_up()
            raise
        finally:
            timer.cancel()
            self._used_at = self._loop.time()
            self._waiting = None
        return reader

    def hang_up(self) -> None:
        """Close at once; what has not come yet is not wanted."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._waiting is None or self._waiting.done():
            self.hang_up()  # nobody asked: whatever this is, it answers no request of ours
            return
        try:
            if self._reader.feed(data):
                self._waiting.set_result(self._reader)
        except TooLarge:
            self._fail(too_large())
        except Malformed as error:
            self._fail(TransportFailure("body", str(error), maybe_paid=True))

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._transport = None
        if self._waiting is None or self._waiting.done():
            return
        try:
            whole = exc is None and self._reader.end()
        except (Malformed, TooLarge) as error:
            self._fail(TransportFailure("body", str(error) or "too large", maybe_paid=True))
            return
        if whole:
            self._waiting.set_result(self._reader)
        elif self._reader.status:
            self._fail(TransportFailure("body", "the connection ended inside the reply", maybe_paid=True))
        else:
            self._fail(TransportFailure("reset", str(exc or "the server hung up"), maybe_paid=True))

    def _fail(self, failure: TransportFailure) -> None:
        self.hang_up()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(failure)
