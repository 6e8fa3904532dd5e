"""Gate 2 at work: who really answered, what the words repeat, and what becomes of rows that exist."""

import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import synthgen
from synthgen.api import FilterOptions, Report
from tests.loopback import Act, Body, Loopback, answer_text, refuse
from tests.runs import Recipe, cli, recipe, records, save, save_rows, teacher

ND_TEXT = (
    "The old lighthouse at the northern cape was built from grey granite in the year of the great storm, and its keeper "
    "wrote down every ship that passed on the way to the whaling grounds."
)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def reply_of(body: Body, **more: object) -> Act:
    """An answer as a router gives it."""
    message = {"role": "assistant", "content": answer_text(body, 30)}
    payload = {
        "id": "r",
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 30},
        **more,
    }
    return refuse(200, payload)  # type: ignore[arg-type]  # JSON


def routed(server: Loopback, **changes: object) -> Recipe:
    """Open weights behind a router."""
    router = teacher(
        server, provider="openai", route="openrouter", hf=None, model="deepseek/deepseek-r1", **changes
    )
    return recipe(server, rows=4, teachers={"qwen": router})


def via(*hosts: str) -> Callable[[int, Body], Act]:
    """A router that hands requests to these hosts in turn."""
    return lambda number, body: reply_of(body, provider=hosts[(number - 1) % len(hosts)])


def policy_of(folder: Path) -> Any:
    return json.loads((folder / "POLICY.json").read_text())


def adds_up(report: Report) -> bool:
    counts = dict(report.counts)
    return counts.pop("planned") == sum(counts.values())


def test_router_is_pinned_to_the_hosts_whose_own_terms_allow_the_use(tmp_path: Path) -> None:
    with Loopback(script=via("DeepSeek")) as server:
        synthgen.generate(routed(server), tmp_path / "run")

    assert {json.dumps(seen.body["provider"], sort_keys=True) for seen in server.requests} == {
        '{"allow_fallbacks": false, "enforce_distillable_text": true, "only": ["deepseek", "together"]}'
    }


def test_router_is_pinned_to_the_hosts_of_the_recipe(tmp_path: Path) -> None:
    with Loopback(script=via("Together")) as server:
        synthgen.generate(routed(server, upstream=["together"]), tmp_path / "run")

    assert {str(seen.body["provider"]["only"]) for seen in server.requests} == {"['together']"}  # type: ignore[call-overload,index]  # JSON


def test_host_that_the_gate_refuses_stops_the_run_before_it_sends(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", routed(server, upstream=["fireworks"]))

    result = cli("generate", path, "-o", tmp_path / "run")

    assert (result.code, server.requests) == (4, [])
    assert "review by fireworks.2.2c" in result.err


def test_router_without_a_vetted_host_stops_the_run_before_it_sends(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", routed(server))
    tighten(tmp_path, "together", "deepseek-api")

    result = cli("generate", path, "-o", tmp_path / "run")

    assert (result.code, server.requests) == (4, [])
    assert "no host behind the router is vetted" in result.err


def tighten(base: Path, *routes: str) -> None:
    """A rule file of the user's that denies these routes."""
    folder = base / "policy.rules"
    folder.mkdir(exist_ok=True)
    (folder / "house.toml").write_text(
        f"""
[[rule]]
id = "house.no-hosts"
layer = "route"
match = {{ route = {json.dumps(routes)} }}
decision = {{ default = "deny" }}
clause = "Our company does not use these hosts"
source = {{ doc = "House rules", section = "1", effective = 2026-01-01, url = "https://example.com/rules" }}
as_of = 2026-11-21
evidence = "V"
review_by = 2027-11-21
"""
    )


def test_row_of_a_host_that_was_not_vetted_goes_to_quarantine(tmp_path: Path) -> None:
    with Loopback(script=via("DeepSeek", "DeepCheap", "Fireworks", "Together")) as server:
        report = synthgen.generate(routed(server), tmp_path / "run")

    aside = records(tmp_path / "run", "quarantine")
    assert (report.counts["accepted"], report.counts["quarantined"], adds_up(report)) == (2, 2, True)
    assert {row["reason"] for row in aside} == {"served_host"}
    assert any("default.unknown-route on DeepCheap" in row["detail"] for row in aside)


def test_host_that_served_a_row_brings_its_duties_into_the_dataset(tmp_path: Path) -> None:
    with Loopback(script=via("Together")) as server:
        synthgen.generate(routed(server), tmp_path / "run")

    policy = policy_of(tmp_path / "run")
    assert "NOT-COMPETE:Together AI" in policy["obligations"]
    assert ["Together"] in [part["upstream"] for part in policy["parts"]]


def test_served_model_mismatch_goes_to_quarantine_and_the_accounting_adds_up(tmp_path: Path) -> None:
    other = [None, "qwen/qwen3-4b"]
    with Loopback(script=lambda n, body: reply_of(body, model=other[n % 2] or body["model"])) as server:
        report = synthgen.generate(recipe(server, rows=4), tmp_path / "run")

    assert (report.counts["accepted"], report.counts["quarantined"], adds_up(report)) == (2, 2, True)
    assert {row["reason"] for row in records(tmp_path / "run", "quarantine")} == {"served_identity"}


def inspired(server: Loopback, base: Path, use: list[str]) -> Recipe:
    save_rows(base / "seeds.jsonl", [{"instruction": ND_TEXT}])
    source = {"jsonl": "seeds.jsonl", "license": "CC-BY-ND-4.0", "relation": "inspired"}
    record = {"user": "Tell me about a lighthouse.", "assistant": "{{ response }}"}
    return recipe(server, source=source, use=use, output={"record": record})


def test_answer_that_repeats_its_source_was_not_only_inspired_by_it(tmp_path: Path) -> None:
    with Loopback(reply=lambda _body: "As they say: " + ND_TEXT.upper()) as server:
        path = save(tmp_path / "r.yaml", inspired(server, tmp_path, ["publish-dataset"]))
        report = synthgen.generate(path, tmp_path / "run")

    (row,) = records(tmp_path / "run", "quarantine")
    assert (report.counts["accepted"], adds_up(report)) == (0, True)
    assert (row["reason"], row["seed_relation"]) == ("seed_overlap", "adapted")
    assert "seed.CC-BY-ND-4.0.adapted" in row["detail"]


def test_answer_in_words_of_its_own_stays_inspired(tmp_path: Path) -> None:
    with Loopback() as server:
        path = save(tmp_path / "r.yaml", inspired(server, tmp_path, ["publish-dataset"]))
        synthgen.generate(path, tmp_path / "run")

    assert [row["seed_relation"] for row in records(tmp_path / "run")] == ["inspired"]


def test_repeated_source_is_kept_as_adapted_where_that_is_permitted_too(tmp_path: Path) -> None:
    with Loopback(reply=lambda _body: ND_TEXT) as server:
        path = save(tmp_path / "r.yaml", inspired(server, tmp_path, ["train-general"]))
        synthgen.generate(path, tmp_path / "run")

    assert [row["seed_relation"] for row in records(tmp_path / "run")] == ["adapted"]
    assert "adapted" in {part["seed_relation"] for part in policy_of(tmp_path / "run")["parts"]}


MIXED = {"free": ("qwen3", "Qwen/Qwen3-8B"), "limited": ("qwen25", "Qwen/Qwen2.5-3B-Instruct")}
COMMERCIAL = ("--use", "train-general", "--use", "commercial")


@pytest.fixture
def mixed(server: Loopback, tmp_path: Path) -> Path:
    """A run whose rows come from free and from non-commercial weights."""
    teachers = {alias: teacher(server, model=model, hf=hf) for alias, (model, hf) in MIXED.items()}
    steps = [{"name": "answer", "prompt": "answer", "teacher": {"free": 1, "limited": 1}}]
    synthgen.generate(recipe(server, rows=12, teachers=teachers, steps=steps), tmp_path / "run")
    by = {row["teacher"] for row in records(tmp_path / "run")}
    assert by == set(MIXED)
    return tmp_path / "run"


def test_run_is_decided_on_again_for_wider_uses(mixed: Path) -> None:
    same, wider = cli("policy", "check", mixed), cli("policy", "check", mixed, *COMMERCIAL)

    assert (same.code, wider.code) == (0, 4)
    assert "qwen-research.nc" in wider.out
    assert "policy: deny for use commercial, train-general" in wider.err


def test_check_says_what_dropping_would_leave(mixed: Path) -> None:
    free = sum(row["teacher"] == "free" for row in records(mixed))

    found = cli("policy", "check", mixed, *COMMERCIAL, "--on-deny", "drop", "--json")

    assert found.code == 0
    assert found.json["rows"] == {"of": 12, "kept": free, "on_deny": "drop"}
    assert {(group["decision"], group["config"]) for group in found.json["groups"]} == {
        ("allow", 0),
        ("deny", None),
    }


def test_filter_fails_on_a_refused_row_by_default(mixed: Path, tmp_path: Path) -> None:
    result = cli("filter", mixed, "-o", tmp_path / "cut", *COMMERCIAL)

    assert (result.code, (tmp_path / "cut").exists()) == (4, False)


def test_filter_drops_refused_rows_and_counts_them(mixed: Path, tmp_path: Path) -> None:
    free = [row["id"] for row in records(mixed) if row["teacher"] == "free"]

    result = cli("filter", mixed, "-o", tmp_path / "cut", *COMMERCIAL, "--on-deny", "drop", "--json")

    counts = result.json["counts"]
    assert (result.code, [row["id"] for row in records(tmp_path / "cut")]) == (0, free)
    assert (counts["accepted"], counts["quarantined"], counts["planned"]) == (len(free), 12 - len(free), 12)
    assert result.json["reasons"] == {"policy/deny": 12 - len(free)}
    policy = policy_of(tmp_path / "cut")
    assert (policy["decision"], [part["hf"] for part in policy["parts"]]) == ("allow", ["Qwen/Qwen3-8B"])
    assert not (tmp_path / "cut" / "rejected").exists()


def test_report_only_refuses_nothing_and_stamps_everything(mixed: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"

    result = cli("filter", mixed, "-o", cut, *COMMERCIAL, "--report-only")

    (shard,) = (cut / "data").glob("*.parquet")
    assert (result.code, len(records(cut))) == (0, 12)
    assert (policy_of(cut)["decision"], policy_of(cut)["enforced"]) == ("deny", False)
    assert json.loads((cut / "manifest.json").read_text())["policy_enforced"] is False
    assert pl.read_parquet_metadata(shard)["synthgen.policy_enforced"] == "false"
    assert "policy_enforced=false" in (cut / "README.md").read_text()


def test_report_only_check_ends_with_0_and_says_so(mixed: Path) -> None:
    result = cli("policy", "check", mixed, *COMMERCIAL, "--report-only", "--json")

    assert (result.code, result.json["decision"], result.json["enforced"]) == (0, "deny", False)


def test_generate_has_no_switch_that_turns_the_policy_off() -> None:
    result = cli("generate", "--help")

    assert "report-only" not in result.out
    assert "policy" not in result.out.lower()


NAME_RULE = """
[[rule]]
id = "house.name"
layer = "licence"
match = { licence = ["Apache-2.0"] }
applies = ["publish-weights"]
decision = { default = "allow" }
clause = "Students of these weights begin with Qwen in our company"
obligations = [{ id = "NAME-PREFIX", arg = "Qwen" }]
source = { doc = "House rules", section = "2", effective = 2026-01-01, url = "https://example.com/rules" }
as_of = 2026-11-21
evidence = "V"
review_by = 2027-11-21
"""


@pytest.fixture
def clashing(server: Loopback, tmp_path: Path) -> Path:
    """A run whose two teachers want different names of the student."""
    (tmp_path / "policy.rules").mkdir()
    (tmp_path / "policy.rules" / "house.toml").write_text(NAME_RULE)
    teachers = {
        "qwen": teacher(server),
        "llama": teacher(server, model="llama", hf="meta-llama/Llama-3.3-70B-Instruct"),
    }
    steps = [{"name": "answer", "prompt": "answer", "teacher": {"qwen": 1, "llama": 1}}]
    content = recipe(server, rows=12, teachers=teachers, steps=steps, actor={"mau": 1000, "territory": "US"})
    path = save(tmp_path / "r.yaml", content)
    synthgen.generate(path, tmp_path / "run")
    return tmp_path / "run"


def test_split_writes_a_config_for_each_group_that_goes_together(clashing: Path, tmp_path: Path) -> None:
    cut, uses = tmp_path / "cut", ("--use", "publish-weights")
    plain = cli("filter", clashing, "-o", cut, *uses)

    result = cli("filter", clashing, "-o", cut, *uses, "--on-deny", "split", "--json")

    configs = [records(cut / f"config-{number}") for number in (0, 1)]
    assert (plain.code, result.code) == (4, 0)
    assert [{row["teacher"] for row in rows} for rows in configs] in (
        [{"qwen"}, {"llama"}],
        [{"llama"}, {"qwen"}],
    )
    assert sum(map(len, configs)) == result.json["counts"]["accepted"] == 12
    assert "config_name: config-1" in (cut / "README.md").read_text()
    assert not (cut / "config-0" / "quarantine").exists()


def test_drop_keeps_one_of_the_groups_that_clash(clashing: Path, tmp_path: Path) -> None:
    report = synthgen.filter(
        clashing,
        tmp_path / "cut",
        options=FilterOptions(use=("publish-weights",), on_deny="drop"),
    )

    assert len({row["teacher"] for row in records(tmp_path / "cut")}) == 1
    assert report.reasons["policy/conflict"] == report.counts["quarantined"]
    assert adds_up(report)


def test_check_of_a_run_uses_the_rules_that_were_copied_with_it(clashing: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.rules" / "house.toml").unlink()

    result = cli("policy", "check", clashing, "--use", "publish-weights")

    assert result.code == 4
    assert "conflict.name-prefix" in result.out


def foreign(path: Path) -> Path:
    rows = [
        {
            "prompt": f"Say something on subject {n}.",
            "completion": f"Answer {n}.",
            "by": f"{name}@self-hosted",
        }
        for n, name in enumerate(["Qwen/Qwen3-8B", "Qwen/Qwen2.5-3B-Instruct"] * 3)
    ]
    save_rows(path, rows)
    return path


@pytest.mark.parametrize(("on_deny", "code", "kept"), [("fail", 4, 0), ("drop", 0, 3)])
def test_foreign_rows_of_a_refused_origin(tmp_path: Path, on_deny: str, code: int, kept: int) -> None:
    source = foreign(tmp_path / "theirs.jsonl")
    uses = (*COMMERCIAL, "--origin-column", "by", "--chain", "none", "--no-near")

    result = cli("filter", source, "-o", tmp_path / "cut", *uses, "--on-deny", on_deny)

    assert result.code == code
    assert len(records(tmp_path / "cut")) == kept
    assert len(records(tmp_path / "cut", "quarantine")) == kept


def test_foreign_data_can_be_decided_on_with_facts_about_its_user(tmp_path: Path) -> None:
    source = foreign(tmp_path / "theirs.jsonl")
    given = ("--origin", "meta-llama/Llama-3.3-70B-Instruct@self-hosted", "--use", "train-general")

    unknown = cli("filter", source, "-o", tmp_path / "a", *given, "--chain", "none")
    declared = cli("filter", source, "-o", tmp_path / "b", *given, "--actor", "mau=9", "--chain", "none")

    assert (unknown.code, declared.code) == (4, 0)


def test_review_of_foreign_data_is_lifted_by_the_lock_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = foreign(tmp_path / "theirs.jsonl")
    given = (
        "--origin",
        "Qwen/Qwen3-8B@self-hosted",
        "--row-license",
        "imported-synthetic",
        "--chain",
        "none",
    )
    today = date.today()  # noqa: DTZ011  # as the user's calendar says
    monkeypatch.chdir(tmp_path)
    refused = cli("filter", source, "-o", tmp_path / "a", *given, "--use", "train-general")
    (tmp_path / "policy.lock.toml").write_text(
        f"""
[[attestation]]
rules = ["seed.imported-synthetic"]
use = "train-general"
justification = "The vendor of this data has confirmed in writing that we may train on it."
who = "A. Tester"
date = {today - timedelta(days=1)}
expires = {today + timedelta(days=9)}
"""
    )

    allowed = cli("filter", source, "-o", tmp_path / "b", *given, "--use", "train-general")

    assert (refused.code, allowed.code) == (4, 0)
    assert "ATTESTATION:seed.imported-synthetic" in policy_of(tmp_path / "b")["obligations"]


def test_filtered_dataset_can_be_checked_again(tmp_path: Path) -> None:
    source = foreign(tmp_path / "theirs.jsonl")
    given = ("--origin-column", "by", "--use", "train-general", "--chain", "none", "--no-near")
    cli("filter", source, "-o", tmp_path / "cut", *given)

    found = cli("policy", "check", tmp_path / "cut", *COMMERCIAL, "--on-deny", "drop", "--json")

    assert found.json["rows"] == {"of": 6, "kept": 3, "on_deny": "drop"}


def test_attested_run_is_refined_for_another_use_with_its_lock_in_place(
    server: Loopback, tmp_path: Path
) -> None:
    asked = teacher(server, provider="anthropic", route="anthropic-api", hf=None, model="claude-sonnet-4-5")
    use = "train-task-internal:classifier"
    path = save(tmp_path / "r.yaml", recipe(server, rows=1, teachers={"qwen": asked}, use=[use]))
    because = "The rows train a small classifier that never leaves this test suite."
    soon = (date.today() + timedelta(days=9)).isoformat()  # noqa: DTZ011  # as the user's calendar says
    cli("policy", "attest", path, "--use", use, "--because", because, "--who", "A", "--expires", soon)
    cli("generate", path, "-o", tmp_path / "run")

    result = cli("filter", tmp_path / "run", "-o", tmp_path / "cut", "--use", "evaluate-only")

    assert (result.code, result.err) == (0, "")


def test_folder_without_a_dataset_cannot_be_checked(tmp_path: Path) -> None:
    result = cli("policy", "check", tmp_path)

    assert result.code == 2
    assert "no published dataset" in result.err
