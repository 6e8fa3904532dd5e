"""What `train score -o` writes into, and what it leaves alone."""

from collections.abc import Callable
from pathlib import Path

import orjson
import polars as pl
import pytest

from synthgen.errors import UsageError
from synthgen.train.ifd import rate_dataset
from synthgen.train.reading import read_dataset
from synthgen.train.score import score_conversations
from tests.chat_templates import tokenizer
from tests.runs import cli
from tests.tiny_models import tiny_llama

ROWS = [{"instruction": f"Question {n}", "output": f"The answer is {n}."} for n in range(2)]
SOFT = "score-00000.parquet"
Score = Callable[[Path, str, Path], None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher")
    reader = tokenizer("chatml")
    tiny_llama(len(reader)).save_pretrained(folder)
    reader.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["jsonl", "parquet"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"in.{request.param}"
    if request.param == "jsonl":
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    else:
        pl.DataFrame(ROWS).write_parquet(path)
    return path


def soft(rows: Path, teacher: str, out: Path) -> None:
    score_conversations(read_dataset(rows).conversations, teacher, out, k=2)


def ifd(rows: Path, teacher: str, out: Path) -> None:
    rate_dataset(rows, teacher, out)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("options", [[], ["--ifd"]])
def test_a_folder_with_a_file_of_somebody_else_is_exit_2_before_the_teacher_is_read(
    tmp_path: Path, rows: Path, options: list[str]
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "notes.txt").write_text("mine")

    refused = cli("train", "score", rows, "--teacher", "./nowhere", "-o", tmp_path / "project", *options)

    assert (refused.code, names(tmp_path / "project")) == (2, ["notes.txt"])
    assert f"{tmp_path / 'project' / 'notes.txt'}: was not written by `train score`" in refused.err


@pytest.mark.parametrize("score", [soft, ifd])
def test_a_dataset_of_somebody_else_with_the_name_of_ours_is_refused(
    tmp_path: Path, rows: Path, score: Score
) -> None:
    (tmp_path / "theirs").mkdir()
    name = SOFT if score is soft else rows.name
    (tmp_path / "theirs" / name).write_bytes(rows.read_bytes())

    with pytest.raises(UsageError, match=f"{name}: was not written by `train score`"):
        score(rows, "./nowhere", tmp_path / "theirs")

    assert (tmp_path / "theirs" / name).read_bytes() == rows.read_bytes()


@pytest.mark.parametrize("score", [soft, ifd])
def test_scores_take_the_place_of_earlier_ones_and_of_what_a_kill_left(
    tmp_path: Path, rows: Path, checkpoint: str, score: Score
) -> None:
    score(rows, checkpoint, tmp_path / "out")
    (written,) = names(tmp_path / "out")
    before = (tmp_path / "out" / written).read_bytes()
    (tmp_path / "out" / f".{written}.part").write_bytes(b"half")

    score(rows, checkpoint, tmp_path / "out")

    assert names(tmp_path / "out") == [written]
    assert (tmp_path / "out" / written).read_bytes() == before


@pytest.mark.parametrize("score", [soft, ifd])
def test_scores_of_files_that_are_not_scored_now_are_refused(
    tmp_path: Path, rows: Path, checkpoint: str, score: Score
) -> None:
    """Whoever reads the folder would take them for the same scores."""
    score(rows, checkpoint, tmp_path / "out")
    (written,) = (tmp_path / "out").iterdir()
    written.rename(written.with_name(f"earlier{written.suffix}"))

    with pytest.raises(UsageError, match=r"earlier\..*: was not written by `train score` for these rows"):
        score(rows, checkpoint, tmp_path / "out")
