"""The commit point: killed anywhere, the next publish ends with the same bytes."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synthgen.dataset.publish import check_target, is_published, publish, read_manifest, verify
from synthgen.errors import StorageError
from tests.dataset_rows import contents, staged

ROOT = Path(__file__).resolve().parent.parent
TEXTS = {"README.md": b"card\n", "POLICY.json": b"{}\n", "LICENSES/README.md": b"MIT\n"}


def _publish(out: Path, accepted: int = 12, **more: object) -> None:
    texts = {**TEXTS, "NOTICE": b"older\n"} if accepted == 3 else TEXTS
    publish(out, staged(out, accepted), texts=texts, manifest={"name": "t"}, **more)  # type: ignore[arg-type]  # only `phase`


class Killed(BaseException):
    """Stands for SIGKILL inside one process: nothing may catch it."""


def test_published_folder_verifies_and_has_nothing_hidden(tmp_path: Path) -> None:
    _publish(tmp_path)

    assert is_published(tmp_path)
    assert verify(tmp_path) == []
    assert not list(tmp_path.rglob(".*"))


def test_manifest_lists_every_file_with_sha_size_and_rows(tmp_path: Path) -> None:
    _publish(tmp_path)

    manifest = read_manifest(tmp_path)

    files = contents(tmp_path)
    files.pop("manifest.json")
    listed = manifest["files"]
    assert isinstance(listed, dict)
    assert set(listed) == set(files)
    for name, content in files.items():
        entry = listed[name]
        assert isinstance(entry, dict)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["size_bytes"] == len(content)
        assert ("rows" in entry) == name.endswith(".parquet")
    assert (manifest["name"], manifest["schema_version"]) == ("t", 1)


def test_publishing_again_replaces_everything_of_ours_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: t")
    _publish(tmp_path, 3)
    _publish(tmp_path, 12)
    _publish(tmp_path / "fresh", 12)

    again = contents(tmp_path)
    fresh = {
        name.removeprefix("fresh/"): again.pop(name) for name in list(again) if name.startswith("fresh/")
    }
    assert again.pop("recipe.yaml") == b"name: t"
    assert again == fresh
    assert "NOTICE" not in again


@pytest.mark.parametrize("phase", ["shards", "swap", "manifest"])
@pytest.mark.parametrize("before", [0, 3])
def test_killed_in_a_phase_the_next_publish_ends_with_the_same_bytes(
    tmp_path: Path, phase: str, before: int
) -> None:
    if before:
        _publish(tmp_path / "out", before)
    code = (
        "import os, signal, sys; from pathlib import Path; from tests.test_dataset_publish import _publish\n"
        "def kill(phase):\n"
        "    if phase == sys.argv[2]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "_publish(Path(sys.argv[1]), phase=kill)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out"), phase], env=env, check=False)
    published_after_kill = is_published(tmp_path / "out")
    _publish(tmp_path / "out")
    _publish(tmp_path / "fresh")

    assert done.returncode == -signal.SIGKILL
    assert published_after_kill == (phase == "shards" and before > 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_killed_before_any_change_of_the_disk_the_next_publish_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(tmp_path / "fresh")
    names = ("rename", "replace", "unlink", "mkdir")
    real = {name: getattr(Path, name) for name in names}
    left = 0

    def counted(name: str):  # type: ignore[no-untyped-def]  # stands for four methods of Path
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real[name](*args, **kwargs)

        return call

    for kill_at in range(1000):
        out = tmp_path / f"out{kill_at}"
        _publish(out, 3)
        staging = staged(out)
        with monkeypatch.context() as patch:
            left = kill_at
            for name in names:
                patch.setattr(Path, name, counted(name))
            try:
                publish(out, staging, texts=TEXTS, manifest={"name": "t"})
                break
            except Killed:
                pass
        if is_published(out):
            assert verify(out) == []
        _publish(out)
        assert contents(out) == contents(tmp_path / "fresh")
    assert kill_at > 15


def test_full_disk_while_staging_leaves_the_old_publication(tmp_path: Path) -> None:
    _publish(tmp_path, 3)
    old = contents(tmp_path)
    staging = staged(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=r"README\.md"):
            publish(tmp_path, staging, texts={"README.md": b"x" * 5000}, manifest={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    staging.close()

    assert contents(tmp_path) == old


@pytest.mark.parametrize("name", ["data/photo.jpg", "README.md", "rejected/x.parquet"])
def test_files_of_somebody_else_are_refused_and_stay(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")

    with pytest.raises(StorageError, match=f"{name.split('/')[0]}: is in the way"):
        _publish(tmp_path)

    assert path.read_bytes() == b"mine"
    assert not is_published(tmp_path)


def test_target_is_checked_before_work(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    with pytest.raises(StorageError, match="data: is in the way"):
        check_target(tmp_path)


def test_own_publication_is_a_good_target(tmp_path: Path) -> None:
    _publish(tmp_path)

    check_target(tmp_path)


def test_verify_names_missing_changed_and_unlisted_files(tmp_path: Path) -> None:
    _publish(tmp_path)
    (tmp_path / "README.md").write_bytes(b"edited")
    (tmp_path / "rejected/rejected-00000-of-00001.parquet").unlink()
    (tmp_path / "data/extra.parquet").write_bytes(b"")

    assert verify(tmp_path) == [
        "README.md: changed since it was published",
        "data/extra.parquet: not part of the publication",
        "rejected/rejected-00000-of-00001.parquet: missing",
    ]


def test_unpublished_folder_has_no_manifest_to_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not published"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"files": []})])
def test_damaged_manifest_is_a_storage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(StorageError, match="damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["data/x", "manifest.json", "../x", "/x"])
def test_text_outside_its_place_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        publish(tmp_path, staged(tmp_path), texts={name: b""}, manifest={})


def test_manifest_entries_of_ours_cannot_be_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="files"):
        publish(tmp_path, staged(tmp_path), texts={}, manifest={"files": {}})


def test_phases_come_in_order(tmp_path: Path) -> None:
    heard: list[str] = []

    _publish(tmp_path, phase=heard.append)

    assert heard == ["shards", "swap", "manifest"]
