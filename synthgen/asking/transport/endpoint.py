"""One endpoint and its credential: what every transport needs to know, and the one place where secrets are scrubbed.

In: a base URL, a dialect, a key. Out: request headers, replies without the key. Guarantee: nothing that leaves a
transport (body, header, error text) holds the key, also where a server echoes it in its 401. Rejected: scrubbing
at the writers (journal, log, report): one of them would forget.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from itertools import chain
from typing import Literal
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from synthgen.asking.outcome import HttpReply, TransportFailure
from synthgen.dataclasses import dataclass

__all__ = ["BODY_CAP_BYTES", "SCRUBBED", "Dialect", "Endpoint", "beside", "too_large"]

Dialect = Literal["openai", "anthropic"]

BODY_CAP_BYTES = 64 * 2**20
SCRUBBED = "[credential]"
# Shorter values are no secrets ("EMPTY", "none", "1"), and replacing them would damage answers.
MIN_SECRET_CHARS = 8
ANTHROPIC_VERSION = "2023-06-01"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`base_url` ends with the API version and without a slash; `key` None sends no credential."""

    base_url: str
    dialect: Dialect
    key: str | None = field(default=None, repr=False)
    connect_timeout_s: float = 10.0
    _key_spelt: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Spelt once: every reply is searched for it."""
        object.__setattr__(self, "_key_spelt", _spellings([self.key or ""]))

    def headers(self) -> dict[str, str]:
        """Credential and API version, as the dialect wants them."""
        if self.dialect == "anthropic":
            version = {"anthropic-version": ANTHROPIC_VERSION}
            return version if self.key is None else {**version, "x-api-key": self.key}
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    def clean_text(self, text: str) -> str:
        """`text` with every spelling of the key replaced."""
        return _scrubbed(text, self._key_spelt)

    def clean(
        self, status: int, headers: Mapping[str, str], body: bytes, *, also: Iterable[str] = ()
    ) -> HttpReply:
        """The reply without the key and the secrets of `also`; the names of `headers` are in lower case.

        A redirect's `location` is a whole URL, without what it may hold of secrets.
        """
        spellings = self._key_spelt + _spellings(also) if also else self._key_spelt
        named = headers
        for spelling in spellings:
            body = body.replace(spelling.encode(), SCRUBBED.encode())
            named = {name: text.replace(spelling, SCRUBBED) for name, text in named.items()}
        if 300 <= status < 400 and "location" in named:
            named = {**named, "location": _target(self.base_url, named["location"])}
        return HttpReply(status, named, body)


def _spellings(texts: Iterable[str]) -> tuple[str, ...]:
    secrets = [text for text in texts if len(text) >= MIN_SECRET_CHARS]
    spelled = ((secret, json.dumps(secret)[1:-1], quote(secret, safe="")) for secret in secrets)
    return tuple(dict.fromkeys(chain.from_iterable(spelled)))


def _scrubbed(text: str, spellings: Iterable[str]) -> str:
    for spelling in spellings:
        text = text.replace(spelling, SCRUBBED)
    return text


def _target(base_url: str, location: str) -> str:
    """Scheme, host and path of a redirect; only the path of one that is relative to a page, empty for what is no URL."""
    try:
        whole = urljoin(base_url, location) if location.startswith("/") else location
        parts = urlsplit(whole)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return ""


def beside(base_url: str, page: str) -> str:
    """The URL of a page that a server keeps outside its versioned API, like `/metrics`."""
    parts = urlsplit(base_url)
    root, version, _ = parts.path.rpartition("/v1")
    return f"{parts.scheme}://{parts.netloc}{root if version else parts.path.rpartition('/')[0]}{page}"


def too_large() -> TransportFailure:
    """The failure of a reply above the cap; it was answered, so it may be paid."""
    return TransportFailure("body", f"the reply is larger than {BODY_CAP_BYTES >> 20} MiB", maybe_paid=True)
