"""The acceptance table: every case gets the decision and the obligations it expects, and a miss is told with its rules."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from synthgen.errors import UsageError
from synthgen.policy import load_registry
from synthgen.policy.cases import CaseResult, run_cases
from tests.runs import cli

CASES = Path(__file__).parent / "data" / "policy_cases_sample.csv"
REGISTRY = load_registry()
ROWS = {row["id"]: row for row in csv.DictReader(CASES.read_text(encoding="utf-8").splitlines())}
RESULTS = {result.id: result for result in run_cases(REGISTRY, CASES)}
HEADER = "id,teachers,routes,roles,uses,context,seeds,expected_decision,expected_obligations\n"


def one(tmp_path: Path, line: str) -> CaseResult:
    path = tmp_path / "cases.csv"
    path.write_text(HEADER + line + "\n", encoding="utf-8")
    (result,) = run_cases(REGISTRY, path)
    return result


def test_every_row_of_the_sample_is_run() -> None:
    assert list(RESULTS) == list(ROWS)
    assert len(ROWS) == 32


@pytest.mark.parametrize("result", RESULTS.values(), ids=list(RESULTS))
def test_case_gets_the_expected_decision(result: CaseResult) -> None:
    assert (result.found, result.problem, result.notes) == (result.expected, None, ())


@pytest.mark.parametrize("result", RESULTS.values(), ids=list(RESULTS))
def test_case_owes_the_expected_obligations(result: CaseResult) -> None:
    assert result.missing == ()
    assert bool(result.owed) == bool(ROWS[result.id]["expected_obligations"])


@pytest.mark.parametrize("result", RESULTS.values(), ids=list(RESULTS))
def test_case_cites_the_rule_that_decides(result: CaseResult) -> None:
    named = set(ROWS[result.id]["expected_rules"].split(";"))
    expected = {rule for rule in named if rule in REGISTRY.rules}

    assert expected <= {citation.rule for citation in result.chain}


def test_no_rule_names_a_case() -> None:
    text = " ".join(rule.id + " " + rule.clause + " ".join(rule.basis) for rule in REGISTRY.rules.values())

    assert not any(case in text for case in ROWS)


def test_sample_passes_on_the_command_line() -> None:
    result = cli("policy", "cases", CASES)

    assert (result.code, result.out.strip()) == (0, "32 of 32 cases met")


def test_missed_case_is_printed_with_its_rule_chain_and_ends_with_7(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(
        HEADER
        + "A1,openai/gpt-5.4,openai-api,teacher,train-general,,,allow,\n"
        + "A2,qwen/qwen3-8b,self-hosted,teacher,train-general,,,allow,NOTICE:x\n"
        + "A3,qwen/qwen3-8b,self-hosted,teacher,train-general,,,allow,\n"
    )

    result = cli("policy", "cases", path)

    assert result.code == 7
    assert "A1: expected allow, found deny" in result.out
    assert "deny by openai.services.3.3e" in result.out
    assert "A2: expected allow, found allow; not owed: NOTICE" in result.out
    assert "A3" not in result.out
    assert "2 of 3 cases missed" in result.err


def test_cases_as_json_hold_every_row(tmp_path: Path) -> None:
    result = cli("policy", "cases", CASES, "--json")

    assert [case["id"] for case in result.json["cases"]] == list(ROWS)
    assert result.json["met"] == result.json["of"] == 32


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("B1,a + b,x + y + z,teacher,train-general,,,deny,", "not equally many"),
        ("B2,a,x,oracle,train-general,,,deny,", "unknown role 'oracle'"),
        ("B3,a,x,teacher,train-wrong,,,deny,", "unknown use 'train-wrong'"),
        ("B4,a,x,teacher,train-general,mau>many,,deny,", "no number"),
        ("B5,a,x,teacher,train-general,maas=perhaps,,deny,", "maas"),
        ("B6,a,x,teacher,train-general,today=someday,,deny,", "someday"),
        ("B7,a,x,teacher,train-general,,MIT:copied,deny,", "unknown seed relation copied"),
    ],
)
def test_row_that_cannot_be_read_is_a_miss_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    result = one(tmp_path, line)

    assert not result.met
    assert result.problem is not None
    assert "cases.csv:2: " in result.problem
    assert problem in result.problem


def test_context_that_is_not_understood_is_told(tmp_path: Path) -> None:
    result = one(tmp_path, "D1,qwen/qwen3-8b,self-hosted,teacher,train-general,moon=full;tuesday,,allow,")

    assert result.notes == ("context 'moon=full' was not understood", "context 'tuesday' was not understood")


def test_table_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("id,teachers\n1,a\n")

    with pytest.raises(UsageError, match=r"cases\.csv:1: no column routes, uses, expected_decision"):
        run_cases(REGISTRY, path)


@pytest.mark.parametrize(
    ("context", "found"),
    [
        ("", "deny"),
        ("waiver=C-1;expires=2027-06-30", "allow_with_obligations"),
        ("waiver=C-1;expires=2026-11-20", "deny"),
        ("waiver=*;expires=2027-06-30", "deny"),
        ("waiver=C-1;use=publish-dataset", "deny"),
        ("waiver=C-1;subject=openai/gpt-5.4", "deny"),
        ("waiver=C-1;subject=anthropic/claude-sonnet-4.6", "allow_with_obligations"),
        ("attestation=A-1", "deny"),
    ],
)
def test_override_lifts_only_within_its_kind_time_and_scope(tmp_path: Path, context: str, found: str) -> None:
    line = f"E1,anthropic/claude-sonnet-4.6,anthropic-api,teacher,train-general,{context},,allow,"

    assert one(tmp_path, line).found == found


@pytest.mark.parametrize(
    ("seeds", "found"),
    [
        ("CC-BY-SA-4.0:adapted + CC-BY-NC-4.0:adapted", "deny"),
        ("CC-BY-SA-4.0:adapted;CC-BY-NC-4.0:adapted", "allow_with_obligations"),
        ("CC-BY-SA-4.0:adapted + CC-BY-NC-4.0:inspired", "allow_with_obligations"),
        ("GPL-3.0:verbatim", "allow_with_obligations"),
        ("cc0", "allow"),
        ("imported-synthetic:verbatim", "review"),
        ("Secret-1.0:none", "deny"),
    ],
)
def test_merged_texts_differ_from_separate_rows(tmp_path: Path, seeds: str, found: str) -> None:
    line = f"F1,qwen/qwen3-8b,self-hosted,teacher,publish-dataset,,{seeds},allow,"

    assert one(tmp_path, line).found == found


def test_a_note_with_a_number_is_a_version(tmp_path: Path) -> None:
    old = one(tmp_path, "G1,deepseek/deepseek-v3 (2024-12),self-hosted,teacher,train-general,,,allow,")
    new = one(tmp_path, "G2,deepseek/deepseek-v3 (0324),self-hosted,teacher,train-general,,,allow,")

    assert ("FLOWDOWN:deepseek-attachment-A" in old.owed, new.owed) == (True, ())


def test_dropped_part_leaves_the_rest(tmp_path: Path) -> None:
    line = (
        "qwen/qwen3-8b + openai/gpt-5.4,self-hosted + openai-api,teacher + teacher,train-general,{},,allow,"
    )

    assert one(tmp_path, "J1," + line.format("")).found == "deny"
    assert one(tmp_path, "J2," + line.format("on-deny=drop")).found == "allow"


def test_weights_behind_a_name_can_be_declared(tmp_path: Path) -> None:
    assert one(tmp_path, "K1,our-model,self-hosted,teacher,train-general,hf=Qwen/Qwen3-8B,,allow,").met


def test_table_is_judged_on_the_day_it_was_written_for(tmp_path: Path) -> None:
    later = one(
        tmp_path, "H1,deepseek/deepseek-v4,deepseek-api,teacher,train-general,today=2028-01-01,,review,"
    )

    assert later.met
    assert replace(later, expected="deny").met is False
