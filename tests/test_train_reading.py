"""What is read to train on, and what is set aside to validate."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.dataset.publish import publish
from synthgen.errors import SourceError, UsageError
from synthgen.train.conversation import Conversation
from synthgen.train.reading import read_dataset, split
from synthgen.types import Message
from tests.dataset_rows import staged

TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


def published(out: Path) -> Path:
    """12 records, about a quarter of them in the test split."""
    publish(out, staged(out), texts={"README.md": b"card"}, manifest={"name": "t"})
    return out


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rooted(row: str) -> Conversation:
    return Conversation((Message("user", "Q"), Message("assistant", "A")), (True, True), id=row, row=row)


def test_a_published_folder_gives_its_train_split_alone(tmp_path: Path) -> None:
    dataset = read_dataset(published(tmp_path))

    assert dataset.files
    assert all(name.startswith("data/train-") for name in dataset.files)
    assert 0 < len(dataset.conversations) < 12


def test_rows_keep_their_root(tmp_path: Path) -> None:
    assert all(c.row.startswith("root-") for c in read_dataset(published(tmp_path)).conversations)


def test_a_changed_shard_is_refused(tmp_path: Path) -> None:
    shard = next(published(tmp_path).glob("data/train-*.parquet"))
    shard.write_bytes(shard.read_bytes() + b"x")

    with pytest.raises(SourceError, match="changed since it was published"):
        read_dataset(tmp_path)


def test_a_run_that_is_not_published_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()

    with pytest.raises(UsageError, match="without a published dataset"):
        read_dataset(tmp_path)


def test_the_digest_is_that_of_the_contents(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"messages": TURNS})
    before = read_dataset(file).digest

    assert read_dataset(file).digest == before
    lines(file, {"messages": TURNS}, {"messages": TURNS})
    assert read_dataset(file).digest != before


def test_foreign_rows_have_no_manifest(tmp_path: Path) -> None:
    assert read_dataset(lines(tmp_path / "a.jsonl", {"messages": TURNS})).folder is None


def test_a_limit_ends_the_reading(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", *[{"messages": TURNS}] * 5)

    assert len(read_dataset(file, limit=2).conversations) == 2


@pytest.mark.parametrize("flag", [{"train": False}, {"weight": 0}])
def test_a_message_can_be_kept_out_of_training(tmp_path: Path, flag: dict[str, object]) -> None:
    row = {"system": "S", "messages": [*TURNS, {"role": "user", "content": "Q"}, {**TURNS[1], **flag}]}

    (conversation,) = read_dataset(lines(tmp_path / "a.jsonl", row)).conversations

    assert conversation.trained == (True, True, True, True, False)  # the system message comes first


def test_a_flag_that_is_neither_is_an_error(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"messages": [TURNS[0], {**TURNS[1], "weight": 0.5}]})

    with pytest.raises(SourceError, match=r"a\.jsonl:1: a message's `train` or `weight`"):
        read_dataset(file)


def test_a_row_that_is_no_conversation_is_an_error_with_its_place(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"messages": TURNS}, {"messages": []})

    with pytest.raises(SourceError, match=r"a\.jsonl:2: messages is empty"):
        read_dataset(file)


def test_a_file_whose_rows_cannot_be_read_says_what_is_wrong_with_the_first(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{not json\n", encoding="utf-8")

    with pytest.raises(SourceError, match=r"no row can be read; the first, .*a\.jsonl:1: not valid JSON"):
        read_dataset(file)


def test_a_file_without_rows_is_an_error(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"text": "no turns"})

    with pytest.raises(SourceError, match="no known format: found columns text"):
        read_dataset(file)


# ---- validation share


@given(rows=st.lists(st.text(max_size=4), min_size=2, max_size=40), seed=st.integers(0, 5))
def test_a_root_row_is_on_one_side(rows: list[str], seed: int) -> None:
    if len(set(rows)) < 2:
        return

    train, held = split([rooted(row) for row in rows], 0.3, seed=seed)

    assert {c.row for c in train}.isdisjoint(c.row for c in held)
    assert train
    assert held
    assert len(train) + len(held) == len(rows)


def test_more_rows_move_none(tmp_path: Path) -> None:
    rows = [rooted(str(n)) for n in range(400)]

    few, many = split(rows[:200], 0.2, seed=1)[1], split(rows, 0.2, seed=1)[1]

    assert {c.row for c in few} == {c.row for c in many if int(c.row) < 200}


def test_the_share_is_about_right() -> None:
    held = split([rooted(str(n)) for n in range(1000)], 0.2, seed=0)[1]

    assert 160 < len(held) < 240


def test_one_root_row_cannot_be_both() -> None:
    with pytest.raises(UsageError, match="one source row"):
        split([rooted("a"), rooted("a")], 0.5, seed=0)
