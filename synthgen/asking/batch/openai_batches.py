"""OpenAI's batches: a file of requests, a batch over it, an output and an error file.

In: a ticket and its requests. Out: the `Vendor` of OpenAI's dialect, through the `openai` SDK with its retries off. A
batch carries our name in its metadata, so one whose creation was cut off is found again by listing.

Limits: 50,000 requests and 200 MB a file (developers.openai.com/api/docs/guides/batch, read 2026-11). A file that was
uploaded but never used costs nothing; the vendor deletes batch files after 30 days.
"""

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import openai
import orjson

from synthgen.asking.batch.sdk import only_our_key, translated
from synthgen.asking.batch.vendor import (
    Line,
    Problem,
    Refused,
    ResultsGone,
    State,
    Ticket,
    split_lines,
)
from synthgen.asking.outcome import HttpReply
from synthgen.asking.transport.endpoint import Endpoint
from synthgen.asking.wire.loose import as_count, as_object, as_text, parse_object
from synthgen.types import JSONValue

if TYPE_CHECKING:
    from openai.types import Batch

__all__ = ["OpenAIBatches"]

_OVER = {"completed", "failed", "expired", "cancelled"}
_NEVER_ANSWERED = {"batch_expired", "batch_cancelled", "request_expired", "request_cancelled"}
# How far back the list is read before the time of a ticket: our clock may be wrong by so much.
_CLOCKS_S = 86_400.0


class OpenAIBatches:
    """See `Vendor`. `path` is the endpoint all requests of a batch go to."""

    most_requests = 50_000
    most_bytes = 200_000_000

    def __init__(self, endpoint: Endpoint, *, timeout_s: float):
        import httpx2

        self._endpoint = endpoint
        self._translated = partial(translated, endpoint, openai.APIStatusError, openai.APIConnectionError)
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.key or "unset",
            base_url=endpoint.base_url,
            max_retries=0,
            timeout=httpx2.Timeout(timeout_s, connect=endpoint.connect_timeout_s),
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False, event_hooks={"request": [only_our_key(endpoint)]}
            ),
        )

    def line(self, key: str, body: dict[str, JSONValue]) -> bytes:
        """One line of the file."""
        return orjson.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body})

    async def upload(self, ticket: Ticket, lines: Sequence[bytes]) -> str:
        """The id of the uploaded file."""
        content = b"\n".join(lines) + b"\n"
        with self._translated():
            file = await self._client.files.create(
                file=(f"synthgen-{ticket.name}.jsonl", content, "application/jsonl"), purpose="batch"
            )
        return file.id

    async def create(self, ticket: Ticket, uploaded: str | bytes) -> str:
        """The id of the batch."""
        with self._translated():
            batch = await self._client.batches.create(
                input_file_id=str(uploaded),
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={
                    "synthgen_run": ticket.run[:512],
                    "synthgen_batch": ticket.name,
                    "synthgen_content": ticket.content,
                },
            )
        return batch.id

    async def find(self, ticket: Ticket) -> str | None:
        """By the metadata, among the batches created since; the list is newest first."""
        with self._translated():
            async for batch in await self._client.batches.list(limit=100):
                if (batch.metadata or {}).get("synthgen_batch") == ticket.name:
                    return batch.id
                if batch.created_at < ticket.prepared_at - _CLOCKS_S:
                    break
        return None

    async def look(self, batch_id: str) -> State:
        """How far it is."""
        with self._translated():
            batch = await self._client.batches.retrieve(batch_id)
        counts = batch.request_counts
        return State(
            id=batch.id,
            status=batch.status,
            over=batch.status in _OVER,
            done=counts.completed + counts.failed if counts else 0,
            total=counts.total if counts else 0,
            expires_at=batch.expires_at,
            files=tuple(file for file in (batch.output_file_id, batch.error_file_id) if file),
            problem=_problem(batch) if batch.status == "failed" else None,
        )

    async def results(self, state: State) -> AsyncGenerator[Line]:
        """The lines of the output file, then those of the error file."""
        for file in state.files:
            try:
                with self._translated():
                    async with self._client.files.with_streaming_response.content(file) as response:
                        async for raw in split_lines(response.iter_bytes()):
                            line = _line(raw, self._endpoint)
                            if line is not None:
                                yield line
            except Refused as refused:
                if refused.reply.status in (404, 410):
                    raise ResultsGone(file) from refused
                raise

    async def cancel(self, batch_id: str) -> None:
        """The vendor takes up to ten minutes over it."""
        with self._translated():
            await self._client.batches.cancel(batch_id)

    async def close(self) -> None:
        """Release sockets."""
        await self._client.close()


def _line(raw: bytes, endpoint: Endpoint) -> Line | None:
    """None for a line that names no request."""
    parsed = parse_object(raw)
    if parsed is None or not (custom_id := as_text(parsed.get("custom_id"))):
        return None
    response = parsed.get("response")
    if isinstance(response, dict):
        body = orjson.dumps(response.get("body"))
        status = as_count(response.get("status_code")) or 200
        return Line(custom_id, endpoint.clean(status, {}, body), billed=status == 200)
    error = as_object(parsed.get("error"))
    code = as_text(error.get("code"))
    if code in _NEVER_ANSWERED:
        return Line(custom_id, None, code.partition("_")[2])
    return Line(custom_id, endpoint.clean(500, {}, orjson.dumps({"error": error})), billed=False)


def _problem(batch: "Batch") -> Problem:
    """The first thing the vendor says is wrong with the whole batch."""
    errors = (batch.errors.data if batch.errors else None) or []
    code, message, line = "batch_failed", "the vendor gives no reason", None
    if errors:
        first = errors[0]
        code, message, line = first.code or code, first.message or message, first.line
    body = orjson.dumps({"error": {"code": code, "message": f"{code}: {message}"}})
    return Problem(code, HttpReply(400, {}, body), line)
