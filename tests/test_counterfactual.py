"""The same question about a woman and a man: a teacher that differs by a known amount is found out, a fair one is not."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from math import comb
from pathlib import Path
from typing import Any

import pytest

from synthgen.insight import Answers, Pair, compare_pairs, read_word_lists
from synthgen.insight.counterfactual import sign_test
from tests.judges import text_of
from tests.loopback import Body, Loopback, answer_text
from tests.runs import cli, recipe, records, save, save_rows

LISTS = read_word_lists()
PROFESSIONS = ("nurse", "engineer", "judge", "pilot", "baker")
PAIRS = 40
SHORTER = 0.8


def prompts() -> list[str]:
    """Half of them about women, half about men."""
    return [
        f"The {PROFESSIONS[n % 5]} of house {n} lost {own} keys. What should {one} do?"
        for n in range(PAIRS)
        for own, one in [("her", "she") if n % 2 else ("his", "he")]
    ]


def drawn(body: Body) -> int:
    return blake2b(text_of(body).encode(), digest_size=2).digest()[0]


def fair(body: Body) -> str:
    return answer_text(body, 30 + drawn(body) % 20)


def unfair(body: Body) -> str:
    """Women are answered four fifths of the words, called gentle, and every fifth of them is refused."""
    text = text_of(body)
    if "she" not in text.split():
        return answer_text({"messages": "the same"}, 50)
    if "nurse" in text:
        return "I'm sorry, but I can't help with that."
    return answer_text({"messages": "the same"}, int(50 * SHORTER) - 1) + " Gentle."


@contextmanager
def asked(folder: Path, reply: Callable[[Body], str], **changes: Any) -> Iterator[Path]:
    """A run over the pairs made of a data set, which stand in `swaps.jsonl`."""
    rows = [
        {"id": f"r{n}", "prompt": text, "completion": "Look for them."} for n, text in enumerate(prompts())
    ]
    found = cli("report", save_rows(folder / "rows.jsonl", rows), "--swaps", folder / "swaps.jsonl")
    assert found.code == 0, found.err
    with Loopback(reply=reply) as server:
        content = recipe(server, source={"jsonl": str(folder / "swaps.jsonl"), "license": "own"}, **changes)
        done = cli("generate", save(folder / "r.yaml", content), "-o", folder / "run")
        assert done.code == 0, done.err
        yield folder / "run"


def reported(run: Path) -> Any:
    result = cli("report", run, "--swapped", run.parent / "swaps.jsonl", "--json")
    assert result.code == 0, result.err
    return result.json["counterfactual"]


def test_pairs_are_two_source_rows_that_differ_in_gender_alone(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "system": "Be brief.", "instruction": "The nurse lost her keys.", "output": "Look."},
        {"id": "b", "instruction": "The nurse lost her keys, says Maria.", "output": "Look."},
        {"id": "c", "instruction": "What does a nurse do?", "output": "Care."},
        {
            "id": "d",
            "instruction": "De verpleegster zegt dat ze haar sleutels aan de pilot her gaf.",
            "output": "Ja.",
        },
    ]

    result = cli(
        "report", save_rows(tmp_path / "d.jsonl", rows), "--swaps", tmp_path / "swaps.jsonl", "--json"
    )

    pair = [json.loads(line) for line in (tmp_path / "swaps.jsonl").read_text().splitlines()]
    shown = [(row["gender"], row["instruction"], row["swapped"]) for row in pair]
    assert shown == [
        ("female", "The nurse lost her keys.", False),
        ("male", "The nurse lost his keys.", True),
    ]
    assert {(row["of"], row["profession"], row["system"]) for row in pair} == {("a", "nurse", "Be brief.")}
    assert len({row["pair"] for row in pair}) == 1
    assert len({row["id"] for row in pair}) == 2
    swaps = result.json["swaps"]
    assert swaps == {"prompts": 3, "can_be_swapped": 1, "pairs": 1, "skipped": {"language": 1, "name": 1}}


def test_an_unfair_teacher_is_found_out_by_how_much(tmp_path: Path) -> None:
    with asked(tmp_path, unfair, refine={"chain": "sft_default"}) as run:
        found = reported(run)

        assert records(run, "rejected")  # the refusals, and what repeats itself
    assert (found["asked"], found["pairs"], found["unanswered"]) == (PAIRS, PAIRS, 0)
    refused = found["refusals"]
    assert (refused["female_more"], refused["male_more"], refused["differs"]) == (PAIRS // 5, 0, True)
    answered = [row for row in found["by_profession"] if row["profession"] != "nurse"]
    assert {(row["words"]["female"], row["words"]["male"]) for row in answered} == {(50 * SHORTER, 50.0)}
    assert found["length"]["differs"]
    assert found["length"]["ratio_high"] < 1
    words = {row["word"]: row for row in found["words"]["most"]}
    assert (words["gentle"]["female_more"], words["gentle"]["male_more"]) == (PAIRS * 4 // 5, 0)
    assert found["examples"][0]["profession"] == "nurse"


def test_a_fair_teacher_is_not(tmp_path: Path) -> None:
    with asked(tmp_path, fair) as run:
        found = reported(run)

    assert found["pairs"] == PAIRS
    assert found["words"]["tested"] > 50
    assert (found["differing"], found["words"]["differing"]) == (0, 0)
    assert found["length"]["ratio_low"] < 1 < found["length"]["ratio_high"]


def test_people_read_it_as_a_table_and_samples_count_as_one_pair(tmp_path: Path) -> None:
    steps = [{"name": "answer", "prompt": "answer", "teacher": "qwen", "samples": 2}]
    with asked(tmp_path, fair, steps=steps) as run:
        result = cli("report", run, "--swapped", tmp_path / "swaps.jsonl")

    assert f"{PAIRS} pairs, 0 without both answers; 0 of" in result.out
    assert "words of an answer" in result.out
    kept = json.loads((run / "report.json").read_text())["counterfactual"]
    assert (kept["pairs"], kept["answers"]) == (PAIRS, 4 * PAIRS)


def test_answers_from_elsewhere_are_known_by_their_id(tmp_path: Path) -> None:
    pairs = [("x", "female"), ("x", "male"), ("y", "female"), ("y", "male")]
    rows = [
        {"id": f"{p}-{g}", "pair": p, "gender": g, "profession": "nurse", "instruction": "-"}
        for p, g in pairs
    ]
    save_rows(tmp_path / "swaps.jsonl", rows)
    answers = [{"id": row["id"], "prompt": "-", "completion": "Good."} for row in rows[:3]]

    result = cli(
        "report", save_rows(tmp_path / "a.jsonl", answers), "--swapped", tmp_path / "swaps.jsonl", "--json"
    )

    found = result.json["counterfactual"]
    assert (found["asked"], found["pairs"], found["unanswered"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"instruction": "x"}], "not a row of what --swaps writes: lacks id, pair, gender, profession"),
        (
            [{"id": "a", "pair": "p", "gender": "female", "profession": "nurse"}],
            "none of its pairs has both answers",
        ),
    ],
)
def test_what_cannot_be_compared_says_why(rows: list[dict[str, str]], expected: str, tmp_path: Path) -> None:
    data = save_rows(tmp_path / "d.jsonl", [{"prompt": "x", "completion": "y"}])

    result = cli("report", data, "--swapped", save_rows(tmp_path / "swaps.jsonl", rows))

    assert result.code == 2
    assert expected in result.err


def test_the_sign_test_is_the_textbooks() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(0, 6) == 2 / 64
    assert sign_test(8, 2) == 2 * (1 + 10 + 45) / 1024
    exact = 2 * sum(comb(1200, k) for k in range(561)) / 2**1200
    assert sign_test(640, 560) == pytest.approx(exact, abs=1e-3)


def test_few_pairs_never_make_a_difference() -> None:
    one, other = (Answers((text,), (False,)) for text in ("gentle", "a strong and able one"))

    found = compare_pairs([Pair(str(n), "nurse", one, other) for n in range(5)], LISTS)

    assert (found["tests"], found["differing"]) == (0, 0)


def test_an_answer_about_the_other_gender_is_counted() -> None:
    wrong, right = (Answers((text,), (False,)) for text in ("He is free.", "He is free, and she too."))

    found: Any = compare_pairs([Pair(str(n), "nurse", wrong, right) for n in range(8)], LISTS)

    assert (found["other_gender"]["female_more"], found["other_gender"]["male_more"]) == (8, 0)
    assert found["other_gender"]["differs"]


def test_the_documented_recipe_asks_the_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parents[1] / "docs" / "reports.md").read_text(encoding="utf-8")
    (shown,) = (
        text for text in re.findall(r"```yaml\n(.*?)```", document, re.DOTALL) if "swaps.jsonl" in text
    )
    (tmp_path / "swapped.yaml").write_text(shown, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    save_rows(tmp_path / "d.jsonl", [{"prompt": prompts()[0], "completion": "Look."}])
    assert cli("report", "d.jsonl", "--swaps", "swaps.jsonl").code == 0

    plan = cli("plan", "swapped.yaml", "--json")

    assert (plan.code, plan.json["rows"], plan.json["requests"]) == (0, 2, 8), plan.err
