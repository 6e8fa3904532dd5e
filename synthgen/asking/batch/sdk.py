"""What both vendors' SDKs need to be kept to: our key and no other, and errors in our words.

In: an SDK's error classes, its HTTP client's requests. Out: `Refused` and `TransportFailure`. Both SDKs are made from one
pattern, so one translation serves; neither is imported here.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from synthgen.asking.batch.vendor import Refused
from synthgen.asking.outcome import TransportFailure
from synthgen.asking.transport.endpoint import Endpoint

if TYPE_CHECKING:
    import anthropic
    import httpx2
    import openai

__all__ = ["only_our_key", "translated"]


def only_our_key(endpoint: Endpoint) -> "Callable[[httpx2.Request], Awaitable[None]]":
    """A hook for an SDK's HTTP client: its environment must add no credential, organisation or project to ours."""

    async def hook(request: "httpx2.Request") -> None:
        for name in ("Authorization", "X-Api-Key", "OpenAI-Organization", "OpenAI-Project"):
            request.headers.pop(name, None)
        request.headers.update(endpoint.headers())

    return hook


@contextmanager
def translated(
    endpoint: Endpoint,
    status_error: "type[openai.APIStatusError | anthropic.APIStatusError]",
    connection_error: "type[openai.APIConnectionError | anthropic.APIConnectionError]",
) -> Iterator[None]:
    """The SDK's errors as ours, without the key."""
    import httpx2

    try:
        yield
    except status_error as error:
        reply = error.response
        raise Refused(endpoint.clean(reply.status_code, reply.headers, reply.content)) from None
    except (connection_error, httpx2.TransportError) as error:
        cause = error.__cause__ or error
        said = endpoint.clean_text(f"{type(cause).__name__}: {cause}")
        raise TransportFailure("reset", said, maybe_paid=False) from None
    except ValueError as error:  # a body that is no JSON
        raise TransportFailure("body", endpoint.clean_text(str(error)), maybe_paid=False) from None
