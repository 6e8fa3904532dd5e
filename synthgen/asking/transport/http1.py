"""One HTTP/1.1 reply to a POST, read from the bytes of a connection.

In: pieces of bytes as they arrive, however they are cut. Out: status, headers with lower-case names, the body, and
whether the connection can carry another request. Guarantees: a reply is whole only when its own framing (length,
chunks, or the end of the connection) says so; nothing larger than the cap is held; what is no HTTP is `Malformed`.
Rejected: h11 (pure Python too, ten times the time), httptools (a compiled dependency for what is sixty lines here).

Source: RFC 9112, sections 4 (status line), 6.3 (length of a body), 7.1 (chunks), 9.3 (persistence).
"""

import re
import zlib
from collections.abc import Callable

__all__ = ["Malformed", "ReplyReader", "TooLarge"]

HEAD_CAP_BYTES = 64 * 2**10
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5]\d\d)(?: |$)")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


class Malformed(Exception):
    """The bytes are no HTTP/1 reply, or one that cannot be decoded."""


class TooLarge(Exception):
    """The body is above the cap."""


class ReplyReader:
    """Feed it until it says that the reply is whole; one for each reply."""

    def __init__(self, cap_bytes: int) -> None:
        self.status = 0  # until the head has been read
        self.headers: dict[str, str] = {}
        self.body = b""
        self.keep_alive = False
        self._cap_bytes = cap_bytes
        self._rest = bytearray()
        self._length = 0
        self._chunks = bytearray()
        self._next: Callable[[], bool] = self._head
        self._whole = False

    def feed(self, piece: bytes) -> bool:
        """Take the next bytes; True once the reply is whole.

        Raises:
            Malformed: see there.
            TooLarge: see there.
        """
        self._rest += piece
        while not self._whole and self._next():
            pass
        if self._whole and self._rest:
            self.keep_alive = False  # nobody asked for more
        return self._whole

    def end(self) -> bool:
        """The server has closed the connection; True if that is how the reply ends."""
        if self._next == self._until_end:
            self._finish(bytes(self._rest))
        return self._whole

    # Each step takes something from `_rest`, or says that more is needed.

    def _head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if (len(self._rest) if end < 0 else end) > HEAD_CAP_BYTES:
            raise Malformed("the head of the reply has no end")
        if end < 0:
            return False
        status_line, *lines = self._rest[:end].decode("latin-1").split("\r\n")
        del self._rest[: end + 4]
        status = _STATUS.match(status_line)
        if status is None:
            raise Malformed("no HTTP/1 status line")
        if status[2][0] == "1":
            return True  # an announcement; the reply follows
        self.headers = _headers(lines)
        self.status = int(status[2])
        self._frame(http_1_0=status[1] == "0")
        return True

    def _frame(self, *, http_1_0: bool) -> None:
        """How the body ends, and what becomes of the connection then."""
        headers = self.headers
        wishes = {wish.strip() for wish in headers.get("connection", "").lower().split(",")}
        self.keep_alive = "keep-alive" in wishes if http_1_0 else "close" not in wishes
        coding = headers.get("transfer-encoding")
        lengths = {length.strip() for length in headers.get("content-length", "").split(",")} - {""}
        if self.status in (204, 304):
            self._next = self._sized
        elif coding is not None:
            if coding.strip().lower() != "chunked":
                raise Malformed("a transfer encoding that nobody asked for")
            self.keep_alive = self.keep_alive and not lengths
            self._next = self._chunk_size
        elif lengths:
            length = lengths.pop()
            if lengths or not re.fullmatch(r"[0-9]{1,15}", length):
                raise Malformed("an unusable content length")
            self._length = int(length)
            if self._length > self._cap_bytes:
                raise TooLarge
            self._next = self._sized
        else:
            self.keep_alive = False
            self._next = self._until_end

    def _sized(self) -> bool:
        if len(self._rest) < self._length:
            return False
        body = bytes(memoryview(self._rest)[: self._length])
        del self._rest[: self._length]
        self._finish(body)
        return True

    def _until_end(self) -> bool:
        if len(self._rest) > self._cap_bytes:
            raise TooLarge
        return False

    def _chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        size = _CHUNK.fullmatch(line)
        if size is None:
            raise Malformed("a chunk without its size")
        self._length = int(size[1], 16)
        if len(self._chunks) + self._length > self._cap_bytes:
            raise TooLarge
        self._next = self._chunk if self._length else self._trailer
        return True

    def _chunk(self) -> bool:
        end = self._length + 2
        if len(self._rest) < end:
            return False
        if self._rest[self._length : end] != b"\r\n":
            raise Malformed("a chunk longer than its size")
        self._chunks += memoryview(self._rest)[: self._length]
        del self._rest[:end]
        self._next = self._chunk_size
        return True

    def _trailer(self) -> bool:
        line = self._line()
        if line == b"":
            self._finish(bytes(self._chunks))
        return line is not None

    def _line(self) -> bytes | None:
        """The next line, taken; None where it has not all come."""
        end = self._rest.find(b"\r\n")
        if (len(self._rest) if end < 0 else end) > HEAD_CAP_BYTES:
            raise Malformed("a line without an end")
        if end < 0:
            return None
        line = bytes(self._rest[:end])
        del self._rest[: end + 2]
        return line

    def _finish(self, body: bytes) -> None:
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        self.body = body if coding in ("identity", "") or not body else self._decoded(body, coding)
        self._whole = True

    def _decoded(self, body: bytes, coding: str) -> bytes:
        """We ask for no compression; a proxy in between may do it all the same."""
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise Malformed(f"compressed with {coding[:20]!r}")
        decoder = zlib.decompressobj(_ZLIB_OR_GZIP)
        try:
            decoded = decoder.decompress(body, self._cap_bytes + 1)
        except zlib.error:
            raise Malformed("broken compression") from None
        if len(decoded) > self._cap_bytes:
            raise TooLarge
        if not decoder.eof:
            raise Malformed("broken compression")
        return decoded


def _headers(lines: list[str]) -> dict[str, str]:
    """Names in lower case; what comes twice is joined by a comma."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise Malformed("a header without a name")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
