"""The transport for plain HTTP without a proxy, as self-hosted servers are asked: asyncio's sockets and httptools' parser.

In: a path below the endpoint's base URL and a JSON body. Out: `HttpReply`, or `TransportFailure` that says whether the
request may have been paid. Guarantees, the same as of the aiohttp transport: no retries, no redirects, no cookies, no
queue (the lane is the limit), replies capped at 64 MiB, the key scrubbed; a connection carries one request at a time,
and one that was not left clean is never used again.

Rejected: aiohttp here as well (100 of the 300 microseconds of CPU that a row costs); doing without aiohttp altogether
(TLS and proxies are what it is good at); a parser of our own (no faster than llhttp, and one more to keep right).
"""

import asyncio
import math
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import cast
from urllib.parse import quote, urlsplit

import orjson
from aiohappyeyeballs import AddrInfoType, start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from synthgen.asking.outcome import HttpReply, TransportFailure
from synthgen.asking.transport.compressed import decompressed
from synthgen.asking.transport.endpoint import BODY_CAP_BYTES, Endpoint, too_large
from synthgen.asking.transport.proxy import proxy_for
from synthgen.types import JSONValue

__all__ = ["DirectTransport", "is_direct"]

# Below uvicorn's 5 s: a POST on a connection the server is just closing is lost, and perhaps paid.
KEEPALIVE_S = 4.0
ADDRESSES_KEPT_S = 300.0
# RFC 8305, section 5.
NEXT_ADDRESS_AFTER_S = 0.25
# What may come without a byte of the body: a head, trailers, announcements.
HEAD_CAP_BYTES = 2**20


def is_direct(url: str) -> bool:
    """Whether this transport can ask there."""
    return url.startswith("http://") and url.isascii() and proxy_for(url) is None


class DirectTransport:
    """Connections to one endpoint; opened in the running loop as requests need them."""

    def __init__(self, endpoint: Endpoint):
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
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._heads: dict[str, bytes] = {}  # of requests to a path, up to the number that is their length
        self._idle: list[_Connection] = []
        self._overdue = _Deadlines()
        self._looking_up = asyncio.Lock()
        self._addresses: list[AddrInfoType] = []
        self._addresses_until = 0.0

    async def post(self, path: str, body: Mapping[str, JSONValue], *, timeout_s: float) -> HttpReply:
        """The whole reply, whatever its status.

        `timeout_s` covers the whole request; the dial has a shorter clock of its own.

        Raises:
            TransportFailure: no whole reply came back.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        content = orjson.dumps(body)
        head = self._heads.get(path) or self._head_of(path)
        connection = self._take() or await self._dial(min(timeout_s, self._endpoint.connect_timeout_s))
        self._overdue.watch(connection, deadline)
        try:
            reply = await connection.send(b"%b%d\r\n\r\n%b" % (head, len(content), content))
            connection.rest()
            raw = reply.body(self._endpoint)
        except TransportFailure as failure:
            connection.hang_up()
            said = self._endpoint.clean_text(str(failure))
            came = self._endpoint.clean(0, {}, failure.body).body if failure.body else None
            raise TransportFailure(failure.reason, said, maybe_paid=failure.maybe_paid, body=came) from None
        except BaseException:
            connection.hang_up()
            raise
        finally:
            self._overdue.forget(connection)
        if reply.leaves_clean:
            self._idle.append(connection)
        else:
            connection.hang_up()
        return self._endpoint.clean(reply.status, reply.headers, raw)

    def _head_of(self, path: str) -> bytes:
        head = f"POST {self._base_path}{path} HTTP/1.1\r\n{self._headers}Content-Length: ".encode()
        self._heads[path] = head
        return head

    async def close(self) -> None:
        """Release sockets."""
        for connection in self._idle:
            connection.hang_up()
        self._idle.clear()
        self._overdue.close()
        await asyncio.sleep(0)  # the loop closes them in its next turn

    def _take(self) -> "_Connection | None":
        """The connection used last. Where that one is too old, all are."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            connection.hang_up()
        return None

    async def _dial(self, patience_s: float) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience_s):
                addresses = await self._look_up()
                sock = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_AFTER_S)
                _, connection = await loop.create_connection(lambda: _Connection(loop), sock=sock)
        except TimeoutError:
            message = f"no connection to {self._host} within {patience_s:g} s"
            raise TransportFailure("connect", message, maybe_paid=False) from None
        except (OSError, UnicodeError) as error:
            self._addresses_until = 0.0  # it may have moved
            said = self._endpoint.clean_text(str(error)) or type(error).__name__
            said = f"{self._host}: {said}" if isinstance(error, socket.gaierror) else said
            raise TransportFailure("connect", said, maybe_paid=False) from None
        return connection

    async def _look_up(self) -> list[AddrInfoType]:
        """The addresses of the host, asked for once however many dial at a time."""
        loop = asyncio.get_running_loop()
        async with self._looking_up:
            if loop.time() >= self._addresses_until:
                self._addresses = list(
                    await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                )
                self._addresses_until = loop.time() + ADDRESSES_KEPT_S
            return self._addresses


class _Connection(asyncio.Protocol):
    """One socket: a request, its reply, then the next."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[_Reply] | None = None
        self._reply = _Reply()  # one after another
        self._used_at = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether everything asked was sent, nobody hung up, and the server can be expected to be still there."""
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
            and self._loop.time() - self._used_at < KEEPALIVE_S
        )

    def send(self, request: bytes) -> "asyncio.Future[_Reply]":
        """Send one request; to be awaited for its reply, which is there until the next one is sent. `rest` or `hang_up`
        must follow.

        Raises:
            TransportFailure: no whole reply came back.
        """
        if self._transport is None:
            raise TransportFailure("reset", "the server has closed the connection", maybe_paid=False)
        self._reply.begin()
        self._waiting = self._loop.create_future()
        self._transport.write(request)
        return self._waiting

    def rest(self) -> None:
        """The reply is there."""
        self._used_at = self._loop.time()
        self._waiting = None

    def hang_up(self) -> None:
        """Close at once; what has not come yet is not wanted."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.done() and not waiting.cancelled():
            waiting.exception()  # seen, also where the request was cancelled in the same turn
        self._reply.let_go()
        self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._waiting is None or self._waiting.done():
            self._close()  # nobody asked: whatever this is, it answers no request of ours
            return
        try:
            whole = self._reply.feed(data)
        except TransportFailure as failure:
            self._fail(failure)
            return
        if whole:
            self._waiting.set_result(self._reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._transport = None
        if self._waiting is None or self._waiting.done():
            return
        if exc is None and self._reply.ends_here:
            self._waiting.set_result(self._reply)
        elif self._reply.status:
            said = "the connection ended inside the reply"
            self._fail(TransportFailure("body", said, maybe_paid=True, body=self._reply.came()))
        else:
            self._fail(TransportFailure("reset", str(exc or "the server hung up"), maybe_paid=True))

    def time_out(self) -> None:
        """Wait no longer."""
        said = "no whole reply in time"
        self._fail(TransportFailure("timeout", said, maybe_paid=True, body=self._reply.came()))

    def _fail(self, failure: TransportFailure) -> None:
        self._close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(failure)


class _Deadlines:
    """Ends what takes too long. One timer for all: most deadlines are never reached, and a timer for each costs three
    microseconds a row."""

    def __init__(self) -> None:
        self._of: dict[_Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf

    def watch(self, connection: _Connection, deadline: float) -> None:
        """Time the connection out at `deadline` of the loop's clock, unless it is forgotten before."""
        self._of[connection] = deadline
        if deadline < self._next:
            self._set(deadline)

    def forget(self, connection: _Connection) -> None:
        """It needs no deadline any more."""
        del self._of[connection]

    def close(self) -> None:
        """Nothing is to be watched any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next = None, math.inf

    def _set(self, due: float) -> None:
        self.close()
        if due < math.inf:
            self._timer, self._next = asyncio.get_running_loop().call_at(due, self._look), due

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        self._next = math.inf
        late = [connection for connection, deadline in self._of.items() if deadline <= now]
        for connection in late:
            connection.time_out()
        rest = (deadline for deadline in self._of.values() if deadline > now)
        self._set(min(rest, default=math.inf))


class _Reply:
    """The latest reply of a connection, as httptools reads it; its methods named `on_` are what the parser calls."""

    def __init__(self) -> None:
        self.begin()
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # As forgiving as aiohttp: what such servers answer was paid for.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def begin(self) -> None:
        """The next one is to come; the one before was whole."""
        self.status = 0  # until the head has been read
        self.headers: dict[str, str] = {}
        self.leaves_clean = False
        self._whole = False
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._idle_bytes = 0

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; True once the reply is whole.

        Raises:
            TransportFailure: this is no HTTP/1 reply, or one above the cap.
        """
        before = self._size_bytes
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._whole:
                raise _unreadable(
                    str(error) if isinstance(error, HttpParserError) else "an upgrade"
                ) from None
            self.leaves_clean = False
        self._idle_bytes = 0 if self._size_bytes > before else self._idle_bytes + len(data)
        if self._size_bytes > BODY_CAP_BYTES:
            raise too_large()
        if not self._whole and self._idle_bytes > HEAD_CAP_BYTES:
            raise _unreadable("its head has no end")
        return self._whole

    def let_go(self) -> None:
        """Nothing more will be fed: the circle with the parser is broken, which nobody collects during a run."""
        self._parser = None

    @property
    def ends_here(self) -> bool:
        """Whether the end of the connection is the end of the reply: it named no other (RFC 9112, section 6.3)."""
        coding = self.headers.get("transfer-encoding", "").lower()
        return self.status > 0 and "content-length" not in self.headers and not coding.endswith("chunked")

    def came(self) -> bytes | None:
        """What has come so far of an answer; None where it is none, or compressed."""
        plain = self.headers.get("content-encoding", "identity").strip().lower() == "identity"
        return b"".join(self._pieces) or None if self.status == 200 and plain else None

    def body(self, endpoint: Endpoint) -> bytes:
        """The body as decoded. We ask for no compression; something in between may do it all the same.

        Raises:
            TransportFailure: it cannot be decoded, or is above the cap.
        """
        raw = b"".join(self._pieces)
        coding = self.headers.get("content-encoding")
        if coding is None:
            return raw
        return decompressed(endpoint, self.status, coding, raw, most_bytes=BODY_CAP_BYTES)

    def on_message_begin(self) -> None:
        """Of httptools. Behind a whole reply: nobody asked for more."""
        self.leaves_clean = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools; what comes twice is joined by a comma. Trailers are not ours to judge."""
        if self.status:
            return
        field, text = _field(name), value.decode("latin-1").strip()
        self.headers[field] = f"{self.headers[field]}, {text}" if field in self.headers else text

    def on_headers_complete(self) -> None:
        """Of httptools."""
        if not self._whole and self._parser is not None:
            self.status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        """Of httptools."""
        if not self._whole:
            self._pieces.append(piece)
            self._size_bytes += len(piece)

    def on_message_complete(self) -> None:
        """Of httptools; one with a status of 1xx announces the reply."""
        if self._whole:
            return
        if self.status < 200:
            self.status = 0
            self.headers.clear()
            return
        self._whole = True
        self.leaves_clean = self._parser is not None and self._parser.should_keep_alive()


@lru_cache(maxsize=256)  # a server's replies have the same names
def _field(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _unreadable(why: str) -> TransportFailure:
    return TransportFailure("body", f"no readable HTTP reply: {why}", maybe_paid=True)
