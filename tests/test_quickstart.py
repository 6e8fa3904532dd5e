"""The front door: the quickstart recipe as it is, with the real embedded model, and the commands that lead to it."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import orjson
import polars as pl
import pytest
import yaml

from synthgen.types import JSONValue

ROOT = Path(__file__).parent.parent
RECIPE = "examples/quickstart.yaml"

needs_model = [
    pytest.mark.skipif(find_spec("openvino_genai") is None, reason="extra `local` is not installed"),
    pytest.mark.timeout(600),  # about 30 s on two cores; the first use fetches 93 MB
]


def synthgen(*words: str) -> str:
    """What the command line says on stdout; it must end with 0."""
    done = subprocess.run(
        [sys.executable, "-m", "synthgen", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Finished:
    """A quickstart run: where it is, what its first and its second command reported."""

    folder: Path
    first: dict[str, JSONValue]
    again: dict[str, JSONValue]
    bytes_before: dict[str, bytes]


def published(folder: Path) -> dict[str, bytes]:
    files = [path for name in ("data", "rejected") for path in sorted((folder / name).iterdir())]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*files, folder / "manifest.json"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    command = ("generate", RECIPE, "-o", str(folder), "--json")
    first = orjson.loads(synthgen(*command))
    before = published(folder)
    return Finished(folder, first, orjson.loads(synthgen(*command)), before)


def counts(run: Finished) -> dict[str, int]:
    found = run.first["counts"]
    assert isinstance(found, dict)
    return {name: count for name, count in found.items() if isinstance(count, int)}


def rows(folder: Path) -> list[dict[str, list[dict[str, str]]]]:
    return pl.read_parquet(folder / "*.parquet").select("messages").to_dicts()


class TestRun:
    """The recipe, run to its end."""

    pytestmark = needs_model

    def test_at_least_thirty_records_are_accepted(self, run: Finished) -> None:
        assert counts(run)["accepted"] >= 30

    def test_at_least_one_record_is_rejected(self, run: Finished) -> None:
        assert counts(run)["rejected"] >= 1

    def test_every_candidate_has_an_outcome(self, run: Finished) -> None:
        found = counts(run)

        assert found["planned"] == found["accepted"] + found["rejected"] == 112

    def test_an_accepted_answer_is_a_few_whole_sentences_about_the_question(self, run: Finished) -> None:
        pairs = [[message["content"] for message in row["messages"]] for row in rows(run.folder / "data")]

        on_topic = sum(question.split()[-1].rstrip("?") in answer.lower() for question, answer in pairs)
        whole = sum(answer.rstrip()[-1] in '.!?")' for _, answer in pairs)
        assert on_topic >= 0.8 * len(pairs)
        assert whole >= 0.8 * len(pairs)

    def test_the_prompts_own_words_stay_out_of_the_records(self, run: Finished) -> None:
        texts = [message["content"] for row in rows(run.folder / "data") for message in row["messages"]]

        assert not [text for text in texts if "sentences, without a list" in text]

    def test_both_splits_are_published(self, run: Finished) -> None:
        names = {path.name.split("-")[0] for path in (run.folder / "data").iterdir()}

        assert names == {"train", "test"}

    def test_the_same_command_again_sends_nothing(self, run: Finished) -> None:
        assert run.first["sent"] == 112
        assert run.again["sent"] == 0

    def test_the_same_command_again_changes_no_published_byte(self, run: Finished) -> None:
        assert published(run.folder) == run.bytes_before

    def test_show_prints_three_samples_and_a_reject_with_its_reason(self, run: Finished) -> None:
        shown = synthgen("show", str(run.folder))

        assert re.findall(r"^sample (\d)", shown, re.MULTILINE) == ["1", "2", "3"]
        assert len(re.findall(r"^rejected  [0-9a-f]{32}\nreason: \S+/\S+", shown, re.MULTILINE)) == 1
        assert f"accepted  {counts(run)['accepted']}" in re.sub(r" {2,}", "  ", shown)


def test_the_recipe_uses_the_default_chain_and_no_judge() -> None:
    recipe = yaml.safe_load((ROOT / RECIPE).read_text(encoding="utf-8"))

    assert recipe["refine"] == {"chain": "sft_default"}


def dry_run(target: str) -> str:
    """The commands make would run."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = [make, "--dry-run", "--always-make", target]
    done = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_quickstart_generates_and_shows() -> None:
    lines = dry_run("quickstart").splitlines()

    generate = lines.index(f".venv/bin/synthgen generate {RECIPE} -o runs/quickstart >/dev/null")
    assert lines[generate + 1] == ".venv/bin/synthgen show runs/quickstart"


def test_make_test_checks_style_types_and_runs_every_test() -> None:
    commands = dry_run("test").splitlines()[-4:]

    assert commands == [
        ".venv/bin/ruff check .",
        ".venv/bin/ruff format --check .",
        ".venv/bin/mypy",
        ".venv/bin/python -m pytest --numprocesses auto --maxprocesses 4",
    ]


def test_continuous_integration_runs_the_command_the_readme_shows() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()

    assert script[-1] == "exec make test"
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
