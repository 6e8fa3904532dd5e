"""Parquet files: bytes depend on the rows alone; files are whole or absent."""

import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from synthgen.dataset.write import write_bytes, write_parquet
from synthgen.errors import StorageError
from synthgen.schema import RecordShape, record_schema
from tests.dataset_rows import FULL, PLAIN, full_record, records

ROOT = Path(__file__).resolve().parent.parent


def _sha(frame: pl.DataFrame, folder: Path, shape: RecordShape = PLAIN) -> str:
    path = folder / "x.parquet"
    write_parquet(frame, path, table="record", shape=shape, metadata={"b": "2", "a": "1"}, row_group_rows=100)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_chunks_and_slices_do_not_change_the_bytes(tmp_path: Path) -> None:
    whole = records(0, 500)
    pieces = pl.concat([records(n, n + 1) for n in range(500)], rechunk=False)
    sliced = records(0, 700).slice(0, 500)
    roundtrip = pl.DataFrame(whole.to_dicts(), schema=whole.schema)

    hashes = {_sha(frame, tmp_path) for frame in (whole, pieces, sliced, roundtrip)}

    assert pieces.n_chunks() == 500
    assert len(hashes) == 1


def test_values_hidden_under_nulls_do_not_change_the_bytes(tmp_path: Path) -> None:
    is_odd = pl.col("sample") == 1
    masked = records(0, 200).with_columns(
        pl.when(is_odd).then(None).otherwise(pl.col(name)).alias(name) for name in ("messages", "parents")
    )
    clean = pl.DataFrame(masked.to_dicts(), schema=masked.schema)

    assert _sha(masked, tmp_path) == _sha(clean, tmp_path)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_and_thread_count_write_the_same_bytes(tmp_path: Path, threads: str) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.dataset_rows import *; import polars as pl\n"
        "from tests.test_dataset_write import _sha\n"
        "assert pl.thread_pool_size() == int(sys.argv[2])\n"
        "print(_sha(pl.concat([records(0, 333), records(333, 2000)]), Path(sys.argv[1])))"
    )
    path = str(ROOT)
    env = {**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONPATH": path, "PYTHONHASHSEED": threads}

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), threads],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == _sha(records(0, 2000), tmp_path)


def test_metadata_names_schema_table_shape_and_own_keys(tmp_path: Path) -> None:
    _sha(records(0, 3), tmp_path)

    metadata = pq.read_metadata(tmp_path / "x.parquet").metadata

    own = {key: value for key, value in metadata.items() if key.startswith(b"synthgen.")}
    assert own == {
        b"synthgen.a": b"1",
        b"synthgen.b": b"2",
        b"synthgen.schema_version": b"1",
        b"synthgen.table": b"record",
        b"synthgen.shape": b"plain",
    }


def test_row_groups_have_the_given_size(tmp_path: Path) -> None:
    _sha(records(0, 250), tmp_path)

    file = pq.read_metadata(tmp_path / "x.parquet")

    assert [file.row_group(n).num_rows for n in range(file.num_row_groups)] == [100, 100, 50]


def test_full_shape_comes_back_equal(tmp_path: Path) -> None:
    frame = pl.DataFrame([full_record(n) for n in range(5)], schema=record_schema(FULL))

    _sha(frame, tmp_path, FULL)

    back = pl.read_parquet(tmp_path / "x.parquet")
    assert back.equals(frame)
    assert back.schema == frame.schema


def test_frame_of_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    frame = records(0, 1).drop("flags").with_columns(pl.col("sample").cast(pl.Int64))

    with pytest.raises(ValueError, match=r"missing \['flags'\], unknown \[\], other type \['sample'\]"):
        _sha(frame, tmp_path)


def test_columns_in_another_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        _sha(records(0, 1).select(pl.col("messages"), pl.exclude("messages")), tmp_path)


def test_full_disk_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=r"card\.md.*File too large"):
            write_bytes(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"card.md": b"old"}


def test_file_in_place_of_a_folder_is_a_storage_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")

    with pytest.raises(StorageError, match=r"data.*Not a directory; a file stands where a folder is needed"):
        write_bytes(tmp_path / "data" / "x", b"")
