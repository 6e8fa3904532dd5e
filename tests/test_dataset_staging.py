"""Shards and split: what `Staging.finish` leaves, whatever way the rows came."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.dataset.staging import Staging, _Split, root_hash
from synthgen.errors import StorageError
from tests.dataset_rows import PLAIN, contents, lineage, records, rejected, staged


def _staged(out: Path, frames: list[pl.DataFrame], *, share: float, rows_per_shard: int = 1000) -> Staging:
    staging = Staging(out, PLAIN, rows_per_shard=rows_per_shard, test_share=share)
    for frame in frames:
        staging.add("accepted", frame)
    staging.finish()
    return staging


def _side(staging: Staging, side: str) -> pl.DataFrame:
    files = sorted((staging.new / "data").glob(f"{side}-*"))
    return pl.concat([pl.read_parquet(file) for file in files]) if files else records(0, 0)


def test_shards_are_numbered_and_sized(tmp_path: Path) -> None:
    staging = staged(tmp_path, 12, share=0.0)

    assert staging.rows == {
        "data/train-00000-of-00003.parquet": 5,
        "data/train-00001-of-00003.parquet": 5,
        "data/train-00002-of-00003.parquet": 2,
        "rejected/rejected-00000-of-00001.parquet": 3,
        "lineage/lineage-00000-of-00003.parquet": 5,
        "lineage/lineage-00001-of-00003.parquet": 5,
        "lineage/lineage-00002-of-00003.parquet": 2,
    }
    assert set(staging.rows) == set(contents(staging.new))


def test_rows_keep_plan_order(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [records(0, 7), records(7, 20)], share=0.0, rows_per_shard=6)

    assert _side(staging, "train").equals(records(0, 20))


def test_a_full_last_shard_leaves_no_empty_one(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [records(0, 10)], share=0.0, rows_per_shard=5)

    assert list(staging.rows.values()) == [5, 5]


def test_cuts_of_the_input_do_not_change_the_bytes(tmp_path: Path) -> None:
    one = _staged(tmp_path / "a", [records(0, 9000)], share=0.2, rows_per_shard=3500)
    many = _staged(
        tmp_path / "b", [records(n, n + 90) for n in range(0, 9000, 90)], share=0.2, rows_per_shard=3500
    )

    assert contents(one.new) == contents(many.new)
    assert len(one.rows) > 3


def test_no_rows_give_one_empty_train_shard_and_nothing_else(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [], share=0.5)

    assert staging.rows == {"data/train-00000-of-00001.parquet": 0}
    assert _side(staging, "train").schema == records(0, 0).schema


def test_records_of_one_root_row_are_never_split(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [records(0, 400, per_root=4)], share=0.3)

    train, test = _side(staging, "train"), _side(staging, "test")
    assert train.height + test.height == 400
    assert test.height > 0
    assert not set(train["row"]) & set(test["row"])


def test_share_zero_gives_no_test_files(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [records(0, 50)], share=0.0)

    assert not list(staging.new.rglob("test-*"))


def test_tiny_share_gives_the_root_row_with_the_smallest_hash(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [records(0, 40, per_root=2)], share=1e-12)

    smallest = min((f"root-{n}" for n in range(20)), key=root_hash)
    assert _side(staging, "test")["row"].to_list() == [smallest] * 2


def test_huge_share_leaves_a_train_row(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [records(0, 2)], share=0.999999)

    assert (_side(staging, "train").height, _side(staging, "test").height) == (1, 1)


def test_a_single_root_row_is_for_training(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [records(0, 4, per_root=4)], share=0.9)

    assert list(staging.rows) == ["data/train-00000-of-00001.parquet"]


def test_the_share_is_about_the_share(tmp_path: Path) -> None:
    staging = _staged(tmp_path, [records(0, 5000)], share=0.1)

    assert 400 < _side(staging, "test").height < 600


@settings(deadline=None)
@given(
    st.sets(st.text(min_size=1), min_size=2, max_size=20), st.floats(0, 1, exclude_min=True, exclude_max=True)
)
def test_with_two_roots_and_a_share_neither_side_is_empty(rows: set[str], share: float) -> None:
    split = _Split()
    split.see(rows)

    in_test = [root_hash(row) < split.cut(share) for row in rows]

    assert any(in_test)
    assert not all(in_test)


def test_more_rows_never_move_a_row_that_the_share_put_in_test(tmp_path: Path) -> None:
    few = _staged(tmp_path / "a", [records(0, 100)], share=0.2)
    many = _staged(tmp_path / "b", [records(0, 300)], share=0.2)

    assert set(_side(few, "test")["id"]) <= set(_side(many, "test")["id"])


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    killed = Staging(tmp_path, PLAIN, rows_per_shard=5, test_share=0.0)
    killed.add("accepted", records(0, 5000))

    staging = staged(tmp_path, 3, share=0.0)

    assert staging.rows["data/train-00000-of-00001.parquet"] == 3
    assert not list(staging.folder.rglob("*.arrow"))


def test_leaving_the_block_removes_the_folder(tmp_path: Path) -> None:
    with staged(tmp_path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_null_row_is_refused(tmp_path: Path) -> None:
    staging = Staging(tmp_path, PLAIN, rows_per_shard=5, test_share=0.0)

    with pytest.raises(ValueError, match="must not be null"):
        staging.add("accepted", records(0, 2).with_columns(row=pl.lit(None, pl.String)))


def test_frame_of_another_kind_is_refused(tmp_path: Path) -> None:
    staging = Staging(tmp_path, PLAIN, rows_per_shard=5, test_share=0.0)

    with pytest.raises(ValueError, match="not a lineage table"):
        staging.add("lineage", rejected(0, 1))
    staging.add("lineage", lineage(0, 1))


def test_output_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")

    with pytest.raises(StorageError, match="out"):
        Staging(tmp_path / "out", PLAIN, rows_per_shard=5, test_share=0.0)
