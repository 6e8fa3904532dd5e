"""Sources: rows, line numbers, bad rows, file errors, sampling."""

import gzip
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import orjson
import polars as pl
import pytest
from pydantic import BaseModel, ValidationError

from synthgen.errors import SourceError
from synthgen.plugins import load_plugin
from synthgen.recipe.model import SourceConfig
from synthgen.sources import BadRow, SourceRow, read_source
from synthgen.sources.files import CSV, JSONL, PARQUET
from synthgen.sources.inline import INLINE
from synthgen.sources.sample import SAMPLE
from synthgen.types import JSONValue

Row = SourceRow | BadRow


def read(kind: str, params: object, base: Path = Path()) -> list[Row]:
    model = load_plugin("source", kind).params.model_validate(params)
    return list(read_source(SourceConfig(kind=kind, params=model, license="own"), base))


def fields(rows: list[Row]) -> list[dict[str, JSONValue]]:
    return [row.fields for row in rows if isinstance(row, SourceRow)]


def bad(rows: list[Row]) -> list[str]:
    return [row.where for row in rows if isinstance(row, BadRow)]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("plugin", [JSONL, CSV, PARQUET, INLINE, SAMPLE])
def test_the_registry_finds_each_built_in_source_under_its_own_name(plugin: object) -> None:
    assert load_plugin("source", plugin.name) is plugin  # type: ignore[attr-defined]  # plug-ins differ in type


def test_jsonl_gives_each_object_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b'{"x": 1}\n{"x": {"y": [null, "\xc3\xa9"]}}')

    rows = read("jsonl", "a.jsonl", tmp_path)

    assert rows == [
        SourceRow({"x": 1}, "a.jsonl:1"),
        SourceRow({"x": {"y": [None, "é"]}}, "a.jsonl:2"),
    ]


def test_jsonl_accepts_byte_order_mark_crlf_and_blank_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"x": 1}\r\n\r\n  \n{"x": 2}\r\n')

    rows = read("jsonl", "a.jsonl", tmp_path)

    assert rows == [SourceRow({"x": 1}, "a.jsonl:1"), SourceRow({"x": 2}, "a.jsonl:4")]


@pytest.mark.parametrize(
    "line",
    [
        b'{"x": ',
        b"[1, 2]",
        b'"text"',
        b'{"x": "\xff"}',
        b'{"x": NaN}',
        b'{"x": "\\ud800"}',
        b'{"x": ' + b"[" * 300 + b"]" * 300 + b"}",
    ],
    ids=["cut", "array", "string", "not UTF-8", "NaN", "half surrogate", "too deep"],
)
def test_a_bad_jsonl_line_is_reported_and_the_next_one_read(tmp_path: Path, line: bytes) -> None:
    write(tmp_path / "a.jsonl", b'{"x": 1}\n' + line + b'\n{"x": 3}\n')

    rows = read("jsonl", "a.jsonl", tmp_path)

    assert bad(rows) == ["a.jsonl:2"]
    assert fields(rows) == [{"x": 1}, {"x": 3}]


def test_many_brackets_that_are_not_deep_are_a_good_row(tmp_path: Path) -> None:
    line = orjson.dumps({"x": [[] for _ in range(500)]})
    write(tmp_path / "a.jsonl", line)

    assert bad(read("jsonl", "a.jsonl", tmp_path)) == []


def test_a_problem_never_quotes_the_row(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b'{"secret-text": }\n["secret-text"]\n')

    problems = [row.problem for row in read("jsonl", "a.jsonl", tmp_path) if isinstance(row, BadRow)]

    assert len(problems) == 2
    assert "secret" not in "".join(problems)


def test_gzip_is_decompressed(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl.gz", gzip.compress(b'{"x": 1}\n{"x": 2}\n'))

    assert fields(read("jsonl", "a.jsonl.gz", tmp_path)) == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    "damage", [lambda z: z[:-12], lambda z: b"plain text", lambda z: z[:20] + b"\0" + z[21:]]
)
def test_damaged_gzip_is_a_source_error_with_the_path(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]  # a lambda
    packed = gzip.compress(b"".join(b'{"x": %d}\n' % n for n in range(1000)))
    write(tmp_path / "a.jsonl.gz", damage(packed))

    with pytest.raises(SourceError, match=r"a\.jsonl\.gz: breaks while it is read"):
        read("jsonl", "a.jsonl.gz", tmp_path)


def test_jsonl_is_read_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, b'{"x": 1}\n' * 100_000)
    rows = JSONL.run(JSONL.params.model_validate(str(path)), tmp_path)

    first = next(rows)
    path.write_bytes(b"")

    assert isinstance(first, SourceRow)
    assert sum(1 for _ in rows) < 99_999


def test_a_glob_reads_its_files_by_name_and_each_once(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.jsonl", b'{"x": "%s"}' % name.encode())

    rows = read("jsonl", ["*.jsonl", "a.jsonl"], tmp_path)

    assert [row.where for row in rows] == ["a.jsonl:1", "b.jsonl:1", "c.jsonl:1"]


def test_an_absolute_path_outside_the_recipes_folder_is_shown_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"{}")

    rows = read("jsonl", {"path": str(path)}, tmp_path / "elsewhere")

    assert [row.where for row in rows] == [f"{path.as_posix()}:1"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("missing.jsonl", "no such file"),
        ("folder", "is a folder"),
        ("*.none", "no file matches"),
        ("a.jsonl.zst", "gzip"),
    ],
)
def test_an_unusable_path_is_refused_before_the_first_row(tmp_path: Path, given: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "a.jsonl.zst", b"")

    with pytest.raises(SourceError, match=says):
        JSONL.run(JSONL.params.model_validate(given), tmp_path)


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match="delimeter"):
        CSV.params.model_validate({"path": "a.csv", "delimeter": ";"})


def test_csv_rows_start_at_the_right_line_after_embedded_newlines(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", b'id,text\r\n1,"two\nlines"\r\n\r\n2,"say ""hi"""\r\n')

    rows = read("csv", "a.csv", tmp_path)

    assert rows == [
        SourceRow({"id": "1", "text": "two\nlines"}, "a.csv:2"),
        SourceRow({"id": "2", "text": 'say "hi"'}, "a.csv:5"),
    ]


@pytest.mark.parametrize(
    "line", [b"1", b"1,2,3", b"1,\xff", b'1,"a"b'], ids=["short", "long", "not UTF-8", "quote"]
)
def test_a_bad_csv_row_is_reported_and_the_next_one_read(tmp_path: Path, line: bytes) -> None:
    write(tmp_path / "a.csv", b"a,b\n" + line + b"\n5,6\n")

    rows = read("csv", "a.csv", tmp_path)

    assert bad(rows) == ["a.csv:2"]
    assert fields(rows) == [{"a": "5", "b": "6"}]


def test_an_open_quote_at_the_end_of_a_csv_is_a_bad_row(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", b'a,b\n1,2\n3,"4\n5,6\n')

    rows = read("csv", "a.csv", tmp_path)

    assert (fields(rows), bad(rows)) == ([{"a": "1", "b": "2"}], ["a.csv:3"])


def test_csv_cells_may_be_longer_than_the_modules_default(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", b"a\n" + b"x" * 200_000)

    assert fields(read("csv", "a.csv", tmp_path)) == [{"a": "x" * 200_000}]


def test_csv_takes_another_delimiter_and_a_byte_order_mark(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "\ufeffa; b\n1,5;ü\n".encode())

    assert fields(read("csv", {"path": "a.csv", "delimiter": ";"}, tmp_path)) == [{"a": "1,5", "b": "ü"}]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n1\n", "is blank"),
        (b"a,a\n", "two columns"),
        (b",a\n", "column 1"),
        (b"\xff,a\n", "UTF-8"),
    ],
)
def test_a_csv_without_a_usable_header_is_a_source_error(tmp_path: Path, content: bytes, says: str) -> None:
    write(tmp_path / "a.csv", content)

    with pytest.raises(SourceError, match=says):
        read("csv", "a.csv", tmp_path)


def test_parquet_values_become_plain_json(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "day": [date(2024, 2, 29)],
            "at": [datetime(2024, 2, 29, 12, 30)],  # noqa: DTZ001  # a naive column is the fact
            "lasted": [timedelta(minutes=1, milliseconds=5)],
            "price": [Decimal("1.50")],
            "nested": [{"tags": ["a", None], "n": 3}],
            "nan": [float("nan")],
            "raw": ["é".encode()],
            "kind": pl.Series(["x"], dtype=pl.Categorical),
            "pair": pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)),
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")

    assert read("parquet", "a.parquet", tmp_path) == [
        SourceRow(
            {
                "day": "2024-02-29",
                "at": "2024-02-29T12:30:00",
                "lasted": "PT60.005S",
                "price": "1.50",
                "nested": {"tags": ["a", None], "n": 3},
                "nan": None,
                "raw": "é",
                "kind": "x",
                "pair": [1, 2],
            },
            "a.parquet:1",
        )
    ]


def test_parquet_rows_keep_file_order_over_many_batches(tmp_path: Path) -> None:
    pl.DataFrame({"n": range(5000)}).write_parquet(tmp_path / "a.parquet", row_group_size=700)

    rows = read("parquet", "a.parquet", tmp_path)

    assert [row["n"] for row in fields(rows)] == list(range(5000))
    assert rows[-1].where == "a.parquet:5000"


def test_a_parquet_cell_of_binary_data_makes_its_row_bad(tmp_path: Path) -> None:
    pl.DataFrame({"n": [1, 2], "image": [b"\xff", b"ok"]}).write_parquet(tmp_path / "a.parquet")

    assert bad(read("parquet", "a.parquet", tmp_path)) == ["a.parquet:1"]


def test_parquet_reads_only_the_named_columns(tmp_path: Path) -> None:
    pl.DataFrame({"n": [1], "image": [b"\xff"]}).write_parquet(tmp_path / "a.parquet")

    assert fields(read("parquet", {"path": "a.parquet", "columns": ["n"]}, tmp_path)) == [{"n": 1}]


def test_a_missing_parquet_column_is_a_source_error(tmp_path: Path) -> None:
    pl.DataFrame({"n": [1]}).write_parquet(tmp_path / "a.parquet")

    with pytest.raises(SourceError, match="has no column 'm'"):
        read("parquet", {"path": "a.parquet", "columns": ["n", "m"]}, tmp_path)


def test_a_file_that_is_not_parquet_is_a_source_error(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", b"not parquet at all, but long enough")

    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read as Parquet"):
        read("parquet", "a.parquet", tmp_path)


def test_inline_strings_are_instructions_and_mappings_are_rows() -> None:
    rows = read("inline", ["Name a prime.", {"id": "k", "n": 2}])

    assert rows == [
        SourceRow({"instruction": "Name a prime."}, "inline:1"),
        SourceRow({"id": "k", "n": 2}, "inline:2"),
    ]


def test_limit_counts_valid_rows_only(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b'oops\n{"x": 1}\n{"x": 2}\noops\n{"x": 3}\n')
    params: BaseModel = JSONL.params.model_validate("a.jsonl")
    source = SourceConfig(kind="jsonl", params=params, license="own", limit=2)

    rows: Iterator[Row] = read_source(source, tmp_path)

    assert [type(row) for row in rows] == [BadRow, SourceRow, SourceRow]


def test_the_grid_holds_every_combination_in_order() -> None:
    rows = read("sample", {"attributes": {"topic": ["a", "b"], "level": [1, {"n": 2}]}})

    assert fields(rows) == [
        {"topic": "a", "level": 1},
        {"topic": "a", "level": {"n": 2}},
        {"topic": "b", "level": 1},
        {"topic": "b", "level": {"n": 2}},
    ]


def draw(count: int, seed: int = 0, **attributes: object) -> list[dict[str, JSONValue]]:
    return fields(read("sample", {"attributes": attributes, "count": count, "seed": seed}))


def test_draws_are_pinned_across_releases() -> None:
    assert [row["t"] for row in draw(12, seed=7, t=["a", "b", "c"])] == list("bbaaacaaabba")


def test_a_larger_count_only_appends_rows() -> None:
    assert draw(300, t=["a", "b", "c"], u=[1, 2])[:100] == draw(100, t=["a", "b", "c"], u=[1, 2])


def test_a_new_attribute_leaves_the_others_draws_alone() -> None:
    alone = draw(100, t=["a", "b", "c"])

    assert [{"t": row["t"]} for row in draw(100, u=[1, 2], t=["a", "b", "c"])] == alone


def test_another_seed_draws_differently() -> None:
    assert draw(50, seed=1, t=["a", "b"]) != draw(50, seed=2, t=["a", "b"])


def test_draws_that_coincide_are_all_kept() -> None:
    assert draw(3, t=["a"]) == [{"t": "a"}] * 3


def test_weights_are_shares_of_the_draws() -> None:
    rows = draw(4000, t=[{"value": "a", "weight": 3}, "b", {"value": "never", "weight": 0}])

    counts = Counter(row["t"] for row in rows)

    assert set(counts) == {"a", "b"}
    assert counts["a"] / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    "params",
    [
        {"attributes": {"t": [{"value": "a", "weight": -1}]}, "count": 1},
        {"attributes": {"t": [{"value": "a", "weight": "much"}]}, "count": 1},
        {"attributes": {"t": [{"value": "a", "weight": 0}]}, "count": 1},
        {"attributes": {"t": [{"value": "a", "weight": 2}]}},
        {"attributes": {"not a name": ["a"]}},
        {"attributes": {"t": []}},
        {"attributes": {}},
    ],
    ids=["negative", "text", "all zero", "grid", "name", "no value", "none"],
)
def test_sample_parameters_that_mean_nothing_are_refused(params: object) -> None:
    with pytest.raises(ValidationError):
        SAMPLE.params.model_validate(params)


def test_attribute_values_come_from_a_file_one_a_line(tmp_path: Path) -> None:
    write(tmp_path / "topics.txt", "\ufefftides\r\n\n glaciers \n".encode())

    rows = read("sample", {"attributes": {"t": {"file": "topics.txt"}}}, tmp_path)

    assert fields(rows) == [{"t": "tides"}, {"t": "glaciers"}]


def test_an_empty_attribute_file_is_a_source_error(tmp_path: Path) -> None:
    write(tmp_path / "topics.txt", b"\n\n")

    with pytest.raises(SourceError, match="holds no value"):
        read("sample", {"attributes": {"t": {"file": "topics.txt"}}}, tmp_path)
