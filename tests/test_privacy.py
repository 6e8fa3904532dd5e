"""Private data in prompts: held back, replaced or sent, as the recipe says."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import synthgen
from synthgen.refine import found_in, redact, redact_fields
from tests.loopback import Loopback
from tests.runs import Recipe, cli, graded, recipe, records, save, teacher

MAIL = "lena.brandt84@gmx.net"
OTHER = "tom.weber77@web.de"
CARD = "4556737586899855"
ROWS = [
    {"instruction": f"Answer {MAIL} and {OTHER}, then {MAIL} again."},
    {"instruction": "What is a hash table?"},
]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


def hosted(server: Loopback, **changes: object) -> Recipe:
    there = teacher(server, provider="openai", route="deepseek-api", hf=None, model="deepseek-v4")
    return recipe(server, teachers={"qwen": there}, source={"inline": ROWS}, **changes)


def sent(server: Loopback) -> str:
    return str([seen.body for seen in server.requests])


# --- the pure function ------------------------------------------------------------------------------------------


def test_one_value_has_one_placeholder_in_all_texts() -> None:
    texts, reasons = redact([f"{MAIL} wrote to {OTHER}", f"so {OTHER} paid with {CARD}"])

    assert texts == ("[EMAIL_1] wrote to [EMAIL_2]", "so [EMAIL_2] paid with [CREDIT_CARD_1]")
    assert reasons == {"pii_email", "pii_credit_card"}


def test_redacting_twice_changes_nothing() -> None:
    once, _ = redact([f"Mail {MAIL}."])

    assert redact(once) == (once, frozenset())


def test_numbers_go_on_behind_placeholders_that_are_there() -> None:
    assert redact([f"[EMAIL_3] and {MAIL}"])[0] == ("[EMAIL_3] and [EMAIL_4]",)


def test_texts_inside_lists_and_objects_are_redacted() -> None:
    fields, reasons = redact_fields({"a": [{"b": f"to {MAIL}"}], "n": 3, "c": MAIL})

    assert fields == {"a": [{"b": "to [EMAIL_1]"}], "n": 3, "c": "[EMAIL_1]"}
    assert reasons == {"pii_email"}


def test_nothing_of_a_private_key_is_left() -> None:
    lines = "\n".join("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ" + "Zq7x" * 3 for _ in range(9))
    key = f"-----BEGIN PRIVATE {'KEY'}-----\n{lines}\n-----END PRIVATE {'KEY'}-----"

    assert redact([f"Use\n{key}\nnow"])[0] == ("Use\n[SECRET_PRIVATE_KEY_1]\nnow",)


def test_values_set_aside_for_examples_stay() -> None:
    assert found_in(["Write to jane@example.com or 4111 1111 1111 1111 at 192.0.2.1."]) == {}


def test_a_long_text_without_spaces_is_searched_in_time() -> None:
    assert found_in(["a." * 50_000 + "@" + "9" * 50_000]) == {}


# --- runs -------------------------------------------------------------------------------------------------------


def test_allow_sends_a_prompt_as_it_is(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(hosted(server), tmp_path / "run")

    assert MAIL in sent(server)


def test_block_rejects_the_row_and_sends_nothing_of_it(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(hosted(server, privacy="block"), tmp_path / "run")

    (rejected,) = records(tmp_path / "run", "rejected")
    assert (rejected["stage"], rejected["reason"]) == ("privacy", "pii_email")
    assert len(records(tmp_path / "run")) == 1
    assert len(server.requests) == 1
    assert MAIL not in sent(server)


def test_redact_asks_with_placeholders_and_records_them(server: Loopback, tmp_path: Path) -> None:
    report = synthgen.generate(hosted(server, privacy="redact"), tmp_path / "run")

    asked = {record["messages"][0]["content"] for record in records(tmp_path / "run")}
    assert asked == {"Answer [EMAIL_1] and [EMAIL_2], then [EMAIL_1] again.", "What is a hash table?"}
    assert "[EMAIL_2]" in sent(server)
    assert "@" not in sent(server)
    assert report.flags["redacted:pii_email"] == 1


def test_redacted_questions_are_not_asked_again(server: Loopback, tmp_path: Path) -> None:
    content = hosted(server, privacy="redact")
    synthgen.generate(content, tmp_path / "run")
    before = len(server.requests)

    synthgen.generate(content, tmp_path / "run")

    assert len(server.requests) == before


@pytest.mark.parametrize("mode", ["block", "redact"])
def test_a_teacher_of_ones_own_sees_everything(server: Loopback, tmp_path: Path, mode: str) -> None:
    synthgen.generate(recipe(server, source={"inline": ROWS}, privacy=mode), tmp_path / "run")

    assert MAIL in sent(server)


def test_block_keeps_a_record_from_a_hosted_judge(server: Loopback, tmp_path: Path) -> None:
    judge = teacher(server, provider="openai", route="deepseek-api", hf=None, model="deepseek-v4")
    content = recipe(
        server,
        source={"inline": ROWS},
        privacy="block",
        teachers={"qwen": teacher(server), "judge": judge},
        refine={"chain": "none", "judge": {"teacher": "judge", "keep": ">= 1"}},
    )

    report = synthgen.generate(content, tmp_path / "run")

    assert report.reasons["privacy/pii_email"] == 1
    judged = [str(seen.body) for seen in server.requests if "deepseek" in str(seen.body)]
    assert len(judged) == 1
    assert MAIL not in judged[0]


@pytest.mark.parametrize("mode", ["block", "redact"])
def test_a_hosted_judge_that_compares_sees_nothing_private(tmp_path: Path, mode: str) -> None:
    number = count()
    with Loopback(reply=lambda _: f"This is answer number {next(number)}.") as server:
        judge = teacher(server, provider="openai", route="deepseek-api", hf=None, model="deepseek-v4")
        content = recipe(
            server,
            source={"inline": ROWS},
            privacy=mode,
            teachers={"qwen": teacher(server), "judge": judge},
            refine={"chain": "none", "dedup": {"near": None}, "best_of": {"teacher": "judge"}},
        )
        content["steps"][0]["samples"] = 2

        report = synthgen.generate(content, tmp_path / "run")

        compared = [str(seen.body) for seen in server.requests if "deepseek" in str(seen.body)]
    assert compared
    assert not any(MAIL in body for body in compared)
    assert report.reasons.get("privacy/pii_email", 0) == (2 if mode == "block" else 0)


def test_output_redact_takes_private_data_out_of_answers(tmp_path: Path) -> None:
    with Loopback(reply=lambda _: f"Call {MAIL} at once.") as server:
        synthgen.generate(recipe(server, rows=1, output={"redact": True}), tmp_path / "run")

    (record,) = records(tmp_path / "run")
    assert record["messages"][1]["content"] == "Call [EMAIL_1] at once."


def test_plan_counts_private_data_in_the_first_prompts(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", hosted(server, privacy="redact"))

    plan = cli("plan", path, "--json").json

    assert plan["privacy"] == {
        "mode": "redact",
        "hosted": ["qwen"],
        "looked_at": 2,
        "found": {"pii_email": 1},
    }


def test_plan_says_what_is_sent_as_it_is(server: Loopback, tmp_path: Path) -> None:
    said = " ".join(cli("plan", save(tmp_path / "r.yaml", hosted(server))).out.split())

    assert "privacy: allow: private data is sent as it is (hosted: qwen); in the first 2 prompts:" in said
