"""Decontamination: benchmark items in a dataset are found however they are wrapped, and nothing else is."""

import json
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from synthgen.errors import SourceError, SynthgenError
from synthgen.pipeline.decontamination import open_decontamination
from synthgen.recipe.model import ReferenceConfig
from synthgen.refine import index_reference, repeats_of, view_of
from tests.loopback import Loopback
from tests.runs import cli, recipe, records, save, save_rows

SYLLABLES = (
    "ba",
    "re",
    "mi",
    "to",
    "ku",
    "sa",
    "len",
    "dor",
    "vi",
    "pa",
    "nus",
    "gra",
    "hel",
    "fi",
    "so",
    "tam",
    "ri",
)
TEMPLATE = "Read the following problem with care and then write the one right answer below it please:"
ITEM = "A farmer has seventeen sheep and all but nine of them run away, so how many does he have left?"


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


def rows(prompts: list[str], completions: list[str] | None = None) -> pl.DataFrame:
    answers = completions or ["I see."] * len(prompts)
    ids = [str(i) for i in range(len(prompts))]
    return view_of(pl.DataFrame({"id": ids, "prompt": prompts, "completion": answers}))


def found(items: list[str], prompts: list[str], **options: int) -> dict[str, str]:
    """Id -> reason."""
    hits = repeats_of(index_reference("bench", items, **options), rows(prompts))
    return dict(hits.select("id", "reason").iter_rows())


def sentence(draw: random.Random, words: int) -> str:
    said = [
        "".join(draw.choice(SYLLABLES) for _ in range(draw.randint(1, 3)))
        + draw.choice(["", "", "", ",", "'s"])
        for _ in range(words)
    ]
    return " ".join(said).capitalize() + draw.choice(".?")


def wrapped(text: str) -> str:
    words = text.split()
    return "\n".join(" ".join(words[start : start + 8]) for start in range(0, len(words), 8))


def test_injected_items_are_found_and_clean_rows_are_not() -> None:
    seed = secrets.randbits(32)
    draw = random.Random(seed)
    items = [f"{TEMPLATE} {sentence(draw, draw.randint(9, 60))}" for _ in range(500)]
    items += [sentence(draw, draw.randint(5, 40)) for _ in range(500)]
    disguises = (
        lambda item: item,
        wrapped,
        lambda item: f"{sentence(draw, 2 * len(item.split()))} {item} {sentence(draw, len(item.split()))}",
        lambda item: item.upper().replace(",", " -").replace("'", "’").rstrip(".?") + " !!",
    )
    injected = [disguise(item) for item in draw.sample(items, 100) for disguise in disguises]
    clean = [f"{TEMPLATE} {sentence(draw, draw.randint(5, 60))}" for _ in range(1000)]
    clean += [sentence(draw, draw.randint(3, 60)) for _ in range(1000)]

    hits = found(items, injected + clean)

    hit = [str(i) in hits for i in range(len(injected + clean))]
    assert sum(hit[: len(injected)]) >= 0.95 * len(injected), f"seed {seed}"
    assert sum(hit[len(injected) :]) <= 0.001 * len(clean), f"seed {seed}"


def test_an_item_in_the_answer_is_found_as_well() -> None:
    frame = rows(["Tell me a riddle."], [f"Gladly. {ITEM} Nine, of course."])

    hits = repeats_of(index_reference("bench", [ITEM]), frame)

    assert hits["reason"].to_list() == ["shared_run"]


def test_a_match_names_the_item_the_place_and_the_shared_words() -> None:
    frame = rows([f"Well then. {ITEM.upper()} Say it quickly."])

    (hit,) = repeats_of(index_reference("bench", ["Something else entirely", ITEM]), frame).to_dicts()

    assert hit["stage"] == "decontaminate:bench"
    assert (hit["score"], hit["threshold"]) == (20.0, 13.0)  # words
    assert hit["detail"].startswith("item 1, prompt, 20 words: a farmer has seventeen sheep")
    assert hit["detail"].endswith("does he have left")


def test_an_item_with_a_changed_word_is_a_near_copy() -> None:
    item = " ".join(f"word{n}" for n in range(30))
    edited = item.replace("word10 ", "other ").replace("word22 ", "")

    assert found([item], [item.replace("word12 ", "other "), edited]) == {"0": "shared_run"}
    assert found([item[: item.index(" word12")]], [item.replace("word11", "other")]) == {"0": "near_copy"}


def test_what_many_items_share_convicts_nobody() -> None:
    draw = random.Random(1)
    items = [f"{TEMPLATE} {sentence(draw, 12)}" for _ in range(40)]

    assert found(items, [f"{TEMPLATE} Why do cats purr when they sleep?", items[3]]) == {"1": "shared_run"}


def test_a_short_item_is_found_as_the_whole_text_or_a_sentence() -> None:
    items = ["What is the capital of France?", "Name a prime."]
    prompts = [
        "what is the CAPITAL\nof France",
        "Hello! What is the capital of France? Thanks.",
        "What is the capital of France called in German?",
        "Name a prime!",
        "Be quick. Name a prime. Then another.",
    ]

    assert found(items, prompts) == {"0": "exact_match", "1": "exact_match", "3": "exact_match"}


def test_shorter_runs_convict_where_the_user_asks_for_it() -> None:
    item = " ".join(f"word{n}" for n in range(30))
    copied = "Nobody knows " + " ".join(f"word{n}" for n in range(9)) + " and so on"

    assert found([item], [copied]) == {}
    assert found([item], [copied], ngram=8) == {"0": "shared_run"}


def test_a_verdict_does_not_depend_on_the_rows_beside_it() -> None:
    draw = random.Random(2)
    items = [sentence(draw, 20) for _ in range(20)]
    frame = rows([*(sentence(draw, 30) for _ in range(20)), *items, ""])
    reference = index_reference("bench", items)

    apart = pl.concat([repeats_of(reference, frame.slice(start, 7)) for start in range(0, frame.height, 7)])

    assert apart.equals(repeats_of(reference, frame))


def test_a_search_that_finds_nothing_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_rows(tmp_path / "bench.jsonl", [{"question": ITEM}])
    opened = open_decontamination([(ReferenceConfig(path=str(path)), path)], random.Random(1))
    assert opened is not None
    monkeypatch.setattr(
        "synthgen.pipeline.decontamination.repeats_of",
        lambda reference, view: repeats_of(reference, view.clear()),
    )

    with pytest.raises(SynthgenError, match="self-test item was not found in bench"):
        opened.verdicts(rows(["Anything."]))


def test_a_reference_without_a_searchable_item_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.txt"
    path.write_text("Yes\nNo\n")

    with pytest.raises(SourceError, match=r"bench\.txt: none of its 2 items"):
        open_decontamination([(ReferenceConfig(path=str(path)), path)])


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv", "txt"])
def test_a_dataset_is_filtered_against_a_file(suffix: str, tmp_path: Path) -> None:
    bench = tmp_path / f"bench.{suffix}"
    if suffix == "jsonl":
        save_rows(bench, [{"question": ITEM, "answer": "nine"}])
    elif suffix == "parquet":
        pl.DataFrame({"question": [ITEM], "answer": ["nine"]}).write_parquet(bench)
    elif suffix == "csv":
        pl.DataFrame({"question": [ITEM], "answer": ["nine"]}).write_csv(bench)
    else:
        bench.write_text(ITEM + "\n")
    kept = {"prompt": "Why is the sky blue?", "completion": "Air scatters short waves more than long ones."}
    data = save_rows(
        tmp_path / "rows.jsonl", [kept, {"prompt": wrapped(ITEM), "completion": "Nine are left."}]
    )

    result = cli("filter", data, "-o", tmp_path / "out", "--chain", "none", "--against", bench, "--json")

    assert result.code == 0
    assert result.json["reasons"] == {"decontaminate:bench/shared_run": 1}
    (rejected,) = records(tmp_path / "out", "rejected")
    assert "seventeen sheep" in rejected["detail"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (said,) = manifest["decontamination"]
    assert (said["name"], said["items"], said["unsearchable"]) == ("bench", 1, 0)


def test_more_is_said_of_a_reference_as_in_a_recipe(tmp_path: Path) -> None:
    save_rows(tmp_path / "bench.jsonl", [{"stem": " ".join(ITEM.split()[:9])}])
    data = save_rows(tmp_path / "rows.jsonl", [{"prompt": f"So: {ITEM}", "completion": "Nine."}])
    given = f"{{path: {tmp_path}/bench.jsonl, fields: [stem], ngram: 8, name: riddles, split: test}}"

    result = cli("filter", data, "-o", tmp_path / "out", "--chain", "none", "--against", given, "--json")

    assert result.json["reasons"] == {"decontaminate:riddles/test/shared_run": 1}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{path: b.jsonl, ngram: 3}", "ngram: Input should be greater than or equal to 8"),
        ("{path: [", "not a mapping; write a path"),
        ("empty.jsonl", "empty.jsonl: no rows found"),
    ],
)
def test_a_wrong_reference_says_what_to_write(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    save_rows(tmp_path / "rows.jsonl", [{"prompt": "Why?", "completion": "Because."}])

    result = cli("filter", "rows.jsonl", "-o", "out", "--against", given)

    assert result.code == 2
    assert said in result.err


def test_a_file_whose_items_are_unclear_says_how_to_name_them(tmp_path: Path) -> None:
    bench = save_rows(tmp_path / "bench.jsonl", [{"stem": ITEM, "choices_text": "one two three"}])
    data = save_rows(tmp_path / "rows.jsonl", [{"prompt": "Why?", "completion": "Because."}])

    result = cli("filter", data, "-o", tmp_path / "out", "--against", bench)

    assert result.code == 2
    assert "which columns hold the items?" in result.err
    assert "stem, choices_text" in result.err


def test_a_run_keeps_clear_of_the_recipes_references(loopback: Loopback, tmp_path: Path) -> None:
    save_rows(tmp_path / "bench.jsonl", [{"stem": ITEM}])
    content = recipe(
        loopback,
        source={"inline": [{"instruction": ITEM}, {"instruction": "What do sheep eat?"}]},
        refine={
            "chain": "none",
            "decontaminate": [
                {"path": "bench.jsonl", "fields": ["stem"], "name": "riddles", "split": "test"}
            ],
        },
    )

    first = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")
    (tmp_path / "bench.jsonl").unlink()
    again = cli("filter", tmp_path / "run", "-o", tmp_path / "again", "--json")

    assert first.code == again.code == 0
    assert first.json["reasons"] == again.json["reasons"] == {"decontaminate:riddles/test/shared_run": 1}
    assert len(records(tmp_path / "again")) == 1


def test_a_missing_reference_stops_before_anything_is_asked(loopback: Loopback, tmp_path: Path) -> None:
    content = recipe(loopback, refine={"chain": "none", "decontaminate": ["gone.jsonl"]})

    result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run")

    assert result.code == 2
    assert "refine.decontaminate[0]" in result.err
    assert "gone.jsonl" in result.err
    assert loopback.requests == []
