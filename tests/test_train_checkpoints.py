"""What a name of a checkpoint is taken for."""

from pathlib import Path

import pytest

from synthgen.errors import SourceError
from synthgen.train.checkpoints import find_checkpoint
from synthgen.train.config import load_student
from synthgen.train.plan import plan_student
from synthgen.train.tasks.dispatch import train_file
from tests.runs import cli

GONE = ["./gone", "../gone", "/gone", "~/gone", "a/b/gone", "students/gone"]


@pytest.mark.parametrize("named", GONE)
def test_what_looks_like_a_path_and_is_none_is_not_asked_of_the_hub(tmp_path: Path, named: str) -> None:
    (tmp_path / "students").mkdir()

    with pytest.raises(SourceError, match=r"there is no folder .*gone"):
        find_checkpoint(named, lambda text: tmp_path / Path(text).expanduser())


@pytest.mark.parametrize("named", ["org/name", "name"])
def test_a_name_of_the_hub_stays_one(tmp_path: Path, named: str) -> None:
    assert find_checkpoint(named, tmp_path.joinpath) == named


def test_a_revision_says_that_the_hub_is_meant(tmp_path: Path) -> None:
    (tmp_path / "org").mkdir()

    assert find_checkpoint("org/name", tmp_path.joinpath, pinned=True) == "org/name"


def test_a_folder_is_found_where_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)

    assert find_checkpoint("org/name", tmp_path.joinpath) == str(tmp_path / "org" / "name")


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")

    with pytest.raises(SourceError, match="model: is a file; name the folder of a checkpoint"):
        find_checkpoint("model", tmp_path.joinpath)


@pytest.mark.parametrize("task", ["generate", "classify", "embed", "on_policy"])
def test_a_base_that_is_not_there_is_told_before_the_data_is_read(tmp_path: Path, task: str) -> None:
    (tmp_path / "students").mkdir()
    more = {
        "classify": "classes: [a, b]",
        "embed": "teacher: org/name",
        "on_policy": "on_policy: {teacher: org/name}",
    }
    file = tmp_path / "s.yaml"
    file.write_text(f"name: s\nbase: students/gone\ntask: {task}\n{more.get(task, '')}\n")

    with pytest.raises(SourceError, match=r"s\.yaml:2: base: there is no folder .*gone"):
        train_file(file, tmp_path / "no-data.jsonl", tmp_path / "out")


def test_a_plan_tells_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "students").mkdir()

    with pytest.raises(SourceError, match=r"there is no folder .*students/gone; the hub is not asked"):
        plan_student(load_student({"name": "s", "base": "students/gone"}), tmp_path / "no-data.jsonl")


def test_a_chain_tells_it_before_its_first_stage(tmp_path: Path) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(
        "student: {base: org/name}\n"
        "stages:\n"
        "  - {name: one}\n"
        "  - {name: two, set: {base: 'stage:one'}}\n"
        "  - {name: three, set: {base: ./gone}}\n"
    )

    with pytest.raises(SourceError, match=r"stage three: base: there is no folder .*gone"):
        train_file(file, tmp_path / "no-data.jsonl", tmp_path / "out")


@pytest.mark.parametrize("verb", [("evaluate", "students/gone"), ("score", "--teacher", "students/gone")])
def test_a_student_or_teacher_that_is_not_there_is_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "students").mkdir()
    (tmp_path / "in.jsonl").write_text('{"instruction": "Question?", "output": "Answer."}\n')

    name, *student = verb
    refused = cli("train", name, *student, "in.jsonl")

    assert (refused.code, "there is no folder students/gone" in refused.err) == (2, True)
