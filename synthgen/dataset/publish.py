"""The commit of a dataset: all of it becomes visible, under one manifest, or nothing does.

In: finished shards (`Staged`), the texts beside the data (card, policy, licences), the manifest's own entries. Out: the
dataset in `out`, with `manifest.json` written last.
Guarantees: a folder with a manifest shows exactly the files it lists; killed at any moment, the folder is either the
old publication, or has no manifest and the next `publish` ends with the same bytes; nothing that synthgen did not
write is replaced or removed.

    1  new files beside the old ones, under .staging/new, everything synced       phase "shards"
    2  .publishing.json names every top-level entry we own, old and new
    3  manifest.json is removed: the folder is unpublished
    4  old entries move to .staging/old                                           phase "swap"
    5  new entries move into place                                                phase "manifest"
    6  manifest.json is written, then .publishing.json and .staging are removed

Rejected: one folder per publication and a symlink to the newest (readers, `datasets` and object stores do not agree
on symlinks).
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

import orjson

from synthgen.dataset.about import CardFile
from synthgen.dataset.whole import file_sha256, storage_errors, sync_folder, write_bytes
from synthgen.errors import StorageError
from synthgen.shape import SCHEMA_VERSION
from synthgen.types import JSONValue

__all__ = ["FOLDERS", "TEXTS", "check_target", "is_published", "publish", "read_manifest", "verify"]

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
FOLDERS = ("data", "rejected", "quarantine", "lineage", "logprobs")
# Texts every publication of ours has; others are checked when they are known.
TEXTS = ("README.md", "NOTICE", "POLICY.json", "OBLIGATIONS.md", "LICENSES", "croissant.json", "spdx.json")
_INTENT = ".publishing.json"
_DAMAGED = "restore it, or choose another output folder"


class Staged(Protocol):
    """Finished shards that nobody sees yet: `Staging` of records, `TableStaging` of any rows."""

    @property
    def folder(self) -> Path:
        """Ours, inside the output folder; `publish` may use it."""

    @property
    def new(self) -> Path:
        """The shards, in the folders they will have in the dataset."""

    @property
    def rows(self) -> Mapping[str, int]:
        """Path of each shard below `new` -> its rows."""

    @property
    def files(self) -> tuple[CardFile, ...]:
        """The same shards with their hashes."""

    def close(self) -> None:
        """Remove the folder."""


def publish(
    out: Path,
    staging: Staged,
    *,
    texts: Mapping[str, bytes],
    manifest: Mapping[str, JSONValue],
    phase: Callable[[str], None] = lambda _: None,
) -> None:
    """Replace what `out` publishes by what is in `staging`, which is finished.

    `texts` maps paths inside `out` to contents. `manifest` is written beside our own entries `manifest_version`,
    `schema_version` and `files` (path -> sha256, size_bytes and, for shards, rows). `phase` hears where we are.

    Raises:
        StorageError: the disk refuses, or a file of somebody else is in the way (then nothing was touched).
        ValueError: `manifest` or `texts` use a name of ours.
    """
    files = _write_texts(staging, texts)
    entries = _manifest(manifest, files, staging)
    ours = {PurePosixPath(path).parts[0] for path in files}
    owned = _owned(out)
    _refuse_foreign(out, {*ours, *FOLDERS}, owned)
    with storage_errors(out):
        _sync_tree(staging.new)
        phase("shards")
        write_bytes(out / _INTENT, orjson.dumps(sorted(ours | owned)))
        sync_folder(out)
        earlier = (out / MANIFEST).read_bytes() if is_published(out) else None
        (out / MANIFEST).unlink(missing_ok=True)
        sync_folder(out)
        try:
            _swap(out, staging, old=sorted(ours | owned), new=sorted(ours), phase=phase)
        except OSError:
            _swap_back(out, staging, new=sorted(ours), manifest=earlier)
            raise
        phase("manifest")
        write_bytes(out / MANIFEST, entries)
        sync_folder(out)
        (out / _INTENT).unlink(missing_ok=True)
    staging.close()


def is_published(out: Path) -> bool:
    """Whether the folder's publication was finished; says nothing about damage since (see `verify`)."""
    return (out / MANIFEST).is_file()


def read_manifest(out: Path) -> dict[str, JSONValue]:
    """The manifest of a published folder.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    path = out / MANIFEST
    with storage_errors(path):
        try:
            manifest = orjson.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise StorageError(f"{path}: not published: run the command that writes it to its end") from error
        except orjson.JSONDecodeError as error:
            raise StorageError(f"{path}: damaged: {error}; {_DAMAGED}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise StorageError(f"{path}: damaged: not a manifest of synthgen; {_DAMAGED}")
    return manifest


def verify(out: Path) -> list[str]:
    """What is wrong with a published folder, one line each, sorted: missing, changed, and unlisted files.

    Raises:
        StorageError: there is no readable manifest.
    """
    listed = read_manifest(out)["files"]
    assert isinstance(listed, dict)  # read_manifest
    problems = []
    for name, entry in listed.items():
        path = out / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif not isinstance(entry, dict) or entry.get("sha256") != file_sha256(path):
            problems.append(f"{name}: changed since it was published")
    for folder in FOLDERS:
        for path in (out / folder).rglob("*"):
            name = path.relative_to(out).as_posix()
            if path.is_file() and name not in listed:
                problems.append(f"{name}: not part of the publication")
    return sorted(problems)


def check_target(out: Path, also: Iterable[str] = ()) -> None:
    """Refuse a folder whose `data/`, ... or manifest are not ours, before any work is done for it.

    `also` names further top-level entries the caller will write.

    Raises:
        StorageError: names what is in the way.
    """
    _refuse_foreign(out, {*FOLDERS, *TEXTS, *also}, _owned(out))


def _write_texts(staging: Staged, texts: Mapping[str, bytes]) -> list[str]:
    """Put the texts beside the shards; the sorted paths of all files of the publication."""
    for name, content in texts.items():
        parts = PurePosixPath(name).parts
        if parts[0] in (*FOLDERS, MANIFEST, _INTENT) or ".." in parts or name.startswith("/"):
            raise ValueError(f"{name!r} cannot be the name of a text")
        path = staging.new / name
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    return sorted([*staging.rows, *texts])


def _manifest(own: Mapping[str, JSONValue], names: Iterable[str], staging: Staged) -> bytes:
    files: dict[str, JSONValue] = {}
    shards = {file.path: file for file in staging.files}
    for name in names:
        if name in shards:
            shard = shards[name]
            files[name] = {"sha256": shard.sha256, "size_bytes": shard.size_bytes, "rows": shard.rows}
            continue
        path = staging.new / name
        with storage_errors(path):
            files[name] = {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
    ours: dict[str, JSONValue] = {
        "manifest_version": MANIFEST_VERSION,
        "schema_version": SCHEMA_VERSION,
        "files": files,
    }
    if taken := sorted(set(own) & set(ours)):
        raise ValueError(f"manifest entries {', '.join(taken)} are written by publish itself")
    return orjson.dumps(
        {**own, **ours}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    )


def _owned(out: Path) -> set[str]:
    """Top-level entries that an earlier publication put here, be it finished or killed on the way."""
    owned: set[str] = set()
    if is_published(out):
        listed = read_manifest(out)["files"]
        assert isinstance(listed, dict)  # read_manifest
        owned |= {PurePosixPath(name).parts[0] for name in listed}
    if (out / _INTENT).is_file():
        with storage_errors(out / _INTENT):
            owned |= set(orjson.loads((out / _INTENT).read_bytes()))
    return owned


def _refuse_foreign(out: Path, names: set[str], owned: set[str]) -> None:
    for name in sorted(names - owned):
        if (out / name).exists():
            raise StorageError(
                f"{out / name}: is in the way and was not published by synthgen: "
                "move it, or choose another output folder"
            )


def _swap(
    out: Path, staging: Staged, *, old: list[str], new: list[str], phase: Callable[[str], None]
) -> None:
    aside = staging.folder / "old"
    aside.mkdir()
    for name in old:
        if (out / name).exists():
            (out / name).rename(aside / name)
    phase("swap")
    for name in new:
        (staging.new / name).rename(out / name)
    sync_folder(out)


def _swap_back(out: Path, staging: Staged, *, new: list[str], manifest: bytes | None) -> None:
    """The disk refused in the middle of a swap: show what was published before, if anything was."""
    aside = staging.folder / "old"
    for name in new:
        if (aside / name).exists() and (out / name).exists():
            (out / name).rename(staging.new / name)
    for path in aside.iterdir() if aside.is_dir() else ():
        path.rename(out / path.name)
    if manifest is not None:
        write_bytes(out / MANIFEST, manifest)
        (out / _INTENT).unlink(missing_ok=True)


def _sync_tree(root: Path) -> None:
    """Make every name below `root` durable; the files themselves were synced when written."""
    for folder in sorted({root, *(path for path in root.rglob("*") if path.is_dir())}):
        sync_folder(folder)
