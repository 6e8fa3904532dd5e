"""Calibration of whole runs: known agreement comes back, useless judges are called out, changed judges are noticed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import synthgen
from synthgen.errors import UsageError
from synthgen.pipeline.labels import read_labels
from synthgen.refine.agreement import cuts, kappa
from tests.judges import classroom, judged, worth
from tests.loopback import Loopback
from tests.runs import Recipe, cli, records, save_rows

ROWS = 80


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=classroom()) as server:
        yield server


def run_of(server: Loopback, folder: Path, **judge: Any) -> Recipe:
    """A finished run whose judge keeps everything."""
    content = judged(server, {"teacher": "one", "keep": ">= 4", **judge}, rows=ROWS)
    assert synthgen.generate(content, folder).problem is None
    return content


def everything(run: Path) -> list[dict[str, Any]]:
    rows = [*records(run), *records(run, "rejected")]
    return sorted(rows, key=lambda record: str(record["id"]))


def labelled(
    run: Path, folder: Path, label: Callable[[int, int], object], rows: int = ROWS
) -> tuple[Path, list[tuple[int, object]]]:
    """Labels by a record's place and worth, and what they say."""
    said = [
        (place, worth(record["messages"][-1]["content"]), record)
        for place, record in enumerate(everything(run))
    ][:rows]
    lines = [{"id": record["id"], "label": label(place, value)} for place, value, record in said]
    return save_rows(folder / "labels.jsonl", lines), [
        (value, label(place, value)) for place, value, _ in said
    ]


def mostly(place: int, value: int) -> bool:
    """A person who agrees with a threshold of 4, but for every sixth record."""
    return (value >= 4) != (place % 6 == 0)


def test_a_known_kappa_is_reproduced(server: Loopback, tmp_path: Path) -> None:
    run_of(server, tmp_path / "run")
    labels, pairs = labelled(tmp_path / "run", tmp_path, mostly)

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    ours, theirs = [value >= 4 for value, _ in pairs], [bool(label) for _, label in pairs]
    agreed = sum(one == other for one, other in zip(ours, theirs, strict=True)) / ROWS
    chance = sum(
        (sum(one is side for one in ours) / ROWS) * (sum(one is side for one in theirs) / ROWS)
        for side in (True, False)
    )
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx((agreed - chance) / (1 - chance))
    assert found.kappa == kappa(ours, theirs)
    (now,) = cuts([value for value, _ in pairs], theirs, [4])
    assert found.now == now


def test_labels_on_the_judge_s_scale_give_a_weighted_kappa(server: Loopback, tmp_path: Path) -> None:
    run_of(server, tmp_path / "run")
    labels, pairs = labelled(
        tmp_path / "run", tmp_path, lambda place, value: min(5, value + (place % 4 == 0))
    )

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    expected = kappa(
        [value for value, _ in pairs], [int(str(label)) for _, label in pairs], weights="quadratic"
    )
    assert not found.binary
    assert found.weighted_kappa == expected
    assert found.weighted_kappa is not None
    assert 0.5 < found.weighted_kappa.value < 1.0


def test_the_picked_threshold_has_the_wanted_precision(server: Loopback, tmp_path: Path) -> None:
    run_of(server, tmp_path / "run")
    labels, _ = labelled(
        tmp_path / "run", tmp_path, lambda place, value: value == 5 or (value >= 3 and place % 2 == 0)
    )

    found = synthgen.judge_calibrate(tmp_path / "run", labels, precision=0.95)

    assert found.picked is not None
    assert found.picked.threshold == 5.0
    assert found.picked.precision is not None
    assert found.picked.precision.value == 1.0
    assert found.picked.recall is not None
    assert found.picked.recall.value < 1.0


def test_a_judge_that_always_says_five_is_called_out(tmp_path: Path) -> None:
    with Loopback(reply=classroom(score=lambda _: 5)) as server:
        run_of(server, tmp_path / "run")
    labels, _ = labelled(tmp_path / "run", tmp_path, lambda place, value: place % 3 != 0)

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    assert any(f"judge one gave 5 to {ROWS} of {ROWS} records" in warning for warning in found.warnings)
    assert found.auc is not None
    assert found.auc.value == 0.5
    assert found.kappa is not None
    assert found.kappa.value == 0.0
    assert found.picked is None


def test_an_unparsable_judgement_is_counted_and_costs_recall(tmp_path: Path) -> None:
    with Loopback(
        reply=classroom(score=lambda answer: None if worth(answer) == 5 else worth(answer))
    ) as server:
        run_of(server, tmp_path / "run")
    labels, pairs = labelled(tmp_path / "run", tmp_path, lambda place, value: value >= 4)
    fives = sum(value == 5 for value, _ in pairs)

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    assert fives > 0
    assert found.judges[0].unparsable == fives
    assert found.scored == ROWS - fives
    assert found.now is not None
    assert found.now.recall is not None
    assert found.now.recall.n == sum(value >= 4 for value, _ in pairs)
    assert any("held no score that could be read" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("rows", "label", "expected"),
    [
        (12, mostly, "n = 12 is too small: kappa lies anywhere from"),
        (ROWS, lambda place, value: place > 2, "labels are one-sided: 3 of 80 are bad"),
        (ROWS, lambda place, value: place % 2 == 0, "no threshold reaches precision 0.9"),
        (20, lambda place, value: value >= 4, "precision 0.9 is not shown: "),
    ],
)
def test_what_the_labels_cannot_show_is_said(
    rows: int, label: Callable[[int, int], object], expected: str, server: Loopback, tmp_path: Path
) -> None:
    run_of(server, tmp_path / "run")
    labels, _ = labelled(tmp_path / "run", tmp_path, label, rows)

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    assert any(expected in warning for warning in found.warnings), found.warnings


def test_a_judge_that_likes_length_is_found(tmp_path: Path) -> None:
    def length_of(answer: str) -> int:
        return min(5, max(1, len(answer) // 6 - 16))

    with Loopback(reply=classroom(score=length_of)) as server:
        run_of(server, tmp_path / "run", keep=">= 1")
    labels, _ = labelled(tmp_path / "run", tmp_path, lambda place, value: place % 2 == 0)

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    assert found.verbosity is not None
    assert found.verbosity.low > 0.5
    assert any("verbosity bias" in warning for warning in found.warnings)


def test_a_judge_that_likes_what_stands_first_is_found(tmp_path: Path) -> None:
    def first_if_near(first: int, second: int) -> str:
        return "A" if abs(first - second) < 2 else "A" if first > second else "B"

    with Loopback(reply=classroom(prefer=first_if_near)) as server:
        content = judged(
            server,
            {"teacher": "one", "keep": ">= 1"},
            rows=20,
            samples=3,
            refine={"best_of": {"teacher": "two"}},
        )
        synthgen.generate(content, tmp_path / "run")
    labels, _ = labelled(tmp_path / "run", tmp_path, mostly)

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    assert found.position is not None
    assert found.position.pairs == 60
    assert found.position.first is not None
    assert found.position.first.value == 1.0
    assert any("the answer shown first won 100%" in warning for warning in found.warnings)


def test_teachers_that_met_are_ranked(tmp_path: Path) -> None:
    def reply(body: Any) -> str:
        text = classroom()(body)
        return text[:-1] + "5" if body["model"] == "judge-three" and "worth" in text[-8:] else text

    with Loopback(reply=reply) as server:
        content = judged(
            server,
            {"teacher": "one", "keep": ">= 1"},
            rows=20,
            samples=4,
            refine={"best_of": {"teacher": "two"}},
        )
        content["steps"][0]["teacher"] = {"qwen": 1, "three": 1}
        synthgen.generate(content, tmp_path / "run")
    labels, _ = labelled(tmp_path / "run", tmp_path, mostly)

    strengths = synthgen.judge_calibrate(tmp_path / "run", labels).strengths

    assert strengths["three"] > 2 * strengths["qwen"]


# --- every rule a recipe can keep by


def recut_keeps(run: Path, out: Path) -> set[str]:
    """What the recipe's own rule keeps, according to a run that was cut by it."""
    assert cli("filter", run, "-o", out).code == 0
    return {record["id"] for record in records(out)}


MANY: Recipe = {"teacher": ["one", "two", "three"]}
ODD: Callable[[str], object] = lambda answer: (7 * worth(answer) + len(answer)) % 5 + 1  # noqa: E731


@pytest.mark.parametrize(
    "judge",
    [
        {"keep": "> 3"},
        {"keep": "<= 2"},
        {"prompt": "rubric_answer", "keep": {"clarity": "> 3"}},
        {
            **MANY,
            "prompt": "rubric_answer",
            "keep": {"overall": "> 2", "clarity": ">= 3"},
            "combine": "majority",
        },
    ],
    ids=str,
)
def test_the_rule_that_is_judged_is_the_one_that_cuts(judge: Recipe, tmp_path: Path) -> None:
    with Loopback(reply=classroom(clarity=ODD)) as server:
        run_of(server, tmp_path / "run", **judge)
    labels, _ = labelled(tmp_path / "run", tmp_path, mostly)

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    good = {line["id"] for line in map(json.loads, labels.read_text().splitlines()) if line["label"]}
    kept = recut_keeps(tmp_path / "run", tmp_path / "cut")
    assert 0 < len(kept) < ROWS
    assert (found.now.kept_good, found.now.kept_bad) == (len(kept & good), len(kept - good))


@pytest.mark.parametrize(
    "judge",
    [
        {"keep": "<= 4"},
        {"prompt": "rubric_answer", "keep": {"overall": ">= 3", "clarity": ">= 3"}},
        {**MANY, "keep": ">= 4", "combine": "majority"},
    ],
    ids=str,
)
def test_the_picked_rule_written_as_it_is_said_keeps_what_was_foreseen(judge: Recipe, tmp_path: Path) -> None:
    def reply(body: Any) -> str:
        bent = {"judge-two": lambda said: min(5, worth(said) + 1), "judge-three": ODD}
        return classroom(score=bent.get(body["model"], worth), clarity=ODD)(body)

    with Loopback(reply=reply) as server:
        content = run_of(server, tmp_path / "run", **judge)
        low = content["refine"]["judge"]["keep"] == "<= 4"
        labels, _ = labelled(
            tmp_path / "run", tmp_path, lambda place, value: (value < 3) if low else value >= 3
        )
        found = synthgen.judge_calibrate(tmp_path / "run", labels, precision=0.8)
        keep = content["refine"]["judge"]["keep"]
        rule = {**keep, "overall": found.picked_rule} if isinstance(keep, dict) else found.picked_rule
        content["refine"]["judge"]["keep"] = rule
        synthgen.generate(content, tmp_path / "run")

    good = {line["id"] for line in map(json.loads, labels.read_text().splitlines()) if line["label"]}
    kept = {record["id"] for record in records(tmp_path / "run")}
    assert found.picked is not None
    assert (found.picked.kept_good, found.picked.kept_bad) == (len(kept & good), len(kept - good))
    assert found.picked.kept_good > 0


def test_a_judge_nobody_can_read_is_not_calibrated(tmp_path: Path) -> None:
    with Loopback(reply=classroom(score=lambda _: "quite good")) as server:
        run_of(server, tmp_path / "run")
    labels, _ = labelled(tmp_path / "run", tmp_path, mostly)

    result = cli("judge", "calibrate", tmp_path / "run", "--labels", labels)

    assert result.code == 2
    assert (
        f"none of the {ROWS} labelled records has a score: judge one: {ROWS} of {ROWS} replies could not be"
        in result.err
    )
    assert not (tmp_path / "run" / "calibration.json").exists()


# --- what a calibration holds for


def calibrated(server: Loopback, tmp_path: Path) -> tuple[Recipe, str]:
    content = run_of(server, tmp_path / "run")
    labels, _ = labelled(tmp_path / "run", tmp_path, mostly)
    return content, synthgen.judge_calibrate(tmp_path / "run", labels).id


def test_calibrating_asks_nobody_and_is_repeatable(server: Loopback, tmp_path: Path) -> None:
    _, first = calibrated(server, tmp_path)
    stored = (tmp_path / "run" / "calibration.json").read_bytes()
    before = len(server.requests)

    again = synthgen.judge_calibrate(tmp_path / "run", tmp_path / "labels.jsonl")

    assert again.id == first
    assert (tmp_path / "run" / "calibration.json").read_bytes() == stored
    assert len(server.requests) == before


def test_the_id_is_stored_with_the_scores(server: Loopback, tmp_path: Path) -> None:
    content, found = calibrated(server, tmp_path)

    report = synthgen.generate(content, tmp_path / "run")

    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (report.sent, report.warnings) == (0, ())
    assert manifest["judge"]["calibration"] == found
    assert {row["calibration"] for row in records(tmp_path / "run", "judgements")} == {found}


def reworded(content: Recipe, tmp_path: Path) -> None:
    bundled = Path(__file__).parent.parent / "prompts" / "judge_helpfulness.yaml"
    text = bundled.read_text().replace("version: 1", "version: 2").replace("5: correct", "5: quite correct")
    (tmp_path / "mine.yaml").write_text(text)
    content["refine"]["judge"]["prompt"] = str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            lambda content, _: content["refine"]["judge"].update(teacher="two"),
            "teacher was judge-one self-hosted lab, is judge-two self-hosted lab",
            id="model",
        ),
        pytest.param(reworded, "prompt was judge_helpfulness version 1", id="prompt"),
        pytest.param(
            lambda content, _: content["refine"]["judge"].update(sampling={"temperature": 1.0}),
            'sampling was {"max_tokens":200}, is {"temperature":1.0,"max_tokens":200}',
            id="sampling",
        ),
        pytest.param(
            lambda content, _: content["refine"]["judge"].update(teacher=["one", "two"]),
            "1 judges then, 2 now",
            id="panel",
        ),
    ],
)
def test_a_changed_judge_makes_a_calibration_stale_everywhere(
    change: Callable[[Recipe, Path], None], said: str, server: Loopback, tmp_path: Path
) -> None:
    content, _ = calibrated(server, tmp_path)
    change(content, tmp_path)

    report = synthgen.generate(content, tmp_path / "run")

    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    shown = cli("show", tmp_path / "run")
    cut = cli("filter", tmp_path / "run", "-o", tmp_path / "cut", "--keep", ">= 4")
    assert manifest["judge"]["calibration"] is None
    assert any(said in warning and "is stale" in warning for warning in report.warnings), report.warnings
    assert said in shown.out
    assert said in cut.err


@pytest.mark.parametrize("change", [{"keep": ">= 2"}, {"ship_score": False}])
def test_another_threshold_or_shipping_keeps_a_calibration(
    change: dict[str, Any], server: Loopback, tmp_path: Path
) -> None:
    content, found = calibrated(server, tmp_path)
    content["refine"]["judge"] |= change

    report = synthgen.generate(content, tmp_path / "run")

    assert report.warnings == ()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["judge"]["calibration"] == found


def test_a_cut_below_the_picked_threshold_is_told(server: Loopback, tmp_path: Path) -> None:
    run_of(server, tmp_path / "run")
    labels, _ = labelled(tmp_path / "run", tmp_path, lambda place, value: value >= 4)
    synthgen.judge_calibrate(tmp_path / "run", labels)

    lax = cli("filter", tmp_path / "run", "-o", tmp_path / "lax", "--keep", ">= 2")
    strict = cli("filter", tmp_path / "run", "-o", tmp_path / "strict", "--keep", ">= 5")

    assert "keep >= 2 is below 4, the threshold that calibration" in lax.err
    assert strict.err == ""


def test_show_says_whether_a_judge_is_calibrated(server: Loopback, tmp_path: Path) -> None:
    run_of(server, tmp_path / "run")
    before = cli("show", tmp_path / "run").out
    labels, _ = labelled(tmp_path / "run", tmp_path, lambda place, value: value >= 4)

    found = synthgen.judge_calibrate(tmp_path / "run", labels)

    assert "judge: not calibrated against people" in before
    after = cli("show", tmp_path / "run").out
    assert f'judge: calibrated as {found.id[:12]}; precision 0.9 takes `keep: ">= 4"`' in after


# --- labels


def test_labels_by_text_are_found(server: Loopback, tmp_path: Path) -> None:
    run_of(server, tmp_path / "run")
    turns = [record["messages"] for record in everything(tmp_path / "run")]
    lines = [
        {
            "instruction": asked["content"],
            "response": f"{said['content']}\n",
            "label": "good" if place % 2 else "bad",
        }
        for place, (asked, said) in enumerate(turns)
    ]

    found = synthgen.judge_calibrate(tmp_path / "run", save_rows(tmp_path / "labels.jsonl", lines))

    assert (found.matched, found.binary) == (ROWS, True)


def test_the_order_of_the_labels_changes_nothing(tmp_path: Path) -> None:
    lines = [{"id": str(place), "label": place % 2} for place in range(5)]

    one = read_labels(save_rows(tmp_path / "a.jsonl", lines), 1, 5)
    other = read_labels(save_rows(tmp_path / "b.jsonl", lines[::-1]), 1, 5)

    assert one.digest == other.digest
    assert one.binary


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([{"id": "a", "label": "fine"}], "labels.jsonl:1: label 'fine': write true or false"),
        ([{"id": "a", "label": 7}], "labels.jsonl:1: label 7: "),
        ([{"label": True}], "labels.jsonl:1: name the record by `id`"),
        ([{"id": "a", "label": 1}, {"id": "a", "label": 0}], "labels.jsonl:2: this record has another label"),
        ([{"id": "a", "label": True}, {"id": "b", "label": 4}], "mixes yes-or-no labels with scores"),
        ([{"id": "a", "label": 1}], "every label is 1: good, or the lowest score?"),
        ([], "holds no label"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(
    lines: list[dict[str, object]], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        read_labels(save_rows(tmp_path / "labels.jsonl", lines), 1, 5)

    assert expected in str(refused.value)


def test_labels_of_other_records_are_refused(server: Loopback, tmp_path: Path) -> None:
    run_of(server, tmp_path / "run")
    labels = save_rows(tmp_path / "labels.jsonl", [{"id": "not-here", "label": True}])

    result = cli("judge", "calibrate", tmp_path / "run", "--labels", labels)

    assert result.code == 2
    assert "none of the 1 labels is of a record that the judges saw" in result.err


def test_a_run_without_a_judge_is_refused(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(judged(server, rows=1), tmp_path / "run")
    labels = save_rows(tmp_path / "labels.jsonl", [{"id": "a", "label": True}])

    result = cli("judge", "calibrate", tmp_path / "run", "--labels", labels)

    assert result.code == 2
    assert "has no judge that scores" in result.err


def test_the_command_prints_tables_and_json(server: Loopback, tmp_path: Path) -> None:
    run_of(server, tmp_path / "run")
    labels, _ = labelled(tmp_path / "run", tmp_path, mostly)

    people = cli("judge", "calibrate", tmp_path / "run", "--labels", labels, "--precision", "0.8")
    program = cli("judge", "calibrate", tmp_path / "run", "--labels", labels, "--precision", "0.8", "--json")

    for expected in (
        "80 labels (yes or no)",
        "kappa, at the recipe's rule",
        "AUC",
        "now: >= 4",
        "calibration ",
    ):
        assert expected in people.out
    assert program.json == json.loads((tmp_path / "run" / "calibration.json").read_text())
