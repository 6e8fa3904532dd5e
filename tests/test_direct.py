"""The direct transport: reading HTTP/1.1 replies, and what becomes of connections. `test_client.py` runs over it, too."""

import asyncio
import gzip
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.asking.outcome import TransportFailure
from synthgen.asking.transport import direct
from synthgen.asking.transport.direct import DirectTransport, is_direct
from synthgen.asking.transport.endpoint import Endpoint
from synthgen.asking.transport.http1 import Malformed, ReplyReader, TooLarge

CAP = 1000
SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2 \r\nlo\r\n0\r\nSum: 1\r\n\r\n"
)
ANNOUNCED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + SIZED
ZIPPED = gzip.compress(b"hello")
GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(ZIPPED), ZIPPED)


def read(raw: bytes, cuts: Sequence[int] = (), cap: int = CAP) -> tuple[bool, ReplyReader]:
    reader = ReplyReader(cap)
    whole = False
    edges = [0, *sorted({min(cut, len(raw)) for cut in cuts}), len(raw)]
    for start, end in pairwise(edges):
        whole = reader.feed(raw[start:end])
    return whole, reader


@pytest.mark.parametrize(
    "raw", [SIZED, CHUNKED, ANNOUNCED, GZIP], ids=["sized", "chunked", "announced", "gzip"]
)
@given(cuts=st.lists(st.integers(1, 120)))
def test_a_reply_is_the_same_however_it_is_cut(raw: bytes, cuts: list[int]) -> None:
    whole, reader = read(raw, cuts)

    assert (whole, reader.status, reader.body, reader.keep_alive) == (True, 200, b"hello", True)


@pytest.mark.parametrize("raw", [SIZED, CHUNKED], ids=["sized", "chunked"])
def test_a_reply_that_is_cut_short_is_never_whole(raw: bytes) -> None:
    for end in range(len(raw)):
        whole, reader = read(raw[:end])

        assert not whole
        assert not reader.end()


def test_a_reply_without_a_length_ends_with_its_connection() -> None:
    whole, reader = read(b"HTTP/1.1 200 OK\r\n\r\nhel")

    assert not whole
    assert not reader.feed(b"lo")
    assert reader.end()
    assert (reader.body, reader.keep_alive) == (b"hello", False)


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_the_connection_stays_where_the_server_lets_it(head: bytes, stays: bool) -> None:
    whole, reader = read(head + b"Content-Length: 0\r\n\r\n")

    assert (whole, reader.keep_alive) == (True, stays)


def test_bytes_behind_a_reply_end_the_use_of_its_connection() -> None:
    whole, reader = read(SIZED + b"x")

    assert (whole, reader.body, reader.keep_alive) == (True, b"hello", False)


def test_a_header_that_comes_twice_is_joined() -> None:
    _, reader = read(b"HTTP/1.1 204 No Content\r\nA: 1\r\na:2\r\n\r\n")

    assert reader.headers == {"a": "1, 2"}


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**17,
    ],
)
def test_what_is_no_reply_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        read(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3E9\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(gzip.compress(bytes(1001))), gzip.compress(bytes(1001))),
    ],
    ids=["sized", "chunked", "until the end", "gzip"],
)
def test_a_body_above_the_cap_is_refused_before_it_is_held(raw: bytes) -> None:
    with pytest.raises(TooLarge):
        read(raw)


def test_plain_http_without_a_proxy_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "near.example")

    assert is_direct("http://127.0.0.1:8000/v1")
    assert is_direct("http://near.example/v1")
    assert not is_direct("http://far.example/v1")
    assert not is_direct("https://near.example/v1")


class Server:
    """Answers with these bytes, one after another, hanging up after None; counts connections."""

    def __init__(self, *replies: bytes | None) -> None:
        self.replies = iter(replies)
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone: list[asyncio.Event] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            self.requests.append(head + await reader.readexactly(length))
            reply = next(self.replies)
            if reply is None:
                return
            writer.write(reply)

    async def posts(self, count: int) -> list[bytes | str]:
        """Bodies of so many replies, or why there is none."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        transport = DirectTransport(
            Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "openai")
        )
        results: list[bytes | str] = []
        async with server:
            for _ in range(count):
                try:
                    reply = await transport.post("/chat/completions", {"a": "é"}, timeout_s=5)
                    results.append(reply.body)
                except TransportFailure as failure:
                    results.append(failure.reason)
            await transport.close()
            for gone in self.gone:
                await gone.wait()
        return results

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = asyncio.Event()
        self.gone.append(gone)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self.serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()


async def test_requests_one_after_another_share_a_connection() -> None:
    server = Server(SIZED, CHUNKED, SIZED)

    assert await server.posts(3) == [b"hello"] * 3
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert server.requests[0].endswith(b'\r\nContent-Length: 10\r\n\r\n{"a":"\xc3\xa9"}')


async def test_a_connection_with_bytes_nobody_asked_for_is_not_used_again() -> None:
    server = Server(SIZED + SIZED.replace(b"hello", b"wrong"), SIZED)

    assert await server.posts(2) == [b"hello", b"hello"]
    assert server.connections == 2


async def test_a_broken_reply_ends_its_connection_and_nothing_else() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n", SIZED)

    assert await server.posts(2) == ["body", b"hello"]
    assert server.connections == 2


async def test_a_server_that_hangs_up_is_asked_on_a_new_connection() -> None:
    server = Server(SIZED, None, SIZED)

    assert await server.posts(3) == [b"hello", "reset", b"hello"]
    assert server.connections == 2


async def test_a_connection_that_waited_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "KEEPALIVE_S", 0.0)
    server = Server(SIZED, SIZED)

    assert await server.posts(2) == [b"hello", b"hello"]
    assert server.connections == 2
