"""`filter --select`: the rows that are wanted, the others as rejects, the same ones every time."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from synthgen.refine.select import choose, in_order, quotas, sample_features
from tests.runs import cli, published_bytes, records, save, save_rows


def varied(count: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(5000)}" for _ in range(20)) for _ in range(count)]


def test_copies_of_a_template_are_chosen_after_everything_else() -> None:
    template = varied(1, seed=9)[0]
    texts = [f"{template} number{n}" for n in range(50)] + varied(20)

    places, _ = choose(*sample_features(texts), 21)

    assert set(range(50, 70)) <= set(places.tolist())


def test_every_row_is_chosen_once_and_gains_only_fall() -> None:
    texts = varied(40) + [f"{text} more" for text in varied(40)]
    places, gains = choose(*sample_features(texts), 80)

    assert sorted(places.tolist()) == list(range(80))
    assert (np.diff(gains) <= 0).all()


def test_features_do_not_depend_on_the_texts_beside() -> None:
    texts = varied(1100)

    together, apart = sample_features(texts), [sample_features([text]) for text in texts]

    assert np.array_equal(together[0], np.concatenate([part[0] for part in apart]))


def test_features_in_another_order_are_those_of_the_texts_in_that_order() -> None:
    texts = ["one", "", "two words", "and three words"]

    found = in_order(*sample_features(texts), np.array([3, 1, 0, 2]))
    expected = sample_features([texts[place] for place in (3, 1, 0, 2)])

    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


@pytest.mark.parametrize(
    ("sizes", "n", "expected"),
    [([10, 10, 10], 9, [3, 3, 3]), ([1, 10, 10], 9, [1, 4, 4]), ([10, 10], 5, [3, 2]), ([2, 2], 9, [2, 2])],
)
def test_quotas_are_as_even_as_the_groups_allow(sizes: list[int], n: int, expected: list[int]) -> None:
    assert quotas(np.array(sizes), n).tolist() == expected


def dataset(folder: Path) -> Path:
    rows = [
        {
            "id": f"r{n}",
            "prompt": f"Question {n}?",
            "completion": text,
            "teacher": "ab"[n % 3 == 0],
            "quality": n,
        }
        for n, text in enumerate(varied(30))
    ]
    return save_rows(folder / "rows.jsonl", rows)


def test_what_is_not_selected_is_rejected_and_all_adds_up(tmp_path: Path) -> None:
    result = cli(
        "filter", dataset(tmp_path), "-o", tmp_path / "out", "--chain", "none", "--select", 12, "--json"
    )

    assert result.code == 0, result.err
    counts = result.json["counts"]
    assert (counts["planned"], counts["accepted"], counts["rejected"]) == (30, 12, 18)
    assert result.json["reasons"] == {"select/not_selected": 18}
    assert len(records(tmp_path / "out")) == 12
    assert len(records(tmp_path / "out", "rejected")) == 18


def test_flags_are_counted_of_the_rows_that_stay(tmp_path: Path) -> None:
    chain = save(
        tmp_path / "c.yaml",
        {"name": "c", "version": 1, "steps": [{"length": {"min_words": 50, "on_reject": "flag"}}]},
    )

    result = cli(
        "filter", dataset(tmp_path), "-o", tmp_path / "out", "--chain", chain, "--select", 12, "--json"
    )

    assert result.json["flags"] == {"length:length_short": 12}
    assert json.loads((tmp_path / "out/manifest.json").read_text())["flags"] == {"length:length_short": 12}


def test_the_best_scores_are_selected(tmp_path: Path) -> None:
    options = ["--chain", "none", "--score", "quality", "--select", 3, "--by", "score:quality"]

    assert cli("filter", dataset(tmp_path), "-o", tmp_path / "out", *options).code == 0

    assert [row["id"] for row in records(tmp_path / "out")] == ["r27", "r28", "r29"]


def test_groups_share_evenly(tmp_path: Path) -> None:
    options = ["--chain", "none", "--select", 10, "--by", "stratify:teacher"]

    assert cli("filter", dataset(tmp_path), "-o", tmp_path / "out", *options).code == 0

    assert sorted(row["teacher"] for row in records(tmp_path / "out")) == ["a"] * 5 + ["b"] * 5


def test_the_selection_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    path = dataset(tmp_path)

    for name in ("one", "two"):
        assert cli("filter", path, "-o", tmp_path / name, "--chain", "none", "--select", 7).code == 0

    assert published_bytes(tmp_path / "one") == published_bytes(tmp_path / "two")


@pytest.mark.parametrize("by", ["diversity", "stratify:teacher", "score:quality"])
def test_the_order_of_the_rows_does_not_matter(by: str, tmp_path: Path) -> None:
    twins = varied(12)
    rows = [
        {
            "id": f"r{n:02}",
            "prompt": f"Question {n}?",
            "completion": text,
            "teacher": "ab"[n % 3 == 0],
            "quality": 1,
        }
        for n, text in enumerate(twins + [" ".join(reversed(text.split())) for text in twins])
    ]
    options = ["--chain", "none", "--no-near", "--score", "quality", "--select", 7, "--by", by]

    chosen = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        data = save_rows(tmp_path / f"{seed}.jsonl", rows)
        assert cli("filter", data, "-o", tmp_path / f"out{seed}", *options).code == 0
        chosen.append({row["id"] for row in records(tmp_path / f"out{seed}")})

    assert len(chosen[0]) == 7
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--by", "novelty"], "write diversity, score:NAME or stratify:COLUMN"),
        (["--by", "score:none"], "no accepted row has this score"),
        (["--by", "stratify:teachr"], "did you mean 'teacher'?"),
        (["--dry-run", "3"], "leave it out of a dry run"),
    ],
)
def test_a_selection_that_cannot_be_made_says_why(options: list[str], expected: str, tmp_path: Path) -> None:
    result = cli("filter", dataset(tmp_path), "-o", tmp_path / "out", "--select", 3, *options)

    assert result.code == 2
    assert expected in result.err


def test_how_to_choose_without_how_many_is_refused(tmp_path: Path) -> None:
    result = cli("filter", dataset(tmp_path), "-o", tmp_path / "out", "--by", "score:quality")

    assert result.code == 2
    assert "write --select N as well" in result.err
