"""A chat-completions server that costs next to nothing, so that a benchmark measures its clients.

In: HTTP/1.1 POSTs with a Content-Length, kept alive (a GET finds nothing). Out: one constant answer of about 2.3 KB (300 words) with an id of
its own, after a latency drawn uniformly from `--latency LOW HIGH` seconds. `--rpm N` answers 429 with Retry-After
beyond N requests a minute (sliding 60 s window). `--knee N` makes the service time grow with the requests in flight
beyond N (a server that never says 429). Prints its URL, then on SIGTERM a JSON line: requests, paid (also minute by
minute since the first answer), 429s, most in flight, seconds from the first request to the last answer. Run it on a core
of its own: `taskset -c 0 python benchmarks/server.py`.
"""

import argparse
import asyncio
import json
import random
import signal
import time
from collections import deque
from typing import cast

ANSWER = " ".join(["answer", "words", "that", "mean", "little"] * 60)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
LIMITED = b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'


class Server:
    """Counters and behaviour shared by all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.low_s, self.high_s = options.latency
        self.rpm: int | None = options.rpm
        self.knee: int | None = options.knee
        self.requests = self.paid = self.limited = self.in_flight = self.max_in_flight = 0
        self.paid_by_minute: list[int] = []
        self.first_paid_at = 0.0
        self.first_at = self.last_at = 0.0
        self.window: deque[float] = deque()
        self.random = random.Random(0)

    def wait_for_limit_s(self) -> float | None:
        """Seconds until the sliding window has room, None if it has."""
        if self.rpm is None:
            return None
        now = time.monotonic()
        while self.window and self.window[0] <= now - 60:
            self.window.popleft()
        if len(self.window) < self.rpm:
            self.window.append(now)
            return None
        return self.window[0] + 60 - now

    def latency_s(self) -> float:
        """How long this answer takes."""
        base = self.random.uniform(self.low_s, self.high_s)
        if self.knee and self.in_flight > self.knee:
            return base * self.in_flight / self.knee
        return base

    def answer(self) -> bytes:
        """The next paid answer."""
        self.paid += 1
        now = self.last_at = time.monotonic()
        self.first_paid_at = self.first_paid_at or now
        minute = int((now - self.first_paid_at) / 60)
        self.paid_by_minute += [0] * (minute + 1 - len(self.paid_by_minute))
        self.paid_by_minute[minute] += 1
        body = (
            b'{"id":"bench-%d","object":"chat.completion","model":"bench","choices":[{"index":0,"message":'
            b'{"role":"assistant","content":"%s"},"finish_reason":"stop"}],"usage":{"prompt_tokens":200,'
            b'"completion_tokens":300,"total_tokens":500}}' % (self.paid, ANSWER.encode())
        )
        return HEAD % len(body) + body


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests on it are answered one after another."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        if head.startswith(b"GET "):
            self.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        self.begin()

    def begin(self) -> None:
        """A whole request is here."""
        server = self.server
        server.requests += 1
        server.first_at = server.first_at or time.monotonic()
        wait_s = server.wait_for_limit_s()
        if wait_s is not None:
            server.limited += 1
            head = f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {wait_s:.3f}\r\n"
            self.write(f"{head}Content-Length: {len(LIMITED)}\r\n\r\n".encode() + LIMITED)
            return
        server.in_flight += 1
        server.max_in_flight = max(server.max_in_flight, server.in_flight)
        latency_s = server.latency_s()
        if latency_s > 0:
            asyncio.get_running_loop().call_later(latency_s, self.finish)
        else:
            self.finish()

    def finish(self) -> None:
        """The answer is due."""
        self.server.in_flight -= 1
        self.write(self.server.answer())

    def write(self, reply: bytes) -> None:
        """Send, unless the client has gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(reply)


async def serve(options: argparse.Namespace) -> None:
    """Listen until SIGTERM."""
    state = Server(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    names = ("requests", "paid", "paid_by_minute", "limited", "max_in_flight")
    counts = {name: getattr(state, name) for name in names}
    print(json.dumps(counts | {"span_s": round(state.last_at - state.first_at, 3)}), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, nargs=2, default=(0.0, 0.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--rpm", type=int)
    parser.add_argument("--knee", type=int)
    options = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(options))
    else:
        uvloop.run(serve(options))


if __name__ == "__main__":
    main()
