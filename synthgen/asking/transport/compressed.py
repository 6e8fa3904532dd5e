"""Replies that come compressed although `identity` was asked for: some proxies do that to whatever passes.

In: a body as it came, and its `Content-Encoding`. Out: the body, or `TransportFailure`; it was answered, so it may be paid.
gzip, deflate and zstd are read, never beyond the cap, however far they would unfold. Another coding (br) is `compressed`: the
failure holds the body, to be kept for whoever has a reader for it. A refusal keeps its status, also where what it says
cannot be read.
Rejected: the HTTP libraries' own readers (whether they read br depends on what else is installed, and what they cannot
read they drop), and a dependency for a coding that nobody is asked to use.
"""

import sys
import zlib
from base64 import b64encode

from synthgen.asking.outcome import TransportFailure
from synthgen.asking.transport.endpoint import Endpoint, too_large

__all__ = ["decompressed"]

_ZLIB_OR_GZIP, _HEADLESS = 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS
# `deflate` is zlib's format (RFC 9110, section 8.4.1.2), but some leave its head out. Half of the first byte of zlib, gzip.
_HEADS = (0x8, 0xF)


def decompressed(endpoint: Endpoint, status: int, coding: str, raw: bytes, *, most_bytes: int) -> bytes:
    """The body of a reply of `endpoint`, whose header names `coding`.

    Raises:
        TransportFailure: it cannot be read, and is no refusal.
    """
    coding = endpoint.clean_text(coding).strip().lower()
    if not raw or coding in ("", "identity"):
        return raw
    try:
        match coding:
            case "deflate" if raw[0] & 15 not in _HEADS:
                return _inflated(_HEADLESS, raw, most_bytes)
            case "gzip" | "x-gzip" | "deflate":
                return _inflated(_ZLIB_OR_GZIP, raw, most_bytes)
            case "zstd":
                return _unzstd(raw, most_bytes)
        raise _unknown(endpoint, coding[:40], raw)
    except TransportFailure:
        if 200 <= status < 300:
            raise
        return b""


def _inflated(format_bits: int, raw: bytes, most_bytes: int) -> bytes:
    decoder = zlib.decompressobj(format_bits)
    try:
        plain = decoder.decompress(raw, most_bytes + 1)
    except zlib.error:
        raise _broken() from None
    if len(plain) > most_bytes:
        raise too_large()
    if not decoder.eof or decoder.unused_data:
        raise _broken()
    return plain


def _unzstd(raw: bytes, most_bytes: int) -> bytes:
    """One frame after another: some servers begin a new one with each piece they send."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    plain: list[bytes] = []
    room = most_bytes
    while raw:
        decoder = zstd.ZstdDecompressor()
        try:
            plain.append(decoder.decompress(raw, room + 1))
        except zstd.ZstdError:
            raise _broken() from None
        room -= len(plain[-1])
        if room < 0:
            raise too_large()
        if not decoder.eof:
            raise _broken()
        raw = decoder.unused_data
    return b"".join(plain)


def _broken() -> TransportFailure:
    return TransportFailure("body", "no readable HTTP reply: broken compression", maybe_paid=True)


def _unknown(endpoint: Endpoint, coding: str, raw: bytes) -> TransportFailure:
    """Its body is text that says how to read it, `br;base64,...`: a journal holds no bytes."""
    body = coding.encode() + b";base64," + b64encode(endpoint.clean(0, {}, raw).body)
    said = f"the reply is compressed with {coding!r}, which cannot be read and was not asked for"
    return TransportFailure("compressed", said, maybe_paid=True, body=body)
