"""`refine.select` of a recipe: so many records published, the others rejected, nothing asked anew."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import Loopback
from tests.runs import cli, graded, published_bytes, recipe, records, save, teacher

CHOSEN = 4


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with Loopback(reply=graded) as server:
        yield server


def selecting(server: Loopback, path: Path, select: object, **changes: object) -> Path:
    """A recipe of twelve rows with a judge that drops nothing."""
    content = recipe(server, 12, wave=5, **changes)
    content["teachers"]["judge"] = teacher(server, model="judge")
    content["refine"] = {"chain": "none", "judge": {"teacher": "judge", "keep": ">= 1"}, "select": select}
    return save(path, content)


def ids(run: Path, folder: str = "data") -> list[str]:
    return [row["id"] for row in records(run, folder)]


def test_so_many_records_are_published_and_all_adds_up(loopback: Loopback, tmp_path: Path) -> None:
    path = selecting(loopback, tmp_path / "r.yaml", {"n": CHOSEN})

    result = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert result.code == 0, result.err
    counts = result.json["counts"]
    assert (counts["planned"], counts["accepted"], counts["rejected"]) == (12, CHOSEN, 12 - CHOSEN)
    assert result.json["reasons"] == {"select/not_selected": 12 - CHOSEN}
    assert len(ids(tmp_path / "run")) == CHOSEN
    assert {row["stage"] for row in records(tmp_path / "run", "rejected")} == {"select"}
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["select"] == {"n": CHOSEN, "by": "diversity"}
    assert "select/not_selected" in cli("show", tmp_path / "run").out
    story = cli("show", tmp_path / "run", "--row", ids(tmp_path / "run", "rejected")[0]).out
    assert "dedup: kept" in story
    assert "select: not_selected" in story


def test_the_best_are_those_with_the_highest_scores(loopback: Loopback, tmp_path: Path) -> None:
    path = selecting(loopback, tmp_path / "r.yaml", {"n": CHOSEN, "by": "score:judge"})

    assert cli("generate", path, "-o", tmp_path / "run").code == 0

    worst = min(row["scores"][0]["score"] for row in records(tmp_path / "run"))
    assert all(row["score"] <= worst for row in records(tmp_path / "run", "rejected"))


def test_another_selection_asks_nothing_and_gives_the_bytes_of_a_new_run(
    loopback: Loopback, tmp_path: Path
) -> None:
    first = selecting(loopback, tmp_path / "first.yaml", {"n": 9})
    other = selecting(loopback, tmp_path / "other.yaml", {"n": CHOSEN, "by": "score:judge"})
    assert cli("generate", first, "-o", tmp_path / "run").code == 0

    again = cli("generate", other, "-o", tmp_path / "run", "--json")
    assert cli("generate", other, "-o", tmp_path / "new").code == 0

    assert again.json["sent"] == 0
    assert published_bytes(tmp_path / "run") == published_bytes(tmp_path / "new")


def test_a_run_cut_again_selects_as_its_recipe_unless_told_otherwise(
    loopback: Loopback, tmp_path: Path
) -> None:
    path = selecting(loopback, tmp_path / "r.yaml", {"n": CHOSEN, "by": "score:judge"})
    assert cli("generate", path, "-o", tmp_path / "run").code == 0

    for name, options in (("same", []), ("more", ["--select", 7]), ("all", ["--select", 1000])):
        assert cli("filter", tmp_path / "run", "-o", tmp_path / name, *options).code == 0

    assert ids(tmp_path / "same") == ids(tmp_path / "run")
    assert len(ids(tmp_path / "more")) == 7
    assert len(ids(tmp_path / "all")) == 12
    assert json.loads((tmp_path / "more/manifest.json").read_text())["select"] == {"n": 7, "by": "diversity"}


def test_a_target_counts_what_there_is_to_select_from(loopback: Loopback, tmp_path: Path) -> None:
    met = selecting(loopback, tmp_path / "met.yaml", {"n": CHOSEN}, target=8)
    missed = selecting(loopback, tmp_path / "missed.yaml", {"n": CHOSEN}, target=20)

    results = [cli("generate", path, "-o", tmp_path / path.stem, "--json") for path in (met, missed)]

    assert [result.code for result in results] == [0, 3]
    assert [result.json["counts"]["accepted"] for result in results] == [CHOSEN, CHOSEN]
    assert results[0].json["reasons"] == {"select/not_selected": 8 - CHOSEN}
    assert "target missed: 12 of 20 records" in results[1].json["problem"]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (None, "select: 4 of all accepted records are published, by score:judge\n"),
        (8, "select: 4 of the 8 accepted records of `target` are published, by score:judge\n"),
        (3, "the 3 accepted records of `target` are published, by score:judge (which leaves out none)\n"),
    ],
)
def test_the_plan_says_what_is_selected_out_of_what(
    target: int | None, told: str, loopback: Loopback, tmp_path: Path
) -> None:
    path = selecting(loopback, tmp_path / "r.yaml", {"n": CHOSEN, "by": "score:judge"}, target=target)

    assert cli("plan", path, "--json").json["select"] == {"n": CHOSEN, "by": "score:judge"}
    assert told in cli("plan", path).out


@pytest.mark.parametrize(
    ("select", "key", "expected"),
    [
        ({"n": 0}, "n", "refine.select.n: "),
        ({"n": 3, "by": "novelty"}, "by", "write diversity, score:NAME or stratify:COLUMN"),
        ({"n": 3, "bye": "diversity"}, "bye", "did you mean 'by'?"),
        ({"n": 3, "by": "score:jugde"}, "by", "did you mean 'judge'?"),
        ({"n": 3, "by": "stratify:messages"}, "by", "records have no such column"),
    ],
)
def test_a_selection_that_cannot_be_is_an_error_at_its_line(
    select: dict[str, object], key: str, expected: str, loopback: Loopback, tmp_path: Path
) -> None:
    path = selecting(loopback, tmp_path / "r.yaml", select)
    lines = path.read_text().splitlines()
    line = 1 + next(place for place, text in enumerate(lines) if text.startswith(f"    {key}: "))

    result = cli("plan", path)

    assert result.code == 2
    assert f"r.yaml:{line}: " in result.err
    assert expected in result.err
