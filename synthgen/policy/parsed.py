"""The values in the registry's TOML files, without parsing them where that was done before.

In: files. Out: one mapping each. `registry.json` beside them holds what they say; it counts only if it was made of these
very bytes, so a changed file is parsed, and nothing but time depends on whether that file is there. tomllib takes 70 ms for
the shipped files, a tenth of a command's start. `python -m synthgen.policy.parsed` writes it anew.
Rejected: a cache in the user's folder (state nobody sees, and a container pays every time).
"""

import tomllib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import orjson

from synthgen.errors import UsageError

__all__ = ["PACKAGED", "parse_all", "write_parsed"]

PACKAGED = Path(__file__).resolve().parent / "data"
_NAME = "registry.json"


def parse_all(folder: Path, paths: Sequence[Path]) -> list[object]:
    """What each file of a registry says, in their order.

    Raises:
        UsageError: a file cannot be read, or is not TOML.
    """
    raw = [_read(path) for path in paths]
    try:
        kept = orjson.loads((folder / _NAME).read_bytes())
        if kept["of"] == _digest(raw):
            return list(kept["files"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or not ours: the files themselves say it all
    return [_parse(path, text) for path, text in zip(paths, raw, strict=True)]


def write_parsed(folder: Path) -> None:
    """Write what `parse_all` finds next time."""
    paths = sorted(folder.rglob("*.toml"))
    raw = [_read(path) for path in paths]
    files = [_parse(path, text) for path, text in zip(paths, raw, strict=True)]
    kept = {"of": _digest(raw), "files": files}
    (folder / _NAME).write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _digest(raw: Sequence[bytes]) -> str:
    """Of all files; where one ends is part of it."""
    return sha256(b"".join(sha256(text).digest() for text in raw)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error


def _parse(path: Path, text: bytes) -> object:
    try:
        return tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error


if __name__ == "__main__":
    write_parsed(PACKAGED)
