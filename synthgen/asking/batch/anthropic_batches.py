"""Anthropic's Message Batches: the requests in one body, the results in one stream.

In: a ticket and its requests. Out: the `Vendor` of Anthropic's dialect, through the `anthropic` SDK with its retries
off; bodies go and results come as bytes, because the SDK would rebuild each of 100,000 requests field by field.

A batch here carries no metadata, but the custom ids of its results are our request keys, and those are hashes nobody
else has. A batch whose creation was cut off is looked for among the batches created since with as many requests:
one that has ended is read as far as its first result; while one is still going on, nothing is decided and nothing
submitted again. So nothing is bought twice on a guess; the price is a wait of at most 24 hours after a crash that hit
the very moment of creation while somebody else's batch of equal size was going on.

Limits: 100,000 requests or 256 MB a batch, results kept for 29 days
(platform.claude.com/docs/build-with-claude/batch-processing, read 2026-11).
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from urllib.parse import quote

import anthropic
import orjson
from anthropic.types.messages import MessageBatch

from synthgen.asking.batch.sdk import only_our_key, translated
from synthgen.asking.batch.vendor import (
    Line,
    Refused,
    ResultsGone,
    State,
    Ticket,
    Undecided,
    split_lines,
)
from synthgen.asking.transport.endpoint import Endpoint
from synthgen.asking.wire.loose import as_object, as_text, parse_object
from synthgen.types import JSONValue

__all__ = ["AnthropicBatches"]

_PATH = "/v1/messages/batches"
_RAW_RESPONSE = "X-Stainless-Raw-Response"  # tells the SDK to leave the body to us
# How far back the list is read before the time of a ticket: our clock may be wrong by so much.
_CLOCKS_S = 3600.0


class AnthropicBatches:
    """See `Vendor`."""

    most_requests = 100_000
    most_bytes = 256_000_000

    def __init__(self, endpoint: Endpoint, *, timeout_s: float):
        import httpx2

        self._endpoint = endpoint
        self._translated = partial(
            translated, endpoint, anthropic.APIStatusError, anthropic.APIConnectionError
        )
        self._client = anthropic.AsyncAnthropic(
            api_key=endpoint.key or "unset",
            base_url=endpoint.base_url.removesuffix("/v1"),  # the SDK's paths begin with it
            max_retries=0,
            timeout=httpx2.Timeout(timeout_s, connect=endpoint.connect_timeout_s),
            open_telemetry=False,
            http_client=anthropic.DefaultAsyncHttpxClient(
                follow_redirects=False, event_hooks={"request": [only_our_key(endpoint)]}
            ),
        )

    def line(self, key: str, body: dict[str, JSONValue]) -> bytes:
        """One element of the list of requests."""
        return orjson.dumps({"custom_id": key, "params": body})

    async def upload(self, _ticket: Ticket, lines: Sequence[bytes]) -> bytes:
        """The body of `create`; nothing is sent."""
        return b'{"requests":[' + b",".join(lines) + b"]}"

    async def create(self, _ticket: Ticket, uploaded: str | bytes) -> str:
        """The id of the batch."""
        with self._translated():
            batch = await self._client.post(
                _PATH,
                cast_to=MessageBatch,
                content=uploaded.encode() if isinstance(uploaded, str) else uploaded,
                options={"headers": {"Content-Type": "application/json"}},
            )
        return batch.id

    async def find(self, ticket: Ticket) -> str | None:
        """By the first custom id, among the batches created since with as many requests."""
        going_on = False
        with self._translated():
            async for batch in await self._client.messages.batches.list(limit=100):
                if batch.created_at.timestamp() < ticket.prepared_at - _CLOCKS_S:
                    break
                if _total(batch) != len(ticket.keys):
                    continue
                if batch.processing_status != "ended":
                    going_on = True
                elif await self._first_id(batch.id) in ticket.keys:
                    return batch.id
        if going_on:
            raise Undecided
        return None

    async def _first_id(self, batch_id: str) -> str | None:
        try:
            async with aclosing(self._stream(batch_id)) as lines:
                async for line in lines:
                    return line.custom_id
        except ResultsGone:
            return None
        return None

    async def look(self, batch_id: str) -> State:
        """How far it is; the vendor counts only once all is over."""
        with self._translated():
            batch = await self._client.messages.batches.retrieve(batch_id)
        return State(
            id=batch.id,
            status=batch.processing_status,
            over=batch.processing_status == "ended",
            done=_total(batch) - batch.request_counts.processing,
            total=_total(batch),
            expires_at=batch.expires_at.timestamp(),
            files=(batch.id,),
        )

    def results(self, state: State) -> AsyncGenerator[Line]:
        """From the documented path, not from the URL in the reply: that could name another host."""
        return self._stream(state.id)

    async def _stream(self, batch_id: str) -> AsyncGenerator[Line]:
        import httpx2

        path = f"{_PATH}/{quote(batch_id, safe='')}/results"
        try:
            with self._translated():
                response = await self._client.get(
                    path, cast_to=httpx2.Response, options={"headers": {_RAW_RESPONSE: "stream"}}
                )
                async with aclosing(response):
                    async for raw in split_lines(response.aiter_bytes()):
                        line = _line(raw, self._endpoint)
                        if line is not None:
                            yield line
        except Refused as refused:
            if refused.reply.status in (404, 410):
                raise ResultsGone(batch_id) from refused
            raise

    async def cancel(self, batch_id: str) -> None:
        """Requests the vendor has begun are answered all the same, and paid."""
        with self._translated():
            await self._client.messages.batches.cancel(batch_id)

    async def close(self) -> None:
        """Release sockets."""
        await self._client.close()


def _total(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


def _line(raw: bytes, endpoint: Endpoint) -> Line | None:
    """None for a line that names no request."""
    parsed = parse_object(raw)
    if parsed is None or not (custom_id := as_text(parsed.get("custom_id"))):
        return None
    result = as_object(parsed.get("result"))
    match as_text(result.get("type")):
        case "succeeded":
            return Line(custom_id, endpoint.clean(200, {}, orjson.dumps(result.get("message"))))
        case "errored":
            # The error has no status of its own; the wire takes it from its type, as in a 200 that is an error.
            return Line(custom_id, endpoint.clean(200, {}, orjson.dumps(result.get("error"))), billed=False)
        case status:
            return Line(custom_id, None, "cancelled" if status == "canceled" else status or "unknown")
