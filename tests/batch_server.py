"""A loopback teacher that also answers in batches, the OpenAI way (files and batches) and the Anthropic way.

In: what `Loopback` takes, and how batches go. Out: the same answers as live requests get, in files and result streams.
A batch is over at its `polls`-th look; its answers are made (and paid) then. Rows, their order and the ends of batches follow
the script, so that every way a batch can go wrong can be played.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.loopback import Body, Loopback

__all__ = ["Batch", "BatchLoopback"]

RowAct = str | None
"""What becomes of a row: None (answered), `expired`, `cancelled`, `refused`, `flagged`, `quota`, `broken`, `junk`, `absent`."""


@dataclass
class Batch:
    """A batch as the server knows it."""

    id: str
    rows: list[tuple[str, Body]]
    metadata: dict[str, str]
    looks: int = 0
    status: str = "in_progress"
    output: list[Body] = field(default_factory=list)
    errors: list[Body] = field(default_factory=list)
    problem: Body | None = None
    created_at: float = field(default_factory=time.time)

    @property
    def ids(self) -> list[str]:
        """The custom ids of its rows."""
        return [custom_id for custom_id, _ in self.rows]


class BatchLoopback(Loopback):
    """`row(number, body)` says what becomes of the n-th row of all batches (from 1), `end(batch)` how a batch ends.

    `at(point)` is called at `uploaded`, `created` (both before the reply), `looked`, and its result, a status, is sent
    instead of the reply where it is not None. `failing(batch)` gives the error of a batch that is refused as a whole.
    `headers` is given those of every call. `foreign` adds a row nobody asked for to each output; the first results break off after `broken_after` lines.
    """

    def __init__(
        self,
        *,
        polls: int = 2,
        row: Callable[[int, Body], RowAct] = lambda _number, _body: None,
        end: Callable[[Batch], str] = lambda _batch: "completed",
        failing: Callable[[Batch], Body | None] = lambda _batch: None,
        at: Callable[[str], int | None] = lambda _point: None,
        headers: Callable[[Mapping[str, str]], object] = lambda _headers: None,
        foreign: bool = False,
        broken_after: int = 0,
        **live: Any,
    ):
        super().__init__(**live)
        self.batches: list[Batch] = []
        self.files: dict[str, bytes] = {}
        self.cancelled: list[str] = []
        self.calls: list[str] = []
        self._polls, self._row, self._end, self._failing, self._at = polls, row, end, failing, at
        self._headers = headers
        self._foreign = foreign
        self._broken_after = broken_after
        self._rows = 0

    @property
    def batched(self) -> list[str]:
        """Custom ids of all rows of all batches."""
        return [custom_id for batch in self.batches for custom_id in batch.ids]

    @property
    def live_requests(self) -> int:
        """Requests that came one by one."""
        return len(self.requests)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix("/v1")
        if not path.startswith(("/files", "/batches", "/messages/batches")):
            return await super()._handle(request)
        raw = await request.content.read()
        self.calls.append(f"{request.method} {path}")
        self._headers({name.lower(): value for name, value in request.headers.items()})
        status = self._at(f"{request.method} {path}")
        if status is not None:
            return web.json_response({"error": {"message": "refused"}}, status=status)
        anthropic = path.startswith("/messages")
        parts = path.removeprefix("/messages").strip("/").split("/")
        match request.method, *parts:
            case "POST", "files":
                return self._upload(raw, request)
            case "GET", "files", file, "content":
                return await self._content(file, request)
            case "POST", "batches":
                return self._create(json.loads(raw), anthropic=anthropic)
            case "GET", "batches":
                return self._list(anthropic=anthropic)
            case "GET", "batches", name:
                return self._look(self._batch(name), anthropic=anthropic)
            case "GET", "batches", name, "results":
                return await self._lines(self._batch(name).output, request)
            case "POST", "batches", name, "cancel":
                self.cancelled.append(name)
                self._finish(self._batch(name), "cancelled", anthropic=anthropic)
                return self._shown(self._batch(name), anthropic=anthropic)
        return web.json_response({"error": {"message": "no such path"}}, status=404)

    def _upload(self, raw: bytes, request: web.BaseRequest) -> web.Response:
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        parts = [part for part in raw.split(b"--" + boundary) if b'name="file"' in part]
        content = parts[0].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        status = self._at("uploaded")
        shown = {"id": name, "object": "file", "bytes": len(content), "purpose": "batch", "created_at": 1}
        return web.json_response(shown, status=status or 200)

    def _create(self, body: Body, *, anthropic: bool) -> web.Response:
        name = f"batch_{len(self.batches) + 1}"
        if anthropic:
            rows = [(str(row["custom_id"]), row["params"]) for row in body["requests"]]  # type: ignore[index,union-attr,call-overload]
            metadata: dict[str, str] = {}
        else:
            lines = self.files[str(body["input_file_id"])].splitlines()
            rows = [(row["custom_id"], row["body"]) for row in map(json.loads, lines)]
            metadata = dict(body["metadata"])  # type: ignore[arg-type]
        batch = Batch(name, rows, metadata)
        batch.problem = self._failing(batch)
        self.batches.append(batch)
        status = self._at("created")
        if status is not None:
            return web.json_response({"error": {"message": "gateway"}}, status=status)
        return self._shown(batch, anthropic=anthropic)

    def _batch(self, name: str) -> Batch:
        return next(batch for batch in self.batches if batch.id == name)

    def _list(self, *, anthropic: bool) -> web.Response:
        for batch in self.batches:
            self._look(batch, anthropic=anthropic)
        newest_first = [self._json(batch, anthropic=anthropic) for batch in reversed(self.batches)]
        return web.json_response({"object": "list", "data": newest_first, "has_more": False})

    def _look(self, batch: Batch, *, anthropic: bool) -> web.Response:
        batch.looks += 1
        self._at("looked")
        if batch.problem is not None:
            batch.status = "failed"
        elif batch.looks >= self._polls:
            self._finish(batch, self._end(batch), anthropic=anthropic)
        return self._shown(batch, anthropic=anthropic)

    def _finish(self, batch: Batch, status: str, *, anthropic: bool) -> None:
        if batch.status != "in_progress":
            return
        batch.status = status
        for custom_id, body in batch.rows:
            self._rows += 1
            act = self._row(self._rows, body)
            if act == "absent":
                continue
            answer = self._answered if act is None else self._unanswered
            answer(batch, custom_id, body, act, anthropic)
        batch.output.reverse()  # results come in any order
        if self._foreign:
            batch.output += [{**line, "custom_id": "f" * 32} for line in batch.output[:1]]

    def _answered(self, batch: Batch, custom_id: str, body: Body, _act: RowAct, anthropic: bool) -> None:
        reply = self._answer(body, anthropic=anthropic)
        if anthropic:
            batch.output.append({"custom_id": custom_id, "result": {"type": "succeeded", "message": reply}})
        else:
            response: Body = {"status_code": 200, "request_id": "r", "body": reply}
            batch.output.append({"id": "b", "custom_id": custom_id, "response": response, "error": None})

    def _unanswered(self, batch: Batch, custom_id: str, _body: Body, act: RowAct, anthropic: bool) -> None:
        error = _ERRORS.get(str(act))
        if anthropic:
            result: Body = {"type": {"cancelled": "canceled"}.get(str(act), act)}
            if error is not None:
                result = {"type": "errored", "error": {"type": "error", "error": error[1]}}
            if act == "junk":
                result = {"type": "succeeded", "message": {"content": "no list"}}
            batch.output.append({"custom_id": custom_id, "result": result})
        elif act == "junk":
            response: Body = {"status_code": 200, "request_id": "r", "body": {"choices": []}}
            batch.output.append({"custom_id": custom_id, "response": response, "error": None})
        elif error is None:
            missing: Body = {"code": f"batch_{act}", "message": "not answered"}
            batch.errors.append({"custom_id": custom_id, "response": None, "error": missing})
        else:
            response = {"status_code": error[0], "request_id": "r", "body": {"error": error[1]}}
            batch.errors.append({"custom_id": custom_id, "response": response, "error": None})

    async def _content(self, name: str, request: web.BaseRequest) -> web.StreamResponse:
        kind, _, batch_id = name.partition("-")
        batch = self._batch(batch_id)
        return await self._lines(batch.output if kind == "output" else batch.errors, request)

    async def _lines(self, rows: list[Body], request: web.BaseRequest) -> web.StreamResponse:
        raw = [json.dumps(row).encode() + b"\n" for row in rows]
        if not self._broken_after:
            return web.Response(body=b"".join(raw), content_type="application/jsonl")
        response = web.StreamResponse(headers={"content-length": str(sum(map(len, raw)))})
        await response.prepare(request)
        await response.write(b"".join(raw[: self._broken_after]))
        self._broken_after = 0
        if request.transport is not None:
            request.transport.close()
        return response

    def _shown(self, batch: Batch, *, anthropic: bool) -> web.Response:
        return web.json_response(self._json(batch, anthropic=anthropic))

    def _json(self, batch: Batch, *, anthropic: bool) -> Body:
        total, over = len(batch.rows), batch.status != "in_progress"
        if anthropic:
            counts: Body = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
            counts["succeeded" if over else "processing"] = total
            return {
                "id": batch.id,
                "type": "message_batch",
                "created_at": _rfc3339(batch.created_at),
                "expires_at": _rfc3339(batch.created_at + 86_400),
                "processing_status": "ended" if over else "in_progress",
                "request_counts": counts,
                "results_url": "https://elsewhere.invalid/results",
            }
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "input_file_id": "file-1",
            "created_at": int(batch.created_at),
            "expires_at": int(batch.created_at) + 86_400,
            "status": batch.status,
            "metadata": dict(batch.metadata),
            "request_counts": {"total": total, "completed": total if over else 0, "failed": 0},
            "output_file_id": f"output-{batch.id}" if batch.output else None,
            "error_file_id": f"error-{batch.id}" if batch.errors else None,
            "errors": {"object": "list", "data": [batch.problem]} if batch.problem else None,
        }


_ERRORS: dict[str, tuple[int, Body]] = {
    "refused": (400, {"type": "invalid_request_error", "message": "this request is wrong"}),
    "flagged": (400, {"code": "content_policy_violation", "message": "flagged"}),
    "quota": (429, {"type": "billing_error", "code": "insufficient_quota", "message": "no credit left"}),
    "broken": (500, {"type": "api_error", "message": "something broke"}),
}


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))
