"""What we publish loads where people load data: datasets, polars, pandas, DuckDB."""

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

from synthgen.dataset.about import CardInfo
from synthgen.dataset.card import dataset_card
from synthgen.dataset.publish import publish
from synthgen.dataset.staging import Staging
from synthgen.schema import record_schema
from tests.dataset_rows import FULL, PLAIN, full_record, staged


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Twelve plain records, three rejects, and the card that tells `datasets` where they lie."""
    out = tmp_path / "run"
    staging = staged(out)
    tests = sum(rows for name, rows in staging.rows.items() if "/test-" in name)
    info = CardInfo("t", "0", 12 - tests, tests, 3, {})
    publish(out, staging, texts={"README.md": dataset_card(info).encode()}, manifest={})
    return out


def _load(folder: Path, *config: str):  # type: ignore[no-untyped-def]  # datasets has no types
    import datasets

    return datasets.load_dataset(str(folder), *config, cache_dir=str(folder.parent / "cache"))


def test_datasets_reads_the_folder_through_its_card(published: Path) -> None:
    loaded = _load(published)

    assert set(loaded) == {"train", "test"}
    assert loaded["train"].num_rows + loaded["test"].num_rows == 12
    assert loaded["train"][0]["messages"][0]["role"] == "user"


def test_datasets_reads_the_rejected_config(published: Path) -> None:
    assert _load(published, "rejected")["train"]["reason"][:] == ["too_short"] * 3


def test_datasets_streams_the_folder(published: Path) -> None:
    import datasets

    stream = datasets.load_dataset(str(published), split="train", streaming=True)

    assert next(iter(stream))["messages"][1]["role"] == "assistant"


def test_datasets_concatenates_ours_with_a_set_of_role_and_content(published: Path) -> None:
    import datasets

    ours = _load(published)["train"].select_columns(["messages"])
    theirs = datasets.Dataset.from_list([{"messages": [{"role": "user", "content": "hi"}]}])

    both = datasets.concatenate_datasets([ours, theirs])

    assert both.num_rows == ours.num_rows + 1
    assert both.features == theirs.features


def test_an_empty_train_shard_has_the_schema_and_no_rows(tmp_path: Path) -> None:
    import datasets

    out = tmp_path / "run"
    card = dataset_card(CardInfo("t", "0", 0, 0, 3, {})).encode()
    publish(out, staged(out, 0), texts={"README.md": card}, manifest={})

    # Streaming: without it datasets 5.2 refuses to load any split that has no rows.
    assert list(datasets.load_dataset(str(out), split="train", streaming=True)) == []
    assert pl.read_parquet(out / "data" / "*.parquet").schema == record_schema(PLAIN)


def test_datasets_reads_tools_and_reasoning(tmp_path: Path) -> None:
    import datasets

    staging = Staging(tmp_path, FULL, rows_per_shard=10, test_share=0)
    staging.add("accepted", pl.DataFrame([full_record(1)], schema=record_schema(FULL)))
    staging.finish()

    file = str(next((staging.new / "data").iterdir()))
    row = datasets.load_dataset("parquet", data_files=file, cache_dir=str(tmp_path / "cache"))["train"][0]

    assert row["messages"][1]["reasoning_content"] == "look"
    assert row["messages"][1]["tool_calls"] == [{"id": "c1", "name": "look_up", "arguments": '{"n": 1}'}]


def test_polars_scans_all_shards(published: Path) -> None:
    frame = pl.read_parquet(published / "data" / "*.parquet")

    assert frame.height == 12
    assert frame["messages"].list.len().to_list() == [2] * 12


def test_pandas_reads_the_folder(published: Path) -> None:
    frame = pd.read_parquet(published / "data")

    assert len(frame) == 12
    assert frame["messages"].iloc[0][0]["role"] == "user"


def test_duckdb_joins_lineage_by_id(published: Path) -> None:
    with duckdb.connect() as database:
        rows = database.execute(
            f"select count(*), min(messages[1].role) from '{published}/data/*.parquet' "
            f"join '{published}/lineage/*.parquet' using (id)"
        ).fetchone()

    assert rows == (12, "user")
