"""Broken inputs: one clear line on stderr, the right exit code, nothing lost."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthgen.dataset import TEXTS
from synthgen.dataset.publish import FOLDERS
from synthgen.journal import lock_run
from synthgen.pipeline.runfolder import WRITTEN
from tests.loopback import Loopback, refuse
from tests.runs import Result, cli, graded, questions, recipe, records, save, save_rows, teacher

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


def one_line(result: Result) -> str:
    """The only line on stderr, which is no traceback."""
    assert "Traceback" not in result.err
    (line,) = result.err.splitlines()
    assert line.startswith("synthgen: ")
    assert result.out == ""
    return line


def generate_text(text: str, folder: Path) -> Result:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return cli("generate", path, "-o", folder / "run")


GOOD = """\
name: x
use: [train-general]
source: {inline: [{instruction: Hello}]}
teachers:
  qwen: {provider: vllm, base_url: "http://127.0.0.1:9/v1", route: self-hosted, model: qwen3, hf: Qwen/Qwen3-8B}
steps:
  - {name: answer, prompt: answer, teacher: qwen}
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("use: [train-general]", "use: [train-general"), "r.yaml:3: not valid YAML"),
        (("name: x\n", "name: x\nname: y\n"), "r.yaml:2: duplicate key 'name'"),
        (("name: x\n", "name: x\ntarge: 5\n"), "r.yaml:2: targe: unknown key; did you mean 'target'?"),
        (("route: self-hosted,", "routee: self-hosted,"), "r.yaml:5: teachers.qwen.routee: unknown key; did you mean 'route'?"),
        (("name: answer,", "samples: 0, name: answer,"), "r.yaml:7: steps[0].samples: input should be greater"),
        (("prompt: answer", "prompt: anser"), "r.yaml:7: steps[0].prompt: no bundled prompt named 'anser'; did you mean 'answer'?"),
        (("prompt: answer", "prompt: ./mine.yaml"), "r.yaml:7: steps[0].prompt: prompt file not found"),
        (("teacher: qwen", "teacher: quen"), "r.yaml:7: steps[0].teacher: no teacher 'quen' under `teachers`; did you mean 'qwen'?"),
        (("model: qwen3", "model: qwen3, samples_per_request: 0"), "r.yaml:5: teachers.qwen.samples_per_request: input should be 'auto', or greater than or equal to 1 (got 0)"),
        (("model: qwen3", "model: qwen3, mode: batch"), "r.yaml:5: teachers.qwen.mode: vllm has no batches (anthropic and openai have them); remove the key"),
        (("provider: vllm", "provider: vlm"), "r.yaml:5: teachers.qwen.provider: unknown provider 'vlm'; did you mean 'vllm'?"),
        (("use: [train-general]", "use: [train-generl]"), "r.yaml:2: use: unknown use 'train-generl'; did you mean 'train-general'?"),
        (("use: [train-general]\n", ""), "r.yaml:1: use: is required"),
        (("route: self-hosted, ", ""), "r.yaml:5: teachers.qwen.route: is required"),
        (("steps:", "refine: {chain: sft_defalt}\nsteps:"), "r.yaml:6: refine.chain: no bundled filter named 'sft_defalt'; did you mean 'sft_default'?"),
        (("steps:", "refine: {judge: {teacher: qwen, keep: good}}\nsteps:"), "r.yaml:6: refine.judge.keep: "),
        (("steps:", "refine: {judge: {teacher: qwen, prompt: answer}}\nsteps:"), "r.yaml:6: refine.judge.prompt: a judge prompt takes"),
        (("source: {inline: [{instruction: Hello}]}", "source: {jsonl: rows.jsonl}"), "r.yaml:3: source.license: is required for files"),
        (("source: {inline: [{instruction: Hello}]}", "source: {jsonl: gone.jsonl, license: own}"), "gone.jsonl"),
        (("source: {inline: [{instruction: Hello}]}", "source: {jsn: gone.jsonl, license: own}"), "r.yaml:3: source.jsn: unknown source 'jsn'; did you mean"),
        (("source: {inline: [{instruction: Hello}]}", "source: {inline: [{instruction: Hello}], relation: stolen}"), "r.yaml:3: source.relation: "),
        (("name: x\n", "name: x\nseed: 99999999999999999999999\n"), "r.yaml:2: 99999999999999999999999 is beyond 64 bits"),
        (("name: x\n", "name: x\nbudget_usd: .inf\n"), "r.yaml:2: .inf is not a finite number"),
        (("model: qwen3", "model: \"${NO_SUCH_MODEL}\""), "r.yaml:5: environment variable NO_SUCH_MODEL is not set"),
        (("  - {name: answer", "  - {name: answer, prompt: answer, teacher: qwen}\n  - {name: answer"), "r.yaml:8: steps[1].name: step 1 is called 'answer' as well"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_one_line_with_its_place_and_exit_2(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    assert change[0] in GOOD

    result = generate_text(GOOD.replace(*change, 1), tmp_path)

    assert result.code == 2
    assert expected in one_line(result)
    assert not (tmp_path / "run").exists()


def test_a_missing_key_is_told_at_its_own_path(tmp_path: Path) -> None:
    text = GOOD.replace("{inline: [{instruction: Hello}]}", "{sample: {attributes: {instruction: {}}}}")

    result = generate_text(text, tmp_path)

    assert "r.yaml:3: source.sample.attributes.instruction.file: is required\n" in result.err


def test_every_problem_of_a_recipe_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("name: x", "nam: x").replace("model: qwen3", "model: qwen3, tmeout_s: 5")

    result = generate_text(text, tmp_path)

    assert result.code == 2
    assert "r.yaml:5: teachers.qwen.tmeout_s: unknown key; did you mean 'timeout_s'?" in result.err
    assert "r.yaml:1: nam: unknown key; did you mean 'name'?" in result.err


def test_a_recipe_that_is_not_there_is_exit_2(tmp_path: Path) -> None:
    result = cli("generate", tmp_path / "gone.yaml")

    assert result.code == 2
    assert "gone.yaml: cannot be read: No such file or directory" in one_line(result)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "--set seed: write it as key.path=value"),
        ("seed=[1", "--set seed:1: not valid YAML"),
        ("steps.7.name=x", "'7' is not an index of a list of 1"),
        ("name.first=x", "name"),
        ("seed=abc", "--set seed: seed: input should be a valid integer"),
        ("steps.0.samples=0", "--set steps.0.samples: steps[0].samples: input should be greater"),
        ("teachers.qwen={}", "--set teachers.qwen: teachers.qwen.provider: is required"),
        ("sede=3", "sede: unknown key; did you mean 'seed'?"),
    ],
)
def test_a_wrong_override_is_one_line_and_exit_2(tmp_path: Path, override: str, expected: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(GOOD, encoding="utf-8")

    result = cli("generate", path, "-o", tmp_path / "run", "--set", override)

    assert result.code == 2
    assert expected in one_line(result)


def test_a_missing_key_is_exit_2_before_anything_is_sent(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_KEY", raising=False)
    path = save(
        tmp_path / "r.yaml", recipe(server, teachers={"qwen": teacher(server, api_key_env="LAB_KEY")})
    )

    result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 2
    assert "environment variable LAB_KEY is not set" in one_line(result)
    assert server.requests == []


@pytest.mark.parametrize("content", ["", "{broken\n", "[1]\n"])
def test_a_source_without_a_valid_row_is_exit_2(server: Loopback, tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    path = save(tmp_path / "r.yaml", recipe(server, source={"jsonl": "rows.jsonl", "license": "own"}))

    result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 2
    line = one_line(result)
    assert "source.jsonl: the source holds no valid row" in line
    assert ("rows.jsonl:1" in line) == bool(content)


def test_a_malformed_source_line_is_a_reject_with_its_place_and_the_run_goes_on(
    server: Loopback, tmp_path: Path
) -> None:
    rows = save_rows(tmp_path / "rows.jsonl", questions(3))
    first, *others = rows.read_text().splitlines(keepends=True)
    rows.write_text(first + "{not json}\n" + "".join(others))
    path = save(tmp_path / "r.yaml", recipe(server, source={"jsonl": "rows.jsonl", "license": "own"}))

    result = cli("generate", path, "-o", tmp_path / "run", "--json")

    (reject,) = records(tmp_path / "run", "rejected")
    assert (result.code, result.json["counts"]["accepted"]) == (0, 3)
    assert (reject["stage"], reject["reason"], reject["source"]) == (
        "source",
        "malformed_row",
        "rows.jsonl:2",
    )


@pytest.mark.parametrize("where", ["file", "file/run"])
def test_an_output_that_is_a_file_or_below_one_is_exit_2(
    server: Loopback, tmp_path: Path, where: str
) -> None:
    (tmp_path / "file").write_text("mine")
    path = save(tmp_path / "r.yaml", recipe(server))

    result = cli("generate", path, "-o", tmp_path / where)

    assert result.code == 2
    assert f"{tmp_path / 'file'}: is a file" in one_line(result)
    assert (tmp_path / "file").read_text() == "mine"
    assert server.requests == []


@pytest.mark.parametrize(
    "command",
    [
        ("plan", "r.yaml"),
        ("doctor", "r.yaml"),
        ("filter", "none.jsonl"),
        ("filter", "run"),
        ("dedup", "none.jsonl"),
    ],
)
def test_every_verb_refuses_a_file_as_its_folder_before_it_reads(
    server: Loopback, tmp_path: Path, command: tuple[str, str]
) -> None:
    verb, named = command
    (tmp_path / "file").write_text("mine")
    save(tmp_path / "r.yaml", recipe(server, source={"jsonl": "none.jsonl", "license": "own"}))
    (tmp_path / "run" / "journal").mkdir(parents=True)

    result = cli(verb, tmp_path / named, "-o", tmp_path / "file")

    assert result.code == 2
    assert f"{tmp_path / 'file'}: is a file" in one_line(result)


@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "plan.json", "usage.json", "policy.lock.toml"])
def test_a_first_session_writes_over_nothing_in_a_folder_that_is_no_run(
    server: Loopback, tmp_path: Path, name: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / name).write_text("mine")

    result = cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", project)

    assert result.code == 6
    assert f"{project / name}: is in the way" in one_line(result)
    assert [(path.name, path.read_text()) for path in project.iterdir()] == [(name, "mine")]
    assert server.requests == []


def test_everything_a_run_writes_is_looked_for_before_its_first_session(
    server: Loopback, tmp_path: Path
) -> None:
    (tmp_path / "policy.lock.toml").write_text("")
    (tmp_path / "policy.rules").mkdir()
    (tmp_path / "policy.rules" / "ours.toml").write_text("")
    cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", tmp_path / "run")
    cli("generate", save(tmp_path / "r.yaml", recipe(server, seed=2)), "-o", tmp_path / "run")

    written = {path.name for path in (tmp_path / "run").iterdir()}

    assert written - {"journal", "manifest.json"} <= {*WRITTEN, *TEXTS, *FOLDERS}
    # Written alone where a server was seen to ignore a schema.
    assert {*WRITTEN, *TEXTS} - {"schemas.json"} <= written


def test_a_source_that_is_a_folder_is_told_how_to_name_its_files(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server, source={"jsonl": ".", "license": "own"}))

    assert f"name its files, for example {tmp_path}/*.jsonl" in one_line(cli("plan", path))


def test_an_output_folder_with_foreign_data_in_it_is_exit_6_and_stays(
    server: Loopback, tmp_path: Path
) -> None:
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "mine.txt").write_text("mine")

    result = cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", tmp_path / "run")

    assert result.code == 6
    assert "was not published by synthgen" in one_line(result)
    assert (tmp_path / "run" / "data" / "mine.txt").read_text() == "mine"
    assert server.requests == []


def test_a_second_process_on_the_same_run_is_exit_6(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server))
    release = lock_run(tmp_path / "run" / "journal")
    command = [sys.executable, "-m", "synthgen", "generate", path, "-o", tmp_path / "run"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        release()

    assert done.returncode == 6
    line = one_line(Result(done.returncode, done.stdout, done.stderr))
    assert f"another synthgen (process {os.getpid()}) works on this run" in line
    assert server.requests == []


def test_a_full_disk_is_exit_6_and_the_same_command_loses_and_buys_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's write call fails after some answers; what was in flight then may be paid again, nothing else."""
    real, room = os.write, [12_000]

    def write(file: int, content: bytes) -> int:
        if "journal" not in str(Path(f"/proc/self/fd/{file}").readlink()):
            return real(file, content)
        if len(content) > room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(content)
        return real(file, content)

    with Loopback(reply=graded) as server:
        limits = {"concurrency": 4}
        path = save(
            tmp_path / "r.yaml", recipe(server, 30, teachers={"qwen": teacher(server, limits=limits)})
        )
        monkeypatch.setattr("synthgen.journal.writer.os.write", write)
        full = cli("generate", path, "-o", tmp_path / "run")
        paid = len(server.payments)
        monkeypatch.undo()
        again = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert full.code == 6
    assert "No space left on device" in full.err
    assert "Traceback" not in full.err
    assert 0 < paid < 30
    assert (again.code, again.json["counts"]["accepted"]) == (0, 30)
    assert server.paid_twice <= 4


def test_a_run_folder_that_is_none_is_one_line_and_exit_2(tmp_path: Path) -> None:
    for verb in ("show", "filter"):
        options = ["-o", tmp_path / "out"] if verb == "filter" else []
        result = cli(verb, tmp_path / "nothing", *options)
        assert result.code == 2
        assert "nothing" in one_line(result)


def test_a_key_the_server_refuses_stops_the_lane_with_exit_3(tmp_path: Path) -> None:
    with Loopback(
        script=lambda _n, _b: refuse(401, {"error": {"message": "bad key", "code": "invalid_api_key"}})
    ) as s:
        result = cli("generate", save(tmp_path / "r.yaml", recipe(s, 50)), "-o", tmp_path / "run", "--json")

    assert result.code == 3
    assert result.json["counts"]["pending"] == 50
    assert len(s.requests) <= 16
    (line,) = result.err.splitlines()
    assert "teacher qwen" in line


# --- foreign rows that are no rows


@pytest.mark.parametrize("verb", ["filter", "dedup"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no rows found"),
        (b"\n\n", "no rows found"),
        ('{"instruction":"Wie heißt du?","output":"Ä"}\n'.encode("latin-1"), "rows.jsonl:1: not valid JSON"),
        (b"null\n[1]\n", "the first problem is "),
    ],
    ids=["empty", "blank", "Latin-1", "no objects"],
)
def test_a_file_without_a_valid_row_says_where_and_why(
    verb: str, content: bytes, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)

    result = cli(verb, path, "-o", tmp_path / "out")

    assert result.code == 2
    assert expected in one_line(result)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_first_malformed_row_is_shown_beside_the_funnel(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "Why?", "completion": "Because that is how it is."}\n{broken\n', encoding="utf-8"
    )

    out = cli("filter", path, "-o", tmp_path / "out", "--chain", "none").out

    assert "source/malformed_row, for example " in out
    assert "rows.jsonl:2: not valid JSON" in out


def test_a_column_of_nulls_does_not_decide_the_format(tmp_path: Path) -> None:
    rows = [
        {
            "messages": None,
            "instruction": "Why is the sky blue?",
            "output": "Air scatters blue light the most.",
        },
        {"messages": None, "instruction": None, "output": "What was asked is not known."},
    ]
    path = save_rows(tmp_path / "rows.jsonl", rows)

    cli("filter", path, "-o", tmp_path / "out", "--chain", "none")

    assert len(records(tmp_path / "out")) == 1
    assert [row["detail"] for row in records(tmp_path / "out", "rejected")] == [
        "instruction is missing, not text"
    ]
