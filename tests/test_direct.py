"""The direct transport: how replies may come, and what becomes of connections. `test_client.py` runs over it, too."""

import asyncio
import gzip
import socket
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.asking.outcome import TransportFailure
from synthgen.asking.transport import direct
from synthgen.asking.transport.direct import DirectTransport, is_direct
from synthgen.asking.transport.endpoint import Endpoint
from synthgen.asking.transport.proxy import proxy_for
from tests.runs import cli, recipe, save

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Type: a/b\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2 \r\nlo\r\n0\r\nSum: 1\r\n\r\n"
ANNOUNCED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + SIZED
ENDLESS = OK + b"\r\nhello"


def zipped(raw: bytes) -> bytes:
    packed = gzip.compress(raw, mtime=0)
    return OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)


class Pieces(tuple[bytes, ...]):
    """A reply sent piece by piece, each in a packet of its own."""


def cut(raw: bytes, cuts: Sequence[int]) -> Pieces:
    edges = [0, *sorted({min(place, len(raw)) for place in cuts}), len(raw)]
    return Pieces(raw[start:end] for start, end in pairwise(edges))


class Server:
    """Answers with these, one after another, hanging up after None; with `hang_up`, after each. Counts connections."""

    def __init__(
        self, *replies: bytes | Pieces | None, hang_up: bool = False, reads_bodies: bool = True
    ) -> None:
        self.replies = iter(replies)
        self.connections = 0
        self.requests: list[bytes] = []
        self.hang_up = hang_up
        self.reads_bodies = reads_bodies
        self.gone: list[asyncio.Event] = []

    async def posts(self, count: int, text: str = "é", timeout_s: float = 5) -> list[bytes | str]:
        """Bodies of so many replies, or why there is none."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        transport = DirectTransport(
            Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "openai")
        )
        results: list[bytes | str] = []
        async with server:
            for _ in range(count):
                try:
                    reply = await transport.post("/chat/completions", {"a": text}, timeout_s=timeout_s)
                    results.append(reply.body)
                except TransportFailure as failure:
                    results.append(failure.reason if failure.maybe_paid else "not sent")
            await transport.close()
            for gone in self.gone:
                await gone.wait()
        return results

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = asyncio.Event()
        self.gone.append(gone)
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._answer(reader, writer):
                pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if self.reads_bodies:
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            head += await reader.readexactly(length)
        self.requests.append(head)
        reply = next(self.replies)
        if reply is None:
            return False
        for piece in reply if isinstance(reply, Pieces) else (reply,):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if not self.reads_bodies:
            await reader.read()  # nothing is taken until the client gives up
        return not self.hang_up


@pytest.mark.parametrize(
    "raw",
    [SIZED, CHUNKED, ANNOUNCED, zipped(b"hello")],
    ids=["sized", "chunked", "announced", "gzip"],
)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 120), max_size=8))
async def test_a_reply_is_the_same_however_it_is_cut(raw: bytes, cuts: list[int]) -> None:
    server = Server(cut(raw, cuts), SIZED)

    assert await server.posts(2) == [b"hello", b"hello"]
    assert server.connections == 1


@pytest.mark.parametrize("raw", [SIZED, CHUNKED, zipped(b"hello")], ids=["sized", "chunked", "gzip"])
@settings(max_examples=15, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
async def test_a_reply_that_is_cut_short_is_never_an_answer(raw: bytes, share: float) -> None:
    server = Server(raw[: int(len(raw) * share)], hang_up=True)

    assert (await server.posts(1))[0] in ("reset", "body")


async def test_a_reply_without_a_length_ends_with_its_connection() -> None:
    server = Server(ENDLESS, ENDLESS, hang_up=True)

    assert await server.posts(2) == [b"hello", b"hello"]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("head", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: Upgrade, Keep-Alive\r\nUpgrade: h2c\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", 2),
        (b"HTTP/1.0 200 OK\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", 1),
    ],
)
async def test_the_connection_stays_where_the_server_lets_it(head: bytes, connections: int) -> None:
    server = Server(head + b"Content-Length: 0\r\n\r\n", SIZED)

    assert await server.posts(2) == [b"", b"hello"]
    assert server.connections == connections


async def test_a_header_that_comes_twice_is_joined() -> None:
    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 204 No Content\r\nA: 1\r\na:2\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(twice, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = DirectTransport(Endpoint(f"http://127.0.0.1:{port}", "openai"))
        reply = await transport.post("/", {}, timeout_s=5)
        await transport.close()

    assert (reply.status, reply.headers) == (204, {"a": "1, 2"})


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 101 Other\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        zipped(b"hello").replace(b": 25", b": 26") + b"x",
        OK + b"X: " + b"x" * 2**21,
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 2**21,
    ],
    ids=str,
)
async def test_what_is_no_reply_fails_and_ends_its_connection(raw: bytes) -> None:
    server = Server(raw, SIZED)

    assert await server.posts(2) == ["body", b"hello"]
    assert server.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 1001\r\n\r\n" + bytes(1001),
        OK + b"Transfer-Encoding: chunked\r\n\r\n3E9\r\n" + bytes(1001),
        OK + b"\r\n" + bytes(1001),
        zipped(bytes(1001)),
    ],
    ids=["sized", "chunked", "until the end", "gzip"],
)
async def test_a_body_above_the_cap_is_refused(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "BODY_CAP_BYTES", 1000)
    server = Server(raw, SIZED)

    assert await server.posts(2) == ["body", b"hello"]
    assert server.connections == 2


def test_plain_http_without_a_proxy_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "near.example")

    assert is_direct("http://127.0.0.1:8000/v1")
    assert is_direct("http://near.example/v1")
    assert not is_direct("http://far.example/v1")
    assert not is_direct("https://near.example/v1")


def test_a_proxy_named_without_its_scheme_is_an_http_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", "")

    assert proxy_for("http://far.example/v1") == "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://user:secret@127.0.0.1:1080", "HTTP_PROXY: it names a socks5 proxy, and only HTTP proxies"),
        ("::::", "HTTP_PROXY: its value is no proxy's address; write http://HOST:PORT"),
        ("http://127.0.0.1:port", "HTTP_PROXY: its value is no proxy's address"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_before_anything_is_sent(
    value: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("http_proxy", value)
    monkeypatch.setenv("no_proxy", "")
    far = SimpleNamespace(url="http://far.example/v1")

    result = cli("generate", save(tmp_path / "r.yaml", recipe(far)), "--out", tmp_path / "run")

    assert result.code == 2
    assert said in result.err
    assert "secret" not in result.err


async def test_requests_one_after_another_share_a_connection() -> None:
    server = Server(SIZED, CHUNKED, SIZED)

    assert await server.posts(3) == [b"hello"] * 3
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert server.requests[0].endswith(b'\r\nContent-Length: 10\r\n\r\n{"a":"\xc3\xa9"}')


async def test_one_connection_brings_replies_of_every_kind() -> None:
    replies = [CHUNKED, CHUNKED, ANNOUNCED, zipped(b"hello"), SIZED]
    server = Server(*replies)

    assert await server.posts(len(replies)) == [b"hello"] * len(replies)
    assert server.connections == 1


@pytest.mark.parametrize("more", [SIZED.replace(b"hello", b"wrong"), b"x", b"H"])
async def test_a_connection_with_bytes_nobody_asked_for_is_not_used_again(more: bytes) -> None:
    server = Server(SIZED + more, SIZED)

    assert await server.posts(2) == [b"hello", b"hello"]
    assert server.connections == 2


async def test_a_server_that_answers_before_it_has_read_all_is_asked_on_a_new_connection() -> None:
    server = Server(SIZED, SIZED, reads_bodies=False)

    assert await server.posts(2, text="x" * 2**24) == [b"hello", b"hello"]
    assert server.connections == 2


async def test_a_server_that_hangs_up_is_asked_on_a_new_connection() -> None:
    server = Server(SIZED, None, SIZED)

    assert await server.posts(3) == [b"hello", "reset", b"hello"]
    assert server.connections == 2


async def test_a_late_reply_answers_no_other_request() -> None:
    server = Server(b"", SIZED)

    assert await server.posts(1, timeout_s=0.01) == ["timeout"]
    assert await server.posts(1) == [b"hello"]


async def test_a_connection_that_waited_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "KEEPALIVE_S", 0.0)
    server = Server(SIZED, SIZED)

    assert await server.posts(2) == [b"hello", b"hello"]
    assert server.connections == 2


async def test_a_name_is_looked_up_once_however_many_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    asked: list[str] = []

    async def looked_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        await asyncio.sleep(0)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(SIZED)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setattr(loop, "getaddrinfo", looked_up)
        transport = DirectTransport(Endpoint(f"http://gpu.example:{port}", "openai"))
        replies = await asyncio.gather(*(transport.post("/", {}, timeout_s=5) for _ in range(3)))
        await transport.close()

    assert [reply.body for reply in replies] == [b"hello"] * 3
    assert asked.count("gpu.example") == 1


async def test_a_name_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_arguments: object, **_more: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    transport = DirectTransport(Endpoint("http://gpu.example:8000", "openai"))

    with pytest.raises(TransportFailure, match=r"gpu\.example: .*Name or service not known") as failed:
        await transport.post("/", {}, timeout_s=5)

    assert failed.value.reason == "connect"


async def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    heard = asyncio.Event()
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        heard.set()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        gone.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = DirectTransport(Endpoint(f"http://127.0.0.1:{port}", "openai"))
        asking = asyncio.ensure_future(transport.post("/", {}, timeout_s=5))
        await heard.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(gone.wait(), 5)
