"""`dedup`: any columns, who stays and why, references, the guard, resume after a kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import synthgen
from synthgen.dataset import verify
from synthgen.pipeline import dedup_index
from tests.runs import cli, published_bytes, save_rows

ROOT = Path(__file__).resolve().parent.parent


def text(seed: str, words: int = 60) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10**6)}" for _ in range(words))


def edit(of: str, word: int = 3) -> str:
    words = of.split()
    words[word] = "edited"
    return " ".join(words)


def rows(count: int = 60) -> list[dict[str, object]]:
    """Every fifth row is an edit of the one before it."""
    out: list[dict[str, object]] = []
    for i in range(count):
        body = edit(str(out[-1]["text"])) if i % 5 == 4 else text(f"row {i}")
        out.append({"id": f"r{i:04d}", "text": body, "n": i, "nested": {"a": [i]}})
    return out


def kept(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "data" / "*.parquet")


def rejected(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "rejected" / "*.parquet")


def test_removed_rows_name_what_they_repeat_and_keep_their_columns(tmp_path: Path) -> None:
    path = save_rows(tmp_path / "in.jsonl", rows())

    result = cli("dedup", path, "-o", tmp_path / "out", "--json")

    assert result.code == 0
    assert result.json["counts"] == {"planned": 60, "accepted": 48, "rejected": 12}
    assert result.json["reasons"] == {"near_duplicate": 12}
    assert kept(tmp_path / "out").columns == [
        "id",
        "text",
        "n",
        "nested",
        "dup_cluster",
        "dup_of",
        "dup_jaccard",
    ]
    first = rejected(tmp_path / "out").row(0, named=True)
    assert (first["id"], first["dup_of"], first["dup_cluster"]) == ("r0004", "r0003", "r0003")
    assert first["dup_jaccard"] == pytest.approx(52 / 60)
    assert first["nested"] == {"a": [4]}
    assert kept(tmp_path / "out")["dup_cluster"].drop_nulls().to_list() == [
        f"r{i:04d}" for i in range(3, 60, 5)
    ]
    assert verify(tmp_path / "out") == []
    assert not (tmp_path / "out" / ".dedup").exists()


def test_all_pairs_can_be_had_with_their_jaccard(tmp_path: Path) -> None:
    base = text("x")
    given = [("a", base), ("b", f"{base} b"), ("c", f"c {base}"), ("d", base), ("e", text("y"))]
    path = save_rows(tmp_path / "in.jsonl", [{"id": name, "text": body} for name, body in given])

    cli("dedup", path, "-o", tmp_path / "out", "--pairs", tmp_path / "pairs.parquet")

    grams = {
        name: {tuple(body.split()[i : i + 5]) for i in range(len(body.split()) - 4)} for name, body in given
    }
    pairs = pl.read_parquet(tmp_path / "pairs.parquet")
    assert {(a, b) for a, b, _ in pairs.iter_rows()} == {("a", "b"), ("a", "c"), ("b", "c"), ("a", "d")}
    for a, b, jaccard in pairs.iter_rows():
        assert jaccard == len(grams[a] & grams[b]) / len(grams[a] | grams[b])


def test_parquet_and_jsonl_with_other_columns_go_together(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save_rows(tmp_path / "in" / "a.jsonl", rows(10))
    pl.DataFrame({"text": [edit(text("row 0")), text("new")], "extra": [1, 2]}).write_parquet(
        tmp_path / "in" / "b.parquet"
    )

    assert cli("dedup", tmp_path / "in", "-o", tmp_path / "out").code == 0

    assert kept(tmp_path / "out").height == 9
    assert rejected(tmp_path / "out")["extra"].to_list() == [None, None, 1]


@pytest.mark.parametrize("with_ids", [True, False])
def test_the_same_rows_stay_however_they_are_spread_over_files(with_ids: bool, tmp_path: Path) -> None:
    data = [{name: value for name, value in row.items() if with_ids or name != "id"} for row in rows(50)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save_rows(tmp_path / "a" / "all.jsonl", data)
    random.Random(2).shuffle(data)
    for part in range(3):
        save_rows(tmp_path / "b" / f"{part}.jsonl", data[part::3])

    for name in ("a", "b"):
        assert cli("dedup", tmp_path / name, "-o", tmp_path / f"out-{name}", "--threads", "2").code == 0

    assert sorted(kept(tmp_path / "out-a")["n"]) == sorted(kept(tmp_path / "out-b")["n"])


def test_pieces_and_threads_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_rows(tmp_path / "in.jsonl", rows())
    cli("dedup", path, "-o", tmp_path / "one", "--threads", "1")
    monkeypatch.setattr(dedup_index, "PIECE_ROWS", 7)
    monkeypatch.setattr("synthgen.dataset.tables._BLOCK_BYTES", 1000)

    cli("dedup", path, "-o", tmp_path / "two", "--threads", "2")

    assert published_bytes(tmp_path / "one") == published_bytes(tmp_path / "two")


def test_the_longest_or_the_best_stays_where_it_is_asked_for(tmp_path: Path) -> None:
    short = text("x")
    path = save_rows(
        tmp_path / "in.jsonl",
        [
            {"id": "a", "text": short, "score": 1.0},
            {"id": "b", "text": f"{short} longer", "score": 2.0},
            {"id": "c", "text": f"more {short}", "score": 3.0},
        ],
    )

    for keep, expected in (("first", "a"), ("longest", "b"), ("best:score", "c")):
        cli("dedup", path, "-o", tmp_path / keep, "--keep", keep)
        assert kept(tmp_path / keep)["id"].to_list() == [expected]


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_row_without_a_score_is_never_the_best(nothing: float | None, tmp_path: Path) -> None:
    rows = pl.DataFrame({"id": ["a", "b"], "text": [text("x"), text("x") + " b"], "score": [nothing, 0.5]})
    rows.write_parquet(tmp_path / "in.parquet")

    cli("dedup", tmp_path / "in.parquet", "-o", tmp_path / "out", "--keep", "best:score")

    assert kept(tmp_path / "out")["id"].to_list() == ["b"]


def test_rows_that_repeat_a_reference_go_and_the_reference_is_not_written(tmp_path: Path) -> None:
    path = save_rows(tmp_path / "in.jsonl", rows(10))
    reference = save_rows(tmp_path / "test.jsonl", [{"id": "t1", "text": edit(text("row 2"), 7)}])

    result = cli("dedup", path, "-o", tmp_path / "out", "--against", reference, "--json")

    assert result.json["references"] == 1
    assert result.json["reasons"] == {"in_reference": 1, "near_duplicate": 2}
    found = rejected(tmp_path / "out").filter(pl.col("dup_reason") == "in_reference")
    assert found.select("id", "dup_of").rows() == [("r0002", "t1")]
    assert kept(tmp_path / "out").height == 7


def test_tool_calls_are_compared_with_their_arguments(tmp_path: Path) -> None:
    question = {"role": "user", "content": text("template", 40)}

    def row(i: int) -> dict[str, object]:
        arguments = json.dumps({f"k{j}": text(f"{i} {j}", 4) for j in range(6)})
        call = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"name": "book", "arguments": arguments}],
        }
        return {"messages": [question, call]}

    path = save_rows(tmp_path / "in.jsonl", [row(i) for i in range(50)])

    result = cli("dedup", path, "-o", tmp_path / "out", "--json")

    assert result.json["counts"]["rejected"] == 0


@pytest.mark.parametrize(("field", "expected"), [("prompt", 1), ("completion", 0)])
def test_half_of_a_conversation_can_be_compared(field: str, expected: int, tmp_path: Path) -> None:
    def row(i: int) -> dict[str, object]:
        said = [("user", text("same")), ("assistant", text(f"answer {i}"))]
        return {"messages": [{"role": role, "content": content} for role, content in said]}

    path = save_rows(tmp_path / "in.jsonl", [row(0), row(1)])

    result = cli("dedup", path, "-o", tmp_path / "out", "--field", field, "--json")

    assert result.json["counts"]["rejected"] == expected


@pytest.mark.parametrize("suffix", ["txt", "yaml"])
def test_the_text_of_a_template_is_not_compared(suffix: str, tmp_path: Path) -> None:
    template = f"{text('long rules', 200)} {{{{ question }}}}"
    prompt = {"messages": [{"role": "system", "content": "Rules."}, {"role": "user", "content": template}]}
    shown = template if suffix == "txt" else json.dumps(prompt)
    (tmp_path / f"template.{suffix}").write_text(shown)
    filled = [template.replace("{{ question }}", text(f"q {i}", 12)) for i in range(30)]
    path = save_rows(tmp_path / "in.jsonl", [{"text": body} for body in filled])

    plain = cli("dedup", path, "-o", tmp_path / "plain", "--allow-collapse", "--json")
    stripped = cli(
        "dedup", path, "-o", tmp_path / "out", "--template", tmp_path / f"template.{suffix}", "--json"
    )

    assert plain.json["counts"]["accepted"] == 1
    assert stripped.json["counts"]["accepted"] == 30


def test_a_template_of_other_rows_is_said(tmp_path: Path) -> None:
    path = save_rows(tmp_path / "in.jsonl", rows(3))
    (tmp_path / "other.txt").write_text("Answer as a pirate would: {{ question }}")

    result = cli("dedup", path, "-o", tmp_path / "out", "--template", tmp_path / "other.txt")

    assert result.code == 0
    assert "the template's text stands in none of the first 3 rows" in result.err


def test_a_set_within_its_reference_is_no_template(tmp_path: Path) -> None:
    path = save_rows(tmp_path / "in.jsonl", [{"text": text(f"row {i}")} for i in range(40)])

    stopped = cli("dedup", path, "-o", tmp_path / "out", "--against", path)

    assert stopped.code == 3
    assert "loses 40 of its 40 rows, in clusters of up to 2 (40 rows repeat a reference)" in stopped.err


def test_a_collapse_stops_before_anything_is_written(tmp_path: Path) -> None:
    shared = text("a template of the whole source", 200)
    path = save_rows(tmp_path / "in.jsonl", [{"text": f"{shared} {i}"} for i in range(60)])

    stopped = cli("dedup", path, "-o", tmp_path / "out")

    assert stopped.code == 3
    assert "loses 59 of its 60 rows" in stopped.err
    assert "--allow-collapse" in stopped.err
    assert not (tmp_path / "out" / "data").exists()
    assert cli("dedup", path, "-o", tmp_path / "out", "--allow-collapse").code == 0


def test_malformed_lines_are_rejected_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [json.dumps(row) for row in rows(8)]
    path.write_text("\n".join([*lines[:3], "{broken", "", "[1]", *lines[3:]]))

    result = cli("dedup", path, "-o", tmp_path / "out", "--json")

    assert result.json["counts"] == {"planned": 10, "accepted": 7, "rejected": 3}
    bad = rejected(tmp_path / "out").filter(pl.col("dup_reason") == "malformed_row")["dup_detail"]
    assert [detail.split(": ")[0].rpartition(":")[2] for detail in bad] == ["4", "6"]


def test_splits_stay_splits(tmp_path: Path) -> None:
    for split, part in (("train", rows()[:30]), ("test", rows()[30:])):
        path = tmp_path / "in" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        pl.DataFrame(part).write_parquet(path)

    cli("dedup", tmp_path / "in", "-o", tmp_path / "out")

    assert pl.read_parquet(tmp_path / "out" / "data" / "test-*.parquet").height == 24


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--field", "txt"), "did you mean 'text'"),
        (("--keep", "best:nothing"), "nothing"),
        (("--source", "where"), "--source where"),
        (("--threshold", "1.5"), "threshold"),
    ],
)
def test_a_wrong_option_is_a_usage_error(options: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = save_rows(tmp_path / "in.jsonl", rows(5))

    result = cli("dedup", path, "-o", tmp_path / "out", *options)

    assert result.code == 2
    assert said in result.err


def test_the_function_says_what_the_command_says(tmp_path: Path) -> None:
    path = save_rows(tmp_path / "in.jsonl", rows())

    report = synthgen.dedup(path, tmp_path / "out")

    assert report.counts == {"planned": 60, "accepted": 48, "rejected": 12}
    assert (report.clusters, report.largest) == (12, 2)


def test_a_killed_dedup_ends_with_the_same_bytes(tmp_path: Path) -> None:
    path = save_rows(tmp_path / "in.jsonl", rows(800))
    assert cli("dedup", path, "-o", tmp_path / "whole").code == 0
    program = "from synthgen.pipeline import dedup_index; dedup_index.PIECE_ROWS = 100; from synthgen.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        program,
        "dedup",
        str(path),
        "-o",
        str(tmp_path / "killed"),
        "--threads",
        "1",
    ]
    scratch = tmp_path / "killed" / ".dedup"
    # Caught: some pieces are there; the candidates; their texts; the verified pairs; the shards.
    moments = ["rows-000004.arrow", "copies.npy", "texts-offsets.npy", "jaccard.npy", "../.staging"]
    caught = []

    for moment in moments:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None and not (scratch / moment).exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        caught.append(process.wait() == -signal.SIGKILL)

    assert sum(caught) >= 3
    assert cli("dedup", path, "-o", tmp_path / "killed").code == 0
    assert published_bytes(tmp_path / "killed") == published_bytes(tmp_path / "whole")


@pytest.mark.parametrize("ids", [["a", "b"], [1, 2], None], ids=["texts", "numbers", "none"])
def test_show_tells_rows_of_any_columns(ids: list[object] | None, tmp_path: Path) -> None:
    pair = [{"text": text("x") + end, "n": end} for end in (" one", " two")]
    data = [({"id": ids[i]} if ids else {}) | row for i, row in enumerate(pair)]
    cli("dedup", save_rows(tmp_path / "in.jsonl", data), "-o", tmp_path / "out")

    shown = cli("show", tmp_path / "out")

    assert shown.code == 0
    assert "reason: near_duplicate, Jaccard 0.9" in shown.out
    assert "n:  one" in shown.out
    if ids is None:
        assert cli("show", tmp_path / "out", "--row", "x").code == 2
        return
    story = cli("show", tmp_path / "out", "--row", ids[1]).out
    assert f"to {ids[0]}, {ids[0]} was kept" in story
    assert f"the row it repeats, {ids[0]}: {pair[0]['text']}" in story


def test_show_says_where_a_malformed_row_stands(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"text": text("x")}) + "\n{broken\n")
    cli("dedup", path, "-o", tmp_path / "out")

    shown = cli("show", tmp_path / "out").out

    assert "reason: malformed_row" in shown
    assert "in.jsonl:2" in "".join(shown.split())
