"""Foreign chat data: every accepted format, and what is said of rows and files that are none."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from synthgen.dataset.files import BadRow, find_inputs
from synthgen.dataset.read import detect_shape, open_inputs
from synthgen.errors import SourceError
from synthgen.schema import RecordShape, record_schema
from tests.dataset_rows import FULL, full_record, records, staged

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
OTHER = [{"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Goodbye"}]


def _jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def _read(*paths: Path, **options: object) -> tuple[pl.DataFrame, list[BadRow]]:
    shape = detect_shape(paths)
    batches = list(open_inputs(paths, shape, **options))  # type: ignore[arg-type]  # each test names its own
    assert all(batch.frame.schema == record_schema(shape) for batch in batches)
    frames = [batch.frame for batch in batches]
    return pl.concat([record_schema(shape).to_frame(), *frames]), [b for batch in batches for b in batch.bad]


def _chat(tmp_path: Path, *rows: object) -> list[list[dict[str, object]]]:
    """The messages of good rows, in JSONL; no row may be bad."""
    frame, bad = _read(_jsonl(tmp_path / "in.jsonl", *rows))
    assert bad == []
    return frame["messages"].to_list()


def _problem(tmp_path: Path, row: object) -> str:
    """What is said of one row in a file whose other row is good."""
    good = {"messages": CHAT}
    frame, bad = _read(_jsonl(tmp_path / "in.jsonl", good, row))
    assert frame.height == 1
    assert [b.where for b in bad] == [f"{tmp_path}/in.jsonl:2"]
    return bad[0].problem


# --- formats


def test_messages(tmp_path: Path) -> None:
    assert _chat(tmp_path, {"messages": CHAT}) == [CHAT]


def test_conversations_of_sharegpt(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
        {"from": "tool", "value": "7"},
    ]

    (messages,) = _chat(tmp_path, {"conversations": turns})

    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool"]
    assert [m["content"] for m in messages] == ["Be kind.", "Hi", "Hello", "7"]


def test_prompt_and_completion_as_texts(tmp_path: Path) -> None:
    assert _chat(tmp_path, {"prompt": "Hi", "completion": "Hello"}) == [CHAT]


def test_prompt_and_completion_as_messages(tmp_path: Path) -> None:
    assert _chat(tmp_path, {"prompt": CHAT[:1], "completion": CHAT[1:]}) == [CHAT]


def test_instruction_without_input(tmp_path: Path) -> None:
    assert _chat(tmp_path, {"instruction": "Hi", "input": "", "output": "Hello"}) == [CHAT]


def test_instruction_with_input(tmp_path: Path) -> None:
    (messages,) = _chat(tmp_path, {"instruction": "Add", "input": "1 2", "output": "3"})

    assert messages[0]["content"] == "Add\n\n1 2"


def test_messages_as_json_text(tmp_path: Path) -> None:
    assert _chat(tmp_path, {"messages": json.dumps(CHAT)}) == [CHAT]


def test_content_of_text_parts_is_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]

    assert _chat(tmp_path, {"messages": [CHAT[0], {"role": "assistant", "content": parts}]}) == [CHAT]


def test_system_column_goes_in_front(tmp_path: Path) -> None:
    (messages,) = _chat(tmp_path, {"conversations": CHAT, "system": "Be kind."})

    assert messages == [{"role": "system", "content": "Be kind."}, *CHAT]


def test_system_column_does_not_double_a_system_message(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Own."}, *CHAT]

    assert _chat(tmp_path, {"messages": chat, "system": "Be kind."}) == [chat]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_of_a_message_is_kept(tmp_path: Path, name: str) -> None:
    (messages,) = _chat(tmp_path, {"messages": [CHAT[0], {**CHAT[1], name: "hm"}]})

    assert [m["reasoning_content"] for m in messages] == [None, "hm"]


def test_reasoning_column_belongs_to_the_completion(tmp_path: Path) -> None:
    (messages,) = _chat(tmp_path, {"prompt": "Hi", "completion": "Hello", "thinking": "hm"})

    assert [m["reasoning_content"] for m in messages] == [None, "hm"]


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "c1", "name": "f", "arguments": {"a": 1, "b": None}},
    ],
)
def test_tool_calls_get_arguments_as_json_text(tmp_path: Path, call: object) -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    row = {"messages": [CHAT[0], turn], "tools": [{"name": "f"}]}

    frame, bad = _read(_jsonl(tmp_path / "in.jsonl", row))

    assert bad == []
    assert frame["messages"][0][1]["tool_calls"] == [{"id": "c1", "name": "f", "arguments": '{"a":1}'}]
    assert frame["tools"].to_list() == ['[{"name":"f"}]']


def test_tool_call_in_the_last_row_gives_every_row_the_shape(tmp_path: Path) -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}"}]}
    path = _jsonl(tmp_path / "in.jsonl", *[{"messages": CHAT}] * 3000, {"messages": [CHAT[0], turn]})

    assert detect_shape([path]) == RecordShape(tools=True)


def test_plain_rows_give_the_plain_shape(tmp_path: Path) -> None:
    assert detect_shape([_jsonl(tmp_path / "in.jsonl", {"messages": CHAT})]) == RecordShape()


def test_fields_outside_the_shape_are_left_out(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "in.jsonl", {"messages": [CHAT[0], {**CHAT[1], "thinking": "hm", "name": "x"}]})

    (batch,) = open_inputs([path], RecordShape())

    assert batch.frame["messages"].to_list() == [CHAT]


# --- columns and ids


def test_own_id_is_kept_and_a_second_one_replaced(tmp_path: Path) -> None:
    rows = [{"id": "a", "messages": CHAT}, {"id": "a", "messages": OTHER}, {"id": "b", "messages": OTHER}]

    frame, _ = _read(_jsonl(tmp_path / "in.jsonl", *rows))

    ids = frame["id"].to_list()
    assert (ids[0], ids[2]) == ("a", "b")
    assert len(ids[1]) == 32


def test_content_ids_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    one, _ = _read(_jsonl(tmp_path / "a.jsonl", {"messages": CHAT}, {"messages": OTHER}))
    two, _ = _read(_jsonl(tmp_path / "b.jsonl", {"messages": OTHER}, {"messages": CHAT}))

    assert set(one["id"]) == set(two["id"])


def test_equal_rows_get_different_ids(tmp_path: Path) -> None:
    frame, _ = _read(_jsonl(tmp_path / "a.jsonl", *[{"messages": CHAT}] * 3))

    assert frame["id"].n_unique() == 3


def test_an_own_id_that_looks_like_a_later_content_id_stays_unique(tmp_path: Path) -> None:
    first, _ = _read(_jsonl(tmp_path / "a.jsonl", {"messages": CHAT}))
    taken = {"id": first["id"][0], "messages": OTHER}

    frame, _ = _read(_jsonl(tmp_path / "b.jsonl", taken, {"messages": CHAT}))

    assert frame["id"].n_unique() == 2


def test_row_and_source_default_to_id_and_line(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "in.jsonl", {"id": "a", "messages": CHAT}, "", {"id": "b", "messages": CHAT})

    frame, _ = _read(path)

    assert frame["row"].to_list() == ["a", "b"]
    assert frame["source"].to_list() == [f"{path}:1", f"{path}:3"]
    assert frame["teacher"].null_count() == 2


def test_columns_of_another_type_are_dropped(tmp_path: Path) -> None:
    odd = {"messages": CHAT, "teacher": 7, "sample": "x", "flags": [1], "scores": 3, "finish_reason": "eos"}

    frame, bad = _read(_jsonl(tmp_path / "in.jsonl", odd))

    assert bad == []
    names = ["teacher", "sample", "flags", "scores", "finish_reason"]
    assert frame.select(names).null_count().row(0) == (1,) * 5


def test_score_column_becomes_a_score(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "in.jsonl", {"messages": CHAT, "quality": 4}, {"messages": CHAT, "quality": "x"})

    frame, _ = _read(path, score_columns=["quality"])

    assert frame["scores"].to_list() == [[{"name": "quality", "score": 4.0}], None]


def test_a_stored_score_stays_where_there_is_no_such_column(tmp_path: Path) -> None:
    stored = [{"name": "spoken", "score": 0.7}]

    frame, _ = _read(
        _jsonl(tmp_path / "in.jsonl", {"messages": CHAT, "scores": stored}), score_columns=["spoken"]
    )

    assert frame["scores"].to_list() == [stored]


def test_origin_column_becomes_teacher_and_route(tmp_path: Path) -> None:
    rows = [{"messages": CHAT, "origin": origin} for origin in ("org/m@rev@self-hosted", "m", None)]

    frame, _ = _read(_jsonl(tmp_path / "in.jsonl", *rows), origin_column="origin")

    assert frame["teacher"].to_list() == ["org/m@rev", "m", None]
    assert frame["route"].to_list() == ["self-hosted", None, None]


# --- files


def test_our_own_shards_come_back_equal(tmp_path: Path) -> None:
    staged(tmp_path, 12, share=0.0).new.rename(tmp_path / "run")

    frame, bad = _read(tmp_path / "run")

    assert bad == []
    assert frame.equals(records(0, 12))


def test_full_parquet_comes_back_equal(tmp_path: Path) -> None:
    wanted = pl.DataFrame([full_record(n) for n in range(3)], schema=record_schema(FULL))
    wanted.write_parquet(tmp_path / "x.parquet")

    frame, _ = _read(tmp_path / "x.parquet")

    assert frame.equals(wanted)


def test_parquet_of_merged_structs_loses_the_filler_nulls(tmp_path: Path) -> None:
    calls = [[{"name": "f", "arguments": {"a": 1}}], [{"name": "f", "arguments": {"b": 2}}]]
    rows = [{"messages": [{"role": "assistant", "content": "", "tool_calls": call}]} for call in calls]
    pl.DataFrame(rows).write_parquet(tmp_path / "x.parquet")

    frame, _ = _read(tmp_path / "x.parquet")

    arguments = [row[0]["tool_calls"][0]["arguments"] for row in frame["messages"]]
    assert arguments == ['{"a":1}', '{"b":2}']


def test_parquet_with_messages_as_json_text_has_the_shape_of_its_rows(tmp_path: Path) -> None:
    turn = {**CHAT[1], "thinking": "hm"}
    pl.DataFrame({"messages": [json.dumps([CHAT[0], turn])]}).write_parquet(tmp_path / "x.parquet")

    assert detect_shape([tmp_path / "x.parquet"]) == RecordShape(reasoning=True)


def test_bad_parquet_row_is_named_by_its_number(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a", None], "completion": ["b", "c"]}).write_parquet(tmp_path / "x.parquet")

    frame, bad = _read(tmp_path / "x.parquet")

    assert frame.height == 1
    assert bad == [BadRow(f"{tmp_path}/x.parquet:2", "prompt is missing, not a list")]


def test_gzip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"messages": CHAT}).encode()))

    frame, _ = _read(path)

    assert frame["messages"].to_list() == [CHAT]


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"messages": CHAT}).encode())

    assert _read(path)[0].height == 1


def test_files_of_different_formats_are_read_together(tmp_path: Path) -> None:
    _jsonl(tmp_path / "a.jsonl", {"messages": CHAT})
    _jsonl(tmp_path / "b.jsonl", {"instruction": "Bye", "output": "Goodbye"})

    frame, _ = _read(tmp_path)

    assert frame["messages"].to_list() == [CHAT, OTHER]


def test_batches_are_bounded(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "in.jsonl", *[{"messages": CHAT}] * 10)

    batches = list(open_inputs([path], RecordShape(), batch_rows=4))

    assert [batch.frame.height for batch in batches] == [4, 4, 2]


def test_folder_with_data_stands_for_its_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    _jsonl(tmp_path / "events.jsonl", {"event": 1})
    wanted = _jsonl(tmp_path / "data" / "x.jsonl", {"messages": CHAT})

    assert find_inputs([tmp_path]) == [wanted]


def test_globs_are_sorted_and_files_come_once(tmp_path: Path) -> None:
    b, a = (_jsonl(tmp_path / name, {"messages": CHAT}) for name in ("b.jsonl", "a.jsonl"))

    assert find_inputs([b, tmp_path / "*.jsonl", tmp_path]) == [b, a]


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    _jsonl(tmp_path / ".cache" / "x.jsonl", {"messages": CHAT})

    with pytest.raises(SourceError, match="no such file"):
        find_inputs([tmp_path])


@pytest.mark.parametrize("name", ["nothing.jsonl", "*.parquet"])
def test_missing_input_is_a_source_error_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="no such file"):
        open_inputs([tmp_path / name], RecordShape())


def test_unknown_ending_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b")

    with pytest.raises(SourceError, match=r"x\.csv: unknown kind of file; accepted: \.parquet"):
        find_inputs([tmp_path / "x.csv"])


def test_unknown_columns_are_named_with_the_accepted_formats(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "x.jsonl", {"chosen": "a", "rejected": "b"})

    with pytest.raises(
        SourceError, match=r"x\.jsonl: no known format: found columns chosen, rejected; accepted: .messages"
    ):
        detect_shape([path])


def test_plain_text_gets_a_hint(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "x.parquet")

    with pytest.raises(SourceError, match="a plain `text` has no turns"):
        list(open_inputs([tmp_path / "x.parquet"], RecordShape()))


def test_damaged_parquet_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")

    with pytest.raises(SourceError, match="not a readable Parquet file"):
        detect_shape([tmp_path / "x.parquet"])


def test_truncated_gzip_is_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"messages": CHAT}).encode() * 50)[:-12])

    with pytest.raises(SourceError, match="cannot be read"):
        detect_shape([path])


def test_empty_file_has_no_rows_and_is_no_error(tmp_path: Path) -> None:
    frame, bad = _read(_jsonl(tmp_path / "in.jsonl"))

    assert (frame.height, bad) == (0, [])


def test_file_without_one_good_row_gives_only_bad_rows(tmp_path: Path) -> None:
    frame, bad = _read(_jsonl(tmp_path / "in.jsonl", "{", "[]"))

    assert frame.height == 0
    assert [b.problem.split(":")[0] for b in bad] == ["not valid JSON", "not a JSON object"]


# --- malformed rows


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{oops", "not valid JSON"),
        ('{"messages": NaN}', "not valid JSON"),
        ("[1]", "not a JSON object"),
        ({"foo": 1}, "messages is missing, not a list"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "hello"}, "messages is text that is not JSON"),
        ({"messages": [7]}, "messages[0] is a number, not an object"),
        ({"messages": [{"content": "x"}]}, "messages[0] has no known role"),
        ({"messages": [{"role": "bishop", "content": "x"}]}, "messages[0] has no known role"),
        ({"messages": CHAT[:1]}, "no assistant message"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": None}]}, "messages[1].content is missing, not text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part that is not text"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "not a call"),
        ({"messages": CHAT, "tools": "{"}, "tools is text that is not JSON"),
        ({"messages": CHAT, "tools": 1}, "tools is a number, not a list"),
    ],
)  # fmt: skip
def test_malformed_row_is_reported_and_the_rest_is_read(tmp_path: Path, row: object, problem: str) -> None:
    assert problem in _problem(tmp_path, row)


def test_deeply_nested_tools_are_a_malformed_row(tmp_path: Path) -> None:
    deep = f'{{"messages": {json.dumps(CHAT)}, "tools": {"[" * 900 + "]" * 900}}}'

    assert "nested too deeply" in _problem(tmp_path, deep)


def test_problems_do_not_quote_the_row(tmp_path: Path) -> None:
    secret = "sk-very-secret"
    rows: Sequence[object] = [{"messages": secret}, {"messages": [{"role": secret}]}, f'{{"{secret}"']

    for row in rows:
        assert secret not in _problem(tmp_path, row)
