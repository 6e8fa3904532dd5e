"""Policy at work: what is denied sends nothing, what is decided is told with rule, source and date."""

import socket
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

import synthgen
from synthgen.api import Options
from synthgen.policy import load_registry
from synthgen.policy.evaluate import WARN_AFTER
from tests.loopback import Loopback, refuse
from tests.runs import cli, recipe, records, save, teacher

# (route, hf, model) of every route, and of every licence on a server of one's own, that the registry names.
OWN = "self-hosted"
COMBINATIONS = [
    ("openai-api", None, "gpt-4o-mini"),
    ("anthropic-api", None, "claude-sonnet-4-5"),
    ("gemini-api", None, "gemini-2.5-flash"),
    ("deepseek-api", None, "deepseek-chat"),
    ("mistral-api", None, "mistral-large-2411"),
    ("openrouter", "Qwen/Qwen3-8B", "qwen/qwen3-8b"),
    (OWN, "Qwen/Qwen3-8B", "qwen3"),
    (OWN, "microsoft/phi-4", "phi-4"),
    (OWN, "meta-llama/Llama-2-7b-chat-hf", "llama-2"),
    (OWN, "meta-llama/Meta-Llama-3-8B-Instruct", "llama-3"),
    (OWN, "meta-llama/Llama-3.1-8B-Instruct", "llama-3.1"),
    (OWN, "meta-llama/Llama-3.2-3B-Instruct", "llama-3.2"),
    (OWN, "meta-llama/Llama-3.3-70B-Instruct", "llama-3.3"),
    (OWN, "meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4"),
    (OWN, "google/gemma-3-12b-it", "gemma-3"),
    (OWN, "google/gemma-4-31b-it", "gemma-4"),
    (OWN, "Qwen/Qwen2.5-72B-Instruct", "qwen2.5"),
    (OWN, "deepseek-ai/DeepSeek-R1", "deepseek-r1"),
]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.mark.parametrize(("route", "hf", "model"), COMBINATIONS)
def test_plan_tells_rule_source_and_date_of_every_route_and_licence(
    server: Loopback, tmp_path: Path, route: str, hf: str | None, model: str
) -> None:
    teachers = {"it": teacher(server, provider="openai", route=route, hf=hf, model=model)}
    steps = [{"name": "answer", "prompt": "answer", "teacher": "it"}]
    path = save(tmp_path / "r.yaml", recipe(server, teachers=teachers, steps=steps))

    result = cli("plan", path, "--json")

    policy = result.json["policy"]
    (part,) = policy["parts"]
    assert result.code == (4 if policy["decision"] in ("review", "deny") else 0)
    assert part["rules"]
    for rule in part["rules"]:
        assert rule["rule"]
        assert rule["source"]["doc"]
        assert rule["source"]["effective"]
        assert date.fromisoformat(rule["as_of"])
    assert not any(rule["rule"].startswith("default.") for rule in part["rules"]), (
        "the registry knows this one"
    )


@pytest.mark.parametrize(
    ("route", "hf", "model"),
    [(OWN, "acme/secret-model-7b", "acme"), ("acme-cloud", "Qwen/Qwen3-8B", "qwen3"), (OWN, None, "gpt-4o")],
)
def test_what_is_not_listed_is_denied(
    server: Loopback, tmp_path: Path, route: str, hf: str | None, model: str
) -> None:
    teachers = {"qwen": teacher(server, route=route, hf=hf, model=model)}

    result = cli("plan", save(tmp_path / "r.yaml", recipe(server, teachers=teachers)), "--json")

    assert (result.code, result.json["policy"]["decision"]) == (4, "deny")


def test_a_denied_recipe_opens_no_socket_and_names_rule_source_and_date(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: opened.append(address))
    monkeypatch.setattr(socket.socket, "connect_ex", lambda _self, address: opened.append(address))
    path = save(tmp_path / "r.yaml", denied(server))

    result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 4
    assert opened == server.requests == []
    assert not (tmp_path / "run").exists()
    assert "deny by default.model-not-on-route" in result.err
    assert "as of 2026-" in result.err
    assert "Traceback" not in result.err


def test_a_recipe_under_review_opens_no_socket_and_says_what_lifts_it(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: opened.append(address))
    monkeypatch.setattr(socket.socket, "connect_ex", lambda _self, address: opened.append(address))
    claude = teacher(server, provider="anthropic", route="anthropic-api", hf=None, model="claude-sonnet-4-5")
    reviewed = recipe(server, teachers={"qwen": claude}, use=["train-task-internal:classifier"])

    result = cli("generate", save(tmp_path / "r.yaml", reviewed), "-o", tmp_path / "run")

    assert result.code == 4
    assert opened == server.requests == []
    assert not (tmp_path / "run").exists()
    assert "review by anthropic." in result.err
    assert "policy.lock.toml" in result.err


def denied(server: Loopback) -> dict[str, object]:
    """A closed model behind somebody's proxy."""
    return recipe(server, teachers={"qwen": teacher(server, hf=None, model="gpt-4o")})


def test_one_refused_teacher_of_two_stops_the_whole_run(server: Loopback, tmp_path: Path) -> None:
    teachers = {"qwen": teacher(server), "closed": teacher(server, hf=None, model="gpt-4o")}
    steps = [{"name": "answer", "prompt": "answer", "teacher": {"qwen": 99, "closed": 1}}]
    path = save(tmp_path / "r.yaml", recipe(server, teachers=teachers, steps=steps))

    assert cli("generate", path, "-o", tmp_path / "run").code == 4
    assert server.requests == []


def test_an_attestation_beside_the_recipe_lifts_review_and_travels_with_the_run(
    server: Loopback, tmp_path: Path
) -> None:
    teachers = {
        "qwen": teacher(
            server, provider="anthropic", route="anthropic-api", hf=None, model="claude-sonnet-4-5"
        )
    }
    use = "train-task-internal:classifier"
    path = save(tmp_path / "r.yaml", recipe(server, teachers=teachers, use=[use]))
    refused = cli("plan", path, "--json").json["policy"]
    reviewed = [r["rule"] for part in refused["parts"] for r in part["rules"] if r["decision"] == "review"]
    (tmp_path / "policy.lock.toml").write_text(attestation(reviewed, use))

    result = cli("generate", path, "-o", tmp_path / "run")
    again = cli("filter", tmp_path / "run", "-o", tmp_path / "cut")

    assert refused["decision"] == "review"
    assert (result.code, len(server.requests)) == (0, 5)
    assert (again.code, len(records(tmp_path / "cut"))) == (0, 5)


def attestation(rules: list[str], use: str, *, expires: str = "") -> str:
    today = date.today()  # noqa: DTZ011  # entries are dated by the user's calendar
    return f"""
[[attestation]]
rules = {rules}
use = "{use}"
justification = "The rows train a small classifier that never leaves this test suite."
who = "A. Tester"
date = {today - timedelta(days=1)}
expires = {expires or today + timedelta(days=30)}
"""


def test_an_expired_attestation_is_an_error_with_its_line(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server))
    old = attestation(["anthropic.aup.training"], "train-general", expires="2024-05-01")
    (tmp_path / "policy.lock.toml").write_text(old)

    result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 2
    assert "policy.lock.toml:2: attestation[0]: expired on 2024-05-01" in result.err


def test_a_missing_served_name_is_accepted_and_flagged(tmp_path: Path) -> None:
    payload = {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Blue."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    with Loopback(script=lambda _number, _body: refuse(200, payload)) as server:  # type: ignore[arg-type]  # JSON
        synthgen.generate(recipe(server, rows=1), tmp_path / "run")

    (record,) = records(tmp_path / "run")
    assert record["flags"] == ["served_model_missing"]
    assert record["served_model"] is None


def test_a_named_model_is_not_flagged(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(recipe(server, rows=1), tmp_path / "run")

    assert records(tmp_path / "run")[0]["flags"] == []


def test_rules_that_have_grown_old_are_a_warning_of_the_run(server: Loopback, tmp_path: Path) -> None:
    later = Options(today=load_registry().released + WARN_AFTER + timedelta(days=1))

    report = synthgen.generate(recipe(server, rows=1), tmp_path / "run", options=later)

    assert report.exit_code == 0
    assert any("days old; upgrade synthgen" in warning for warning in report.warnings)


def test_the_policy_of_a_run_is_published_with_it(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(recipe(server, rows=1), tmp_path / "run")

    run = tmp_path / "run"
    assert '"decision": "allow' in (run / "POLICY.json").read_text()
    assert (run / "LICENSES" / "Apache-2.0.txt").is_file()
    assert "Qwen" in (run / "NOTICE").read_text()
