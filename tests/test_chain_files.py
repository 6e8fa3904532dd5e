"""Files that a chain names: found beside it from anywhere, part of its digest by what they hold, kept with a run."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthgen.errors import RecipeError
from synthgen.refine import Chain, load_chain
from tests.loopback import Loopback
from tests.runs import cli, published_bytes, recipe, save, save_rows
from tests.test_optional_filters import tokenizer


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `chains/mine.yaml` and `chains/tok`, which is not where commands are run."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return project_in(tmp_path / "project")


def project_in(folder: Path, **changes: object) -> Path:
    (folder / "chains" / "tok").mkdir(parents=True)
    tokenizer(folder / "chains" / "tok")
    step = {"tokens": {"tokenizer": "tok", "max_tokens": 12, **changes}}
    save(folder / "chains" / "mine.yaml", {"name": "mine", "version": 1, "steps": [{"length": {}}, step]})
    return folder


def chain_of(folder: Path) -> Chain:
    return load_chain("chains/mine.yaml", folder)


def test_a_run_finds_the_file_beside_its_chain_and_keeps_it(
    server: Loopback, project: Path, tmp_path: Path
) -> None:
    path = save(project / "r.yaml", recipe(server, refine={"chain": "chains/mine.yaml"}))

    made = cli("generate", path, "-o", tmp_path / "run", "--json")
    shutil.rmtree(project)
    again = cli("filter", tmp_path / "run", "-o", tmp_path / "cut", "--json")
    shown = cli("show", tmp_path / "run")

    assert made.json["reasons"] == {"filter:tokens/tokens_long": 5}
    assert (again.json["reasons"], shown.code) == (made.json["reasons"], 0)
    assert published_bytes(tmp_path / "cut") == published_bytes(tmp_path / "run")


def test_filter_finds_the_file_beside_the_chain_it_is_given(project: Path, tmp_path: Path) -> None:
    rows = save_rows(
        tmp_path / "in.jsonl", [{"instruction": "Count.", "output": "one two " * n} for n in (2, 9)]
    )

    done = cli("filter", rows, "--chain", project / "chains" / "mine.yaml", "-o", tmp_path / "out", "--json")

    assert done.json["reasons"] == {"filter:tokens/tokens_long": 1}


def test_the_digest_is_that_of_what_the_file_holds_wherever_it_lies(tmp_path: Path) -> None:
    here = chain_of(project_in(tmp_path / "here"))
    (tmp_path / "tokenizers").mkdir()
    shutil.copy(tmp_path / "here/chains/tok/tokenizer.json", tmp_path / "tokenizers/other-name.json")
    there = chain_of(project_in(tmp_path / "there", tokenizer=str(tmp_path / "tokenizers/other-name.json")))
    another = project_in(tmp_path / "another")
    file = another / "chains/tok/tokenizer.json"
    file.write_text(file.read_text().replace("[UNK]", "[NO]"))

    assert here.digest == there.digest
    assert here.digest != chain_of(another).digest
    assert str(tmp_path) not in json.dumps([here.as_json(), there.as_json()])


def test_a_file_that_is_not_there_is_told_before_anything_is_asked(server: Loopback, project: Path) -> None:
    (project / "chains/tok/tokenizer.json").unlink()
    path = save(project / "r.yaml", recipe(server, refine={"chain": "chains/mine.yaml"}))

    refused = cli("generate", path)

    assert (refused.code, server.requests) == (2, [])
    assert "mine.yaml:6: steps[1].tokens.tokenizer: there is no file" in refused.err
    with pytest.raises(RecipeError, match=r"chains/tok/tokenizer\.json"):
        chain_of(project)


def test_another_tokenizer_is_a_change_that_the_next_session_names(
    server: Loopback, project: Path, tmp_path: Path
) -> None:
    path = save(project / "r.yaml", recipe(server, refine={"chain": "chains/mine.yaml"}))
    cli("generate", path, "-o", tmp_path / "run")
    file = project / "chains/tok/tokenizer.json"
    file.write_text(file.read_text() + "\n")

    again = cli("generate", path, "-o", tmp_path / "run")

    assert "the recipe has changed since the last run" in again.err
    assert [copy.read_bytes() for copy in (tmp_path / "run" / "recipe_files").glob("*.json")] == [
        file.read_bytes()
    ]
