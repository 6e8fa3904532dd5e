"""What is trained on, out of a run's folder or anybody's files."""

from pathlib import Path

import orjson
import polars as pl
import pytest

from synthgen.errors import SourceError, UsageError
from synthgen.train.conversation import Conversation
from synthgen.train.masks import fitting
from synthgen.train.reading import read_dataset, split
from synthgen.types import Message
from tests.described import made, rows_file
from tests.runs import records
from tests.tiny_models import example


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("read")
    return made(folder / "out", rows_file(folder / "in.jsonl"), use=("train-general",))


def lines(path: Path, *rows: object) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def asked(answer: str, **fields: object) -> dict[str, object]:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer, **fields}]
    return {"messages": turns}


def rows(count: int, *, per_root: int = 1) -> list[Conversation]:
    said = (Message("user", "a"), Message("assistant", "b"))
    return [
        Conversation(said, (True, True), id=f"{at}", row=f"root-{at // per_root}")
        for at in range(count * per_root)
    ]


def test_of_a_run_the_train_split_alone_is_read(run: Path) -> None:
    files = sorted((run / "data").glob("train-*.parquet"))
    train = pl.read_parquet(files)["id"].to_list()

    assert [one.id for one in read_dataset(run).conversations] == train
    assert len(records(run)) > len(train)


def test_a_changed_run_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for file in run.rglob("*"):
        if file.is_file():
            target = copy / file.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    shard = next((copy / "data").glob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes() + b"x")

    with pytest.raises(SourceError, match="changed since it was published"):
        read_dataset(copy)


def test_jsonl_of_anybody_is_read(tmp_path: Path) -> None:
    file = lines(tmp_path / "chat.jsonl", asked("So."), asked("Thus."))

    dataset = read_dataset(file)

    assert [one.messages[-1].content for one in dataset.conversations] == ["So.", "Thus."]
    assert dataset.folder is None


@pytest.mark.parametrize("flag", [{"train": False}, {"weight": 0}])
def test_a_message_can_be_kept_out(tmp_path: Path, flag: dict[str, object]) -> None:
    file = lines(tmp_path / "chat.jsonl", asked("So.", **flag))

    assert read_dataset(file).conversations[0].turns() == []


def test_a_row_that_is_no_conversation_is_named(tmp_path: Path) -> None:
    file = lines(tmp_path / "chat.jsonl", asked("So."), {"messages": "none"})

    with pytest.raises(SourceError, match=r"chat\.jsonl:2"):
        read_dataset(file)


def test_the_digest_is_of_the_rows(tmp_path: Path) -> None:
    one = read_dataset(lines(tmp_path / "chat.jsonl", asked("So."))).digest
    other = read_dataset(lines(tmp_path / "chat.jsonl", asked("No."))).digest

    assert one != other


def test_validation_takes_whole_root_rows() -> None:
    train, validation = split(rows(50, per_root=3), 0.2, seed=0)

    assert validation
    assert {one.row for one in train}.isdisjoint(one.row for one in validation)
    assert len(train) + len(validation) == 150


def test_more_rows_move_none_between_the_sides() -> None:
    small = {one.id for one in split(rows(50), 0.2, seed=0)[1]}
    large = {one.id for one in split(rows(80), 0.2, seed=0)[1]}

    assert small == {one for one in large if int(one) < 50}


def test_one_root_row_cannot_be_on_both_sides() -> None:
    with pytest.raises(UsageError, match="one source row"):
        split(rows(1, per_root=4), 0.5, seed=0)


def test_rows_that_are_too_long_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"1 of 2 rows have more than 10 tokens, the longest 12"):
        fitting([example(8, 2), example(12, 2)], 10, drop=False)


def test_rows_that_are_too_long_are_dropped_and_counted() -> None:
    kept, dropped = fitting([example(8, 2), example(12, 2)], 10, drop=True)

    assert ([len(one) for one in kept], dropped) == ([8], 1)
