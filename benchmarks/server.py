"""A chat-completions server that costs next to nothing, so that a benchmark measures its clients.

In: HTTP/1.1 POSTs with a Content-Length, kept alive (a GET finds nothing). Out: a text of 300 words (about 2.3 KB) with
an id of its own, after a latency drawn uniformly from `--latency LOW HIGH` seconds. What it refuses, it refuses with 429
and Retry-After:

- `--rpm N`: more than N requests in a sliding minute. `--tpm N`: more than N tokens; a request counts from its admission
  on with all that its usage will say, 200 of input and `--output-tokens LOW HIGH`, and its `max_tokens` count for nothing.
- `--storm FROM SECONDS`: everything, from so long after the first answer; `--retry-after S` is what it says then.

`--tells` names limits and what remains of them in every reply, in OpenAI's headers. `--knee N` makes the service time grow
with the requests in flight beyond N (a server that never says 429). Prints its URL, then on SIGTERM a JSON line, see
`Server.counted`. Run it on a core of its own: `taskset -c 0 python benchmarks/server.py`.
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
INPUT_TOKENS = 200
LIMITED = b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'


class Window:
    """So much in a sliding minute."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.used = 0
        self.passed: deque[tuple[float, int]] = deque()

    def wait_s(self, amount: int, now: float) -> float:
        """Seconds until there is room; 0 where there is."""
        while self.passed and self.passed[0][0] <= now - 60:
            self.used -= self.passed.popleft()[1]
        over = self.used + amount - self.limit
        wait_s = 0.0
        for at, passed in self.passed:
            if over <= 0:
                break
            over -= passed
            wait_s = at + 60 - now
        return wait_s

    def take(self, amount: int, now: float) -> None:
        """Let it pass."""
        self.used += amount
        self.passed.append((now, amount))

    def headers(self, now: float) -> str:
        """What OpenAI would say of it."""
        self.wait_s(0, now)
        reset_s = self.passed[0][0] + 60 - now if self.passed else 0.0
        said = {"limit": self.limit, "remaining": self.limit - self.used, "reset": f"{reset_s:.3f}s"}
        return "".join(f"x-ratelimit-{what}-{self.name}: {value}\r\n" for what, value in said.items())


class Server:
    """Counters and behaviour shared by all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.low_s, self.high_s = options.latency
        self.output_tokens: tuple[int, int] = tuple(options.output_tokens)
        self.rpm = Window("requests", options.rpm) if options.rpm else None
        self.tpm = Window("tokens", options.tpm) if options.tpm else None
        self.tells: bool = options.tells
        self.storm_from_s, self.storm_s = options.storm
        self.retry_after_s: float = options.retry_after
        self.knee: int | None = options.knee
        self.requests = self.paid = self.tokens = self.limited = self.in_storm = 0
        self.in_flight = self.max_in_flight = 0
        self.first_at = self.first_paid_at = self.last_at = 0.0
        self.paused_until = self.recovered_at = 0.0
        self.paid_by_second: list[int] = []
        self.service_s: list[float] = []
        self.random = random.Random(0)

    def counted(self) -> dict[str, object]:
        """What happened. `paid_by_second` begins with the first answer, and the times of a storm are counted from there.

        `paused_until_s` is the latest time that a refusal in the storm named, `recovered_s` the first answer after it.
        """
        served = sorted(self.service_s) or [0.0]
        names = ("requests", "paid", "tokens", "limited", "in_storm", "max_in_flight", "paid_by_second")
        return {name: getattr(self, name) for name in names} | {
            "span_s": round(self.last_at - self.first_at, 3),
            "service_p99_s": round(served[int(0.99 * len(served))], 3),
            "paused_until_s": round(self.paused_until - self.first_paid_at, 3),
            "recovered_s": round(self.recovered_at - self.first_paid_at, 3),
        }

    def refuse_s(self, output_tokens: int) -> float:
        """Admit a request, or say how many seconds it has to wait."""
        now = time.monotonic()
        if self.in_a_storm(now):
            self.in_storm += 1
            self.paused_until = max(self.paused_until, now + self.retry_after_s)
            return self.retry_after_s
        takes = ((self.rpm, 1), (self.tpm, INPUT_TOKENS + output_tokens))
        wait_s = max((window.wait_s(amount, now) for window, amount in takes if window), default=0.0)
        if wait_s == 0.0:
            for window, amount in takes:
                if window:
                    window.take(amount, now)
        return wait_s

    def in_a_storm(self, now: float) -> bool:
        """Whether everything is refused."""
        since_s = now - self.first_paid_at
        return bool(self.paid) and self.storm_from_s <= since_s < self.storm_from_s + self.storm_s

    def latency_s(self) -> float:
        """How long this answer takes."""
        base = self.random.uniform(self.low_s, self.high_s)
        if self.knee and self.in_flight > self.knee:
            return base * self.in_flight / self.knee
        return base

    def head(self, status: str, length: int, more: str = "") -> bytes:
        """Status line and headers."""
        if self.tells:
            now = time.monotonic()
            more += "".join(window.headers(now) for window in (self.rpm, self.tpm) if window)
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
        return f"{head}{more}\r\n".encode()

    def answer(self, output_tokens: int) -> bytes:
        """The next paid answer."""
        now = self.last_at = time.monotonic()
        self.first_paid_at = self.first_paid_at or now
        self.paid += 1
        self.tokens += INPUT_TOKENS + output_tokens
        if self.in_storm and not self.recovered_at and not self.in_a_storm(now):
            self.recovered_at = now
        second = int(now - self.first_paid_at)
        self.paid_by_second += [0] * (second + 1 - len(self.paid_by_second))
        self.paid_by_second[second] += 1
        body = (
            b'{"id":"bench-%d","object":"chat.completion","model":"bench","choices":[{"index":0,"message":'
            b'{"role":"assistant","content":"%s"},"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,'
            b'"completion_tokens":%d,"total_tokens":%d}}'
            % (self.paid, ANSWER.encode(), INPUT_TOKENS, output_tokens, INPUT_TOKENS + output_tokens)
        )
        return self.head("200 OK", len(body)) + body


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
        output_tokens = server.random.randint(*server.output_tokens)
        wait_s = server.refuse_s(output_tokens)
        if wait_s > 0:
            server.limited += 1
            told = f"Retry-After: {wait_s:.3f}\r\n"
            self.write(server.head("429 Too Many Requests", len(LIMITED), told) + LIMITED)
            return
        server.in_flight += 1
        server.max_in_flight = max(server.max_in_flight, server.in_flight)
        latency_s = server.latency_s()
        if latency_s > 0:
            asyncio.get_running_loop().call_later(latency_s, self.finish, latency_s, output_tokens)
        else:
            self.finish(latency_s, output_tokens)

    def finish(self, latency_s: float, output_tokens: int) -> None:
        """The answer is due."""
        self.server.in_flight -= 1
        self.server.service_s.append(latency_s)
        self.write(self.server.answer(output_tokens))

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
    print(json.dumps(state.counted()), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, nargs=2, default=(0.0, 0.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--output-tokens", type=int, nargs=2, default=(300, 300), metavar=("LOW", "HIGH"))
    parser.add_argument("--rpm", type=int)
    parser.add_argument("--tpm", type=int)
    parser.add_argument("--tells", action="store_true")
    parser.add_argument("--storm", type=float, nargs=2, default=(0.0, 0.0), metavar=("FROM", "SECONDS"))
    parser.add_argument("--retry-after", type=float, default=5.0)
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
