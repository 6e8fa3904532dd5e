"""A teacher on 127.0.0.1 that speaks both dialects, answers the same every time, and counts what it was paid.

In: requests to `/v1/chat/completions` and `/v1/messages`, or for `pages`. Out: answers whose text is a function of the request body, or
what the script says (429, drops, broken bodies). Guarantees: every answer that would be billed has its own id and
is in `payments` (and in the log file) before the first byte of it is sent.

In a test, on the test's own loop or on a thread (for code that runs its own loop):

    async with Loopback() as server: ...           with Loopback(reply=score) as server: ...

As a process, for tests that kill the client: `with LoopbackProcess(log=tmp_path / "log.jsonl") as server: ...`, or
`python -m tests.loopback --port-file F --log F.jsonl --every 5:429 --words 40 --latency 0.01`.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random
from types import TracebackType
from typing import IO, Literal, Self, TypeAlias

from aiohttp import web

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Body: TypeAlias = dict[str, JSON]

_TEXT = (
    "the a of to and in that it is was for on with as by at from this which but not are were been their one all "
    "there when who more some time people year way day man thing woman life child world school state family student "
    "group country problem hand part place case week company system program question work government number night "
    "point home water room mother area money story fact month lot right study book eye job word business issue side "
    "kind head house service friend father power hour game line end member law car city community name president "
    "team minute idea body information back parent face others level office door health person art war history "
    "party result change morning reason research girl guy moment air teacher force education foot boy age policy "
    "music market sense nation plan college interest death experience effect use class control field development "
    "role effort rate heart drug show leader light voice wife police mind price report decision son view town road "
    "form value action model season society tax director position player record paper space ground event official"
)
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Act:
    """What the server does with one request.

    `drop_before` hangs up unpaid, `drop_after` hangs up after the work was done (paid, lost), `truncate` and
    `malformed` send half an answer or broken JSON (paid), `html` is a proxy's 502, `echo_key` a 401 that repeats the
    credential, `hang` never answers. `chunked` answers in small pieces without a length, `close` without keeping the
    connection; `dribble` (slow loris) sends a few bytes a second, `endless` never stops sending (all paid). `packed`
    is what becomes of the body of an answer or a refusal on its way.
    """

    kind: Literal[
        "answer",
        "refuse",
        "drop_before",
        "drop_after",
        "truncate",
        "malformed",
        "html",
        "echo_key",
        "hang",
        "redirect",
        "chunked",
        "close",
        "dribble",
        "endless",
    ] = "answer"
    status: int = 200
    payload: JSON = None
    headers: Mapping[str, str] = field(default_factory=dict)
    packed: Callable[[bytes], bytes] = bytes


ANSWER = Act()
DROP_BEFORE = Act("drop_before")
DROP_AFTER = Act("drop_after")
TRUNCATE = Act("truncate")
MALFORMED = Act("malformed")
HTML = Act("html")
ECHO_KEY = Act("echo_key")
HANG = Act("hang")
CHUNKED = Act("chunked")
CLOSE = Act("close")
DRIBBLE = Act("dribble")
ENDLESS = Act("endless")
_PAID = {"answer", "drop_after", "truncate", "malformed", "chunked", "close", "dribble", "endless"}

Page: TypeAlias = "Act | Callable[[Mapping[str, str]], Act]"
Script: TypeAlias = "Callable[[int, Body], Act | None] | Sequence[Act]"


def refuse(status: int, payload: JSON = None, **headers: str) -> Act:
    """An error status; header names are written with underscores: `refuse(429, retry_after="1")`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Act("refuse", status, payload if payload is not None else {"error": {"message": "refused"}}, named)


def every(k: int, act: Act) -> Callable[[int, Body], Act | None]:
    """`act` for the k-th, 2k-th, ... request."""
    return lambda number, _body: act if number % k == 0 else None


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Body


@dataclass(frozen=True, slots=True)
class Payment:
    """One billed answer. `request` is the hash of the whole body: equal for a request that is paid twice."""

    id: str
    request: str
    model: str
    input_tokens: int
    output_tokens: int


class Loopback:
    """The server. `url` is a base URL; `requests`, `payments` and `max_in_flight` tell what happened.

    `reply(body)` gives the text of an answer, by default words drawn from a hash of the body; `edit(body, answer)`
    changes the whole answer. `pages` are free: what is found at a path (or a function of the headers), and for a GET anywhere else 404. `latency_s` is slept
    before each answer; with `hold`, nothing is answered until that many requests are in flight. `script` is a sequence of acts for the first requests, or a function of the request's
    number (from 1) and body; None means a normal answer. `n` samples are at most `most_choices`; each is a payment.
    Fields of a body that it `ignores` change nothing.
    """

    def __init__(
        self,
        *,
        reply: Callable[[Body], str] | None = None,
        words: int = 40,
        latency_s: float = 0.0,
        hold: int = 0,
        script: Script = (),
        served_model: str | None = None,
        most_choices: int = 128,
        ignores: Collection[str] = (),
        log: Path | None = None,
        port: int = 0,
        edit: Callable[[Body, Body], Body] | None = None,
        pages: Mapping[str, Page] | None = None,
    ):
        self.requests: list[Seen] = []
        self.payments: list[Payment] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.port = port
        self.pages_read: list[Seen] = []
        self._edit = edit
        self._pages = pages or {}
        self._reply = reply
        self._words = words
        self._latency_s = latency_s
        self._hold = hold
        self._held = asyncio.Event()
        self._closing = asyncio.Event()
        self._script = script
        self._served_model = served_model
        self._most_choices = most_choices
        self._ignores = ignores
        self._log = log
        self._log_file: IO[str] | None = None
        self._runner: web.ServerRunner | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        """Base URL with the version, as a recipe names it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def paid_twice(self) -> int:
        """Payments beyond the first for the same request body."""
        return len(self.payments) - len({payment.request for payment in self.payments})

    async def start(self) -> None:
        """Listen; the port is known afterwards, and the same after a restart."""
        self._loop = asyncio.get_running_loop()
        self._closing.clear()
        self._log_file = self._log.open("a", encoding="utf-8") if self._log else None
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Hang up on everybody."""
        self._held.set()
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._log_file is not None:
            self._log_file.close()

    def release(self) -> None:
        """From any thread: answer whoever is held, and hold nobody any more."""
        self._loop.call_soon_threadsafe(self._held.set)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        """Serve from a thread with a loop of its own."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop()
        if self._thread is not None:
            self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        async with self:
            ready.set()
            await stopped.wait()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.method != "POST" or request.path in self._pages:
            self.pages_read.append(Seen(request.path, headers, {}))
            found = self._pages.get(request.path, refuse(404))
            page = found(headers) if callable(found) else found
            if isinstance(page.payload, str):
                return web.Response(text=page.payload, status=page.status, headers=page.headers)
            return web.json_response(page.payload, status=page.status, headers=page.headers)
        body: Body = json.loads(await request.content.read())
        self.requests.append(Seen(request.path, headers, body))
        number = len(self.requests)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            if self.in_flight >= self._hold:
                self._held.set()
            await self._held.wait()
            if self._latency_s:
                await asyncio.sleep(self._latency_s)
            return await self._act(self._act_for(number, body), request, headers, body)
        finally:
            self.in_flight -= 1

    def _act_for(self, number: int, body: Body) -> Act:
        if callable(self._script):
            return self._script(number, body) or ANSWER
        return self._script[number - 1] if number <= len(self._script) else ANSWER

    async def _act(
        self, act: Act, request: web.BaseRequest, headers: Mapping[str, str], body: Body
    ) -> web.StreamResponse:
        # Clouds put the model into the path and the dialect's version into the body.
        anthropic = request.path.endswith("/messages") or "anthropic_version" in body
        raw = b""
        if act.kind in _PAID:
            raw = json.dumps(self._answer(body, anthropic=anthropic)).encode()
        if act.kind == "hang":
            await self._closing.wait()
        if act.kind in ("hang", "drop_before", "drop_after", "truncate"):
            return await _hang_up(request, raw if act.kind == "truncate" else b"")
        if act.kind in ("chunked", "dribble", "endless"):
            return await self._stream(act.kind, request, raw)
        if act.kind == "malformed":
            return web.Response(body=raw[:-1] + b",,", content_type="application/json", headers=act.headers)
        if act.kind == "html":
            page = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
            return web.Response(status=502, text=page, content_type="text/html")
        if act.kind == "echo_key":
            sent = headers.get("authorization", headers.get("x-api-key", "no key"))
            error = {"message": f"Incorrect API key provided: {sent}", "code": "invalid_api_key"}
            return web.json_response({"error": error}, status=401, headers={"www-authenticate": sent})
        if act.kind == "redirect":
            return web.Response(status=307, headers=act.headers)
        if act.kind == "refuse":
            raw = act.packed(json.dumps(act.payload).encode())
            return web.Response(
                body=raw, status=act.status, content_type="application/json", headers=act.headers
            )
        response = web.Response(body=act.packed(raw), content_type="application/json", headers=act.headers)
        if act.kind == "close":
            response.force_close()
        return response

    async def _stream(self, kind: str, request: web.BaseRequest, raw: bytes) -> web.StreamResponse:
        """`raw` in pieces, without its length; it ends early where the client hangs up."""
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.enable_chunked_encoding()
        with suppress(ConnectionError):
            await response.prepare(request)
            for start in range(0, len(raw), 7):
                await response.write(raw[start : start + 7])
                if kind == "dribble":
                    await asyncio.sleep(0.5)
            while kind == "endless" and not self._closing.is_set():
                await response.write(b" " * 2**20)
                await asyncio.sleep(0)
            await response.write_eof()
        return response

    def _answer(self, body: Body, *, anthropic: bool) -> Body:
        """The reply to `body`, booked as paid: the prompt once, and each of its samples."""
        body = {name: value for name, value in body.items() if name not in self._ignores}
        samples = body.get("n")
        written = []
        for place in range(min(samples, self._most_choices) if isinstance(samples, int) else 1):
            each = choice_body(body, place)
            text, finish = self._text(each)
            written.append((self._book(each, text, prompt=place == 0), text, finish))
        answer = _anthropic_reply(*written[0]) if anthropic else _openai_reply(written, body)
        return self._edit(body, answer) if self._edit else answer

    def _text(self, body: Body) -> tuple[str, str]:
        text = self._reply(body) if self._reply else answer_text(body, self._words)
        limit = body.get("max_tokens", body.get("max_completion_tokens"))
        words = text.split(" ")
        if self._reply is None and isinstance(limit, int) and len(words) > limit:
            return " ".join(words[:limit]), "length"
        return text, "stop"

    def _book(self, body: Body, text: str, *, prompt: bool) -> Payment:
        hashed = blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()
        model = self._served_model or str(body.get("model", "unknown"))
        input_tokens = len(json.dumps(body.get("messages", "")).split()) if prompt else 0
        payment = Payment(
            f"reply-{len(self.payments) + 1:08d}", hashed, model, input_tokens, len(text.split(" "))
        )
        self.payments.append(payment)
        if self._log_file is not None:
            self._log_file.write(json.dumps(asdict(payment)) + "\n")
            self._log_file.flush()
        return payment


def choice_body(body: Body, place: int) -> Body:
    """The request that would have brought this choice alone: vLLM draws choice k with the seed plus k."""
    alone = {name: value for name, value in body.items() if name != "n"}
    seed = body.get("seed")
    if place:
        alone["seed"] = seed + place if isinstance(seed, int) else f"choice {place}"
    return alone


async def _hang_up(request: web.BaseRequest, raw: bytes) -> web.StreamResponse:
    """Close the connection, after half of `raw` if there is one."""
    response = web.StreamResponse(headers={"content-type": "application/json"})
    transport = request.transport
    if raw:
        response.content_length = len(raw)
        await response.prepare(request)
        await response.write(raw[: len(raw) // 2])
    if transport is not None:
        transport.close()
    return response


def _openai_reply(written: Sequence[tuple[Payment, str, str]], body: Body) -> Body:
    choices: list[JSON] = []
    for place, (_, text, finish) in enumerate(written):
        message: JSON = {"role": "assistant", "content": text}
        choice: Body = {"index": place, "message": message, "finish_reason": finish}
        if call := _called(body):
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice |= {"message": message, "finish_reason": "tool_calls"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": logprobs_of(text, body)}
        if body.get("return_token_ids"):
            choice["token_ids"] = [token_id(token) for token in tokens_of(text)]
        choices.append(choice)
    prompt_tokens = sum(payment.input_tokens for payment, _, _ in written)
    completion_tokens = sum(payment.output_tokens for payment, _, _ in written)
    return {
        "id": written[0][0].id,
        "object": "chat.completion",
        "created": 1,
        "model": written[0][0].model,
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def tokens_of(text: str) -> list[str]:
    """A token is a word with the space before it."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def token_id(token: str) -> int:
    """The token's number in a vocabulary of about a million."""
    return int.from_bytes(blake2b(token.encode(), digest_size=2).digest(), "big") * 16 + len(token) % 16


def logprobs_of(text: str, body: Body) -> list[JSON]:
    """Made-up log-probabilities that add up: the token itself -0.5, alternatives from -2 downwards."""
    top = body.get("top_logprobs", 0)
    assert isinstance(top, int)
    as_ids = bool(body.get("return_tokens_as_token_ids"))

    def entry(token: str, logprob: float) -> Body:
        name = f"token_id:{token_id(token)}" if as_ids else token
        return {"token": name, "logprob": logprob, "bytes": list(name.encode())}

    out: list[JSON] = []
    for token in tokens_of(text):
        others = [entry(f" other{number}", -2.0 - number) for number in range(1, top)]
        alternatives: list[JSON] = [entry(token, -0.5), *others] if top else []
        out.append({**entry(token, -0.5), "bytes": list(token.encode()), "top_logprobs": alternatives})
    return out


def _called(body: Body) -> Body | None:
    """A call of the tool that the body insists on (OpenAI's form): the one it names, or any."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if choice in (None, "auto", "none") or not isinstance(tools, list):
        return None
    named = choice.get("function") if isinstance(choice, dict) else None
    functions = [tool["function"] for tool in tools if isinstance(tool, dict)]
    function = next(one for one in functions if named is None or one["name"] == named["name"])
    arguments = json.dumps(_instance(function.get("parameters"), Random(1)))
    return {
        "id": "call-1",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _anthropic_reply(payment: Payment, text: str, finish: str) -> Body:
    return {
        "id": payment.id,
        "type": "message",
        "role": "assistant",
        "model": payment.model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "max_tokens" if finish == "length" else "end_turn",
        "usage": {"input_tokens": payment.input_tokens, "output_tokens": payment.output_tokens},
    }


def answer_text(body: Body, words: int) -> str:
    """English-looking sentences drawn from a hash of messages, model and seed; JSON where a schema asks for it."""
    asked = [body.get(name) for name in ("messages", "system", "model", "seed")]
    seed = blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=8).digest()
    random = Random(int.from_bytes(seed, "big"))
    schema = _schema_of(body)
    if schema is not None:
        return json.dumps(_instance(schema, random))
    sentences = []
    left = words
    while left > 0:
        count = min(left, random.randint(6, 12))
        sentences.append(" ".join(random.choices(_WORDS, k=count)).capitalize() + ".")
        left -= count
    return " ".join(sentences)


def _schema_of(body: Body) -> Body | None:
    for path in (("response_format", "json_schema", "schema"), ("output_config", "format", "schema")):
        value: JSON = body
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, dict):
            return value
    return None


def _instance(schema: JSON, random: Random) -> JSON:
    """A small value of a plain JSON schema (no references)."""
    if not isinstance(schema, dict):
        return None
    allowed, properties = schema.get("enum"), schema.get("properties")
    if isinstance(allowed, list):
        return random.choice(allowed)
    match schema.get("type"):
        case "object":
            return {name: _instance(part, random) for name, part in _items(properties)}
        case "array":
            return [_instance(schema.get("items"), random) for _ in range(2)]
        case "integer" | "number":
            low, high = schema.get("minimum", 1), schema.get("maximum", 5)
            return random.randint(int(str(low)), int(str(high)))
        case "boolean":
            return random.random() < 0.5
        case _:
            return " ".join(random.choices(_WORDS, k=8)).capitalize() + "."


def _items(value: JSON) -> list[tuple[str, JSON]]:
    return list(value.items()) if isinstance(value, dict) else []


class LoopbackProcess:
    """`python -m tests.loopback` as a child, for tests that kill the client. `arguments` are its command line."""

    def __init__(self, *arguments: str, log: Path):
        self.url = ""
        self._log = log
        command = [sys.executable, "-m", "tests.loopback", "--log", str(log), *arguments]
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def payments(self) -> list[Payment]:
        """What was paid so far, as logged."""
        if not self._log.exists():
            return []
        return [Payment(**json.loads(line)) for line in self._log.read_text(encoding="utf-8").splitlines()]

    def __enter__(self) -> Self:
        root = Path(__file__).resolve().parent.parent
        self._process = subprocess.Popen(self._command, cwd=root, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the loopback server did not start"
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


_NAMED_ACTS = {
    "drop-before": DROP_BEFORE,
    "drop-after": DROP_AFTER,
    "truncate": TRUNCATE,
    "malformed": MALFORMED,
    "html": HTML,
    "echo-key": ECHO_KEY,
    "hang": HANG,
    "chunked": CHUNKED,
    "close": CLOSE,
    "dribble": DRIBBLE,
    "endless": ENDLESS,
}


def parse_act(text: str) -> Act:
    """`drop-before`, ..., or a status with an optional retry-after: `500`, `429:0.05`."""
    if text in _NAMED_ACTS:
        return _NAMED_ACTS[text]
    status, _, retry_after = text.partition(":")
    return refuse(int(status), **({"retry_after": retry_after} if retry_after else {}))


def _scripted(first: Sequence[str], repeated: Sequence[str]) -> Script:
    acts = [parse_act(text) for text in first]
    rules = [(int(k), parse_act(act)) for k, _, act in (text.partition(":") for text in repeated)]

    def script(number: int, _body: Body) -> Act | None:
        if number <= len(acts):
            return acts[number - 1]
        return next((act for k, act in rules if number % k == 0), None)

    return script


def _judging(model: str, words: int) -> Callable[[Body], str]:
    """Requests to `model` get a score from 1 to 5 drawn from their text, others the usual words."""

    def reply(body: Body) -> str:
        text = answer_text(body, words)
        if body.get("model") != model:
            return text
        return json.dumps({"reason": text, "score": 1 + len(text) % 5})

    return reply


async def _main(options: argparse.Namespace) -> None:
    server = Loopback(
        reply=_judging(options.judge_model, options.words) if options.judge_model else None,
        words=options.words,
        latency_s=options.latency,
        script=_scripted(options.first, options.every),
        served_model=options.served_model,
        log=options.log,
        port=options.port,
    )
    async with server:
        if options.port_file:
            draft = options.port_file.with_suffix(".tmp")
            draft.write_text(str(server.port), encoding="utf-8")
            draft.rename(options.port_file)
        print(server.url, flush=True)
        await asyncio.Event().wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until killed; the URL is the first line on stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.loopback")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--served-model")
    parser.add_argument("--judge-model")
    parser.add_argument("--first", nargs="*", default=[], metavar="ACT")
    parser.add_argument("--every", action="append", default=[], metavar="K:ACT")
    asyncio.run(_main(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
