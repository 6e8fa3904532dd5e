"""`synthgen policy` as people type it: explain, list, diff, attest, check on recipes."""

import json
import shlex
import tomllib
from collections.abc import Iterator
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import synthgen
from synthgen.policy import Ask, Part, evaluate, load_registry
from synthgen.policy import registry as registry_module
from synthgen.policy.model import rank
from tests.loopback import Loopback
from tests.runs import Recipe, cli, recipe, save, teacher

PACKAGED = Path(registry_module.__file__).parent / "data"
CLASSIFIER = "train-task-internal:classifier"
SOON = (date.today() + timedelta(days=90)).isoformat()  # noqa: DTZ011  # entries are dated by the user's calendar
WHY = "The rows train a small classifier that never leaves this test suite."


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def claude(server: Loopback, use: str = CLASSIFIER) -> Recipe:
    """A recipe that wants a review."""
    asked = teacher(server, provider="anthropic", route="anthropic-api", hf=None, model="claude-sonnet-4-5")
    return recipe(server, rows=2, teachers={"qwen": asked}, use=[use])


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("openai/gpt-5.4", "--route", "openai-api"), 4, "deny by openai.services.3.3e for train-general"),
        (("openai/gpt-5.4", "--route", "azure-openai"), 4, "policy: review"),
        (("Qwen/Qwen3-8B", "--route", "self-hosted"), 0, "policy: allow"),
        (
            ("x/y", "--route", "self-hosted", "--hf", "google/gemma-3-4b-it"),
            0,
            "owes FLOWDOWN:gemma-prohibited-use",
        ),
        (("openai/gpt-5.4", "--route", "openai-api", "--role", "judge-filter"), 4, "owes STRIP-JUDGE-COLUMNS"),
        (("Qwen/Qwen3-8B", "--route", "self-hosted", "--seed", "CC-BY-SA-4.0:adapted", "--use", "publish-dataset"), 0, "owes SHARE-ALIKE:CC-BY-SA-4.0"),
        (("meta-llama/Llama-3.3-70B-Instruct", "--route", "self-hosted"), 4, "question: actor.mau is not declared"),
        (("meta-llama/Llama-3.3-70B-Instruct", "--route", "self-hosted", "--actor", "mau=5"), 0, "owes AUP:llama3.3"),
        (("deepseek/deepseek-v4", "--route", "deepseek-api", "--today", "2027-03-01"), 0, "warning: deepseek.platform.4.2.3: the terms were last seen 191 days ago"),
        (("deepseek/deepseek-v4", "--route", "deepseek-api", "--today", "2028-01-01"), 4, "policy: review"),
    ],
)  # fmt: skip
def test_explain_decides_and_tells_why(arguments: tuple[str, ...], code: int, told: str) -> None:
    result = cli("policy", "explain", *arguments)

    assert result.code == code
    assert told in result.out
    assert "as of 202" in result.out


def test_explain_tells_review_and_deny_apart_in_json() -> None:
    review = cli("policy", "explain", "openai/gpt-5.4", "--route", "azure-openai", "--json")
    deny = cli("policy", "explain", "openai/gpt-5.4", "--route", "openai-api", "--json")

    assert (review.code, review.json["decision"]) == (4, "review")
    assert (deny.code, deny.json["decision"]) == (4, "deny")
    assert all(rule["source"]["doc"] and rule["evidence"] for rule in deny.json["parts"][0]["rules"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--use", "train-generl"), "did you mean 'train-general'"),
        (("--role", "oracle"), "--role: unknown 'oracle'"),
        (("--seed", "MIT:copied"), "--seed: unknown 'copied'"),
        (("--actor", "mau"), "write it as name=value"),
        (("--actor", "mood=good"), "--actor mood: Extra inputs"),
        (("--today", "tomorrow"), "'tomorrow' is no day"),
        (("--rules", "nowhere"), "nowhere: is no folder"),
    ],
)
def test_explain_refuses_what_it_does_not_know(arguments: tuple[str, ...], message: str) -> None:
    result = cli("policy", "explain", "Qwen/Qwen3-8B", "--route", "self-hosted", *arguments)

    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize(
    ("what", "key", "count"),
    [("rules", "rule", "rules"), ("routes", "route", "routes"), ("licences", "licence", "licences"), ("models", "model", "families")],
)  # fmt: skip
def test_list_names_everything_the_registry_holds(what: str, key: str, count: str) -> None:
    found = cli("policy", "list", what, "--json").json

    assert {row[key] for row in found[what]} == set(getattr(load_registry(), count))


def test_list_counts_rules_nobody_has_reviewed() -> None:
    counts = cli("policy", "list", "--json").json["counts"]

    assert counts["unreviewed"] == counts["rules"] > 300
    assert sum(counts[f"evidence {grade}"] for grade in "VQSM") == counts["rules"]


def test_list_stale_names_what_should_be_read_again() -> None:
    fresh = cli("policy", "list", "--stale", "--today", "2026-11-21", "--json").json
    later = cli("policy", "list", "--stale", "--today", "2027-03-01", "--json").json

    assert {row["rule"] for row in fresh["rules"]} == {
        "google.gemini-api.use-restrictions",
        "google.gemini-api.unpaid-data",
        "cohere.saas.unverified",
    }
    assert "openai.services.3.3e" in {row["rule"] for row in later["rules"]}
    assert any("OVERDUE" in row["review_by"] for row in later["rules"])


def test_list_of_an_unknown_thing_gets_the_nearest() -> None:
    result = cli("policy", "list", "route")

    assert result.code == 2
    assert "did you mean 'routes'" in result.err


def older(tmp_path: Path) -> Path:
    """A registry in which one clause was milder and one rule was missing."""
    import shutil

    folder = tmp_path / "old"
    shutil.copytree(PACKAGED, folder)
    path = folder / "routes" / "xai.toml"
    text = path.read_text().replace('decision = { "train-*" = "deny"', 'decision = { "train-*" = "review"')
    path.write_text(text)
    return folder


def test_diff_of_registries_names_each_changed_rule(tmp_path: Path) -> None:
    result = cli("policy", "diff", older(tmp_path), "shipped")

    assert result.code == 0
    assert "rule decision: xai.enterprise.output: train-* review" in result.out
    assert "2 changes" in result.out


def test_diff_for_a_recipe_names_only_what_it_notices(server: Loopback, tmp_path: Path) -> None:
    grok = teacher(server, provider="openai", route="xai-api", hf=None, model="grok-4")
    ours = save(tmp_path / "a.yaml", recipe(server, teachers={"qwen": grok}))
    free = save(tmp_path / "b.yaml", recipe(server))
    old = older(tmp_path)

    noticed = cli("policy", "diff", old, "shipped", "--recipe", ours, "--json").json["changes"]
    quiet = cli("policy", "diff", old, "shipped", "--recipe", free, "--json").json["changes"]

    assert [(change["kind"], change["before"], change["after"]) for change in noticed] == [
        ("stricter", "review", "deny")
    ]
    assert quiet == []


def test_diff_asks_the_question_of_a_run_again(server: Loopback, tmp_path: Path) -> None:
    deepseek = teacher(server, provider="openai", route="deepseek-api", hf=None, model="deepseek-v4")
    synthgen.generate(recipe(server, rows=1, teachers={"qwen": deepseek}), tmp_path / "run")

    now = cli("policy", "diff", tmp_path / "run", "shipped")
    later = cli("policy", "diff", tmp_path / "run", "shipped", "--today", "2028-01-01")

    assert "0 changes" in now.out
    assert "stricter: deepseek-v4 on deepseek-api (teacher): allow_with_obligations -> review" in later.out


def test_diff_of_what_is_no_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "POLICY.json").write_text("[]")

    assert "is no POLICY.json" in cli("policy", "diff", tmp_path).err
    assert "no POLICY.json, no registry.toml" in cli("policy", "diff", tmp_path / "nowhere").err


def attest(path: Path, *more: str, use: str = CLASSIFIER, because: str = WHY, expires: str = SOON) -> object:
    given = ("--use", use, "--because", because, "--who", 'A. "Tester"', "--expires", expires)
    return cli("policy", "attest", path, *given, *more)


def test_attest_lifts_the_reviews_of_a_recipe(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", claude(server))
    before = cli("policy", "check", path)

    attest(path)
    after = cli("policy", "check", path)

    (entry,) = tomllib.loads((tmp_path / "policy.lock.toml").read_text())["attestation"]
    assert (before.code, after.code) == (4, 0)
    assert entry["rules"] == ["anthropic.aup.training", "anthropic.commercial.D4"]
    assert entry["who"] == 'A. "Tester"'
    assert "owes ATTESTATION:anthropic.aup.training" in after.out


def test_attest_with_a_contract_lifts_deny(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", claude(server, "train-general"))
    (tmp_path / "contract.pdf").write_bytes(b"signed")

    attest(path, "--contract", "C-7", "--document", str(tmp_path / "contract.pdf"), use="train-general")

    (entry,) = tomllib.loads((tmp_path / "policy.lock.toml").read_text())["waiver"]
    assert entry["document_sha256"] == sha256(b"signed").hexdigest()
    assert "owes WAIVER:C-7" in cli("policy", "check", path).out


def test_attest_keeps_what_stood_in_the_file(server: Loopback, tmp_path: Path) -> None:
    path, lock = save(tmp_path / "r.yaml", claude(server)), tmp_path / "policy.lock.toml"
    lock.write_text("# decided in the meeting of today\n")

    attest(path, "--rule", "anthropic.aup.training")
    attest(path)

    assert lock.read_text().startswith("# decided in the meeting of today\n\n[[attestation]]\n")
    assert lock.read_text().count("[[attestation]]") == 2
    assert cli("policy", "check", path).code == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"because": "fine"}, "at least 40"),
        ({"expires": "2099-01-01"}, "within 12 months"),
        ({"use": "publish-dataset"}, "attest: publish-dataset is not stopped"),
    ],
)
def test_wrong_attestation_leaves_no_file(
    server: Loopback, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    path = save(tmp_path / "r.yaml", claude(server))

    result = attest(path, **changes)

    assert result.code == 2  # type: ignore[attr-defined]  # a `Result`
    assert message in result.err  # type: ignore[attr-defined]
    assert [child.name for child in tmp_path.iterdir()] == ["r.yaml"]


def test_deny_takes_a_contract(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", claude(server, "publish-dataset"))

    result = attest(path, use="publish-dataset")

    assert "publish-dataset is denied: that takes a contract" in result.err  # type: ignore[attr-defined]


def test_check_of_a_recipe_sends_nothing_and_writes_nothing(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server))

    result = cli("policy", "check", path, "--use", "train-general", "--use", "publish-weights", "--json")

    assert (result.code, result.json["uses"]) == (0, ["publish-weights", "train-general"])
    assert server.requests == []
    assert [child.name for child in tmp_path.iterdir()] == ["r.yaml"]


def test_review_opens_no_connection(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", claude(server))

    result = cli("generate", path, "-o", tmp_path / "run")

    assert (result.code, server.requests) == (4, [])
    assert "policy: review for use" in result.err


def test_rows_options_are_refused_for_a_recipe(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server))

    assert "a recipe has none yet" in cli("policy", "check", path, "--on-deny", "drop").err
    assert (
        "--on-deny: unknown 'dorp'; did you mean 'drop'"
        in cli("policy", "check", path, "--on-deny", "dorp").err
    )


OWN_MODEL = """
[[model]]
id = "acme"
party = "Acme"
names = ["acme-7b*"]
orgs = ["acme"]
lineage = ["llama3.1"]
clause = "Our own model, tuned from Llama 3.1"
source = { doc = "Model card", section = "base", effective = 2026-05-01, url = "https://example.com/card" }
as_of = 2026-11-21
evidence = "V"
review_by = 2027-11-21
"""
OWN_RULE = """
[[rule]]
id = "acme.azure"
layer = "route"
match = { route = ["azure-openai"] }
decision = { default = "allow" }
clause = "Our lawyers read the terms: nothing bars training"
replaces = ["azure.product-terms.unverified"]
source = { doc = "Product Terms", section = "all", effective = 2026-10-01, url = "https://example.com/terms" }
as_of = 2026-11-21
evidence = "V"
review_by = 2027-05-21
"""


def rules(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "own.toml").write_text(text)
    return folder


def test_own_model_joins_with_the_licences_of_its_lineage(tmp_path: Path) -> None:
    given = ("acme/acme-7b-instruct", "--route", "self-hosted", "--actor", "mau=5")

    unknown = cli("policy", "explain", *given)
    known = cli("policy", "explain", *given, "--rules", rules(tmp_path / "own", OWN_MODEL))

    assert "default.unknown-model" in unknown.out
    assert (unknown.code, known.code) == (4, 0)
    assert "owes AUP:llama3.1" in known.out


def test_own_reading_replaces_a_rule_on_text_nobody_here_has_read(tmp_path: Path) -> None:
    given = ("openai/gpt-5.4", "--route", "azure-openai", "--rules", rules(tmp_path / "own", OWN_RULE))

    assert cli("policy", "explain", *given).code == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("azure.product-terms.unverified", "openai.services.3.3e", "rests on text that was read"),
        ("azure.product-terms.unverified", "azure.nothing", "which is not shipped"),
        ('evidence = "V"', 'evidence = "S"', 'needs evidence = "V"'),
        ('id = "acme.azure"', 'id = "openai.services.3.3e"', "rule 'openai.services.3.3e' is defined twice"),
        ('id = "acme.azure"', 'ident = "acme.azure"', "ident: Extra inputs"),
    ],
)
def test_own_rules_that_reach_too_far_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OWN_RULE
    folder = rules(tmp_path / "own", OWN_RULE.replace(old, new))

    result = cli("policy", "explain", "openai/gpt-5.4", "--route", "azure-openai", "--rules", folder)

    assert result.code == 2
    assert message in result.err


def test_own_rule_beside_a_shipped_one_cannot_loosen_it(tmp_path: Path) -> None:
    text = OWN_RULE.replace('replaces = ["azure.product-terms.unverified"]\n', "").replace(
        "azure-openai", "openai-api"
    )

    result = cli(
        "policy",
        "explain",
        "openai/gpt-5.4",
        "--route",
        "openai-api",
        "--rules",
        rules(tmp_path / "own", text),
    )

    assert result.code == 4
    assert "deny by openai.services.3.3e" in result.out


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    route=st.sampled_from(sorted(load_registry().routes)),
    model=st.sampled_from(["openai/gpt-5.4", "Qwen/Qwen3-8B", "meta-llama/Llama-2-7b", "nobody/unknown-7b"]),
    outcome=st.sampled_from(["allow", "review", "deny"]),
    use=st.sampled_from(["train-general", "evaluate-only", "publish-dataset"]),
)
def test_own_rule_without_replaces_never_lowers_an_outcome(
    tmp_path: Path, route: str, model: str, outcome: str, use: str
) -> None:
    text = OWN_RULE.replace('replaces = ["azure.product-terms.unverified"]\n', "").replace(
        "azure-openai", route
    )
    folder = rules(tmp_path / "own", text.replace('default = "allow"', f'default = "{outcome}"'))
    part, ask = Part("t", "p", route, model), Ask((use,), today=date(2026, 11, 21))

    plain = evaluate(load_registry(), part, ask)
    tightened = evaluate(load_registry(own=[folder]), part, ask)

    assert rank(tightened.outcome) >= rank(plain.outcome)


def test_own_model_does_not_take_a_name_the_registry_knows(tmp_path: Path) -> None:
    text = OWN_MODEL.replace('["acme-7b*"]', '["gpt-5.4"]').replace('["acme"]', '["openai", "acme"]')
    folder = rules(tmp_path / "own", text + '\n[alias]\n"claude-sonnet-4.6" = "acme/gpt-5.4"\n')

    for model, route in (("openai/gpt-5.4", "openrouter"), ("claude-sonnet-4.6", "openrouter")):
        assert cli("policy", "explain", model, "--route", route, "--rules", folder).code == 4


OWN_ROUTE = """
[[route]]
id = "acme-gateway"
party = "Acme"
serves = "any"

[[rule]]
id = "acme.gateway"
layer = "route"
match = { route = ["acme-gateway"] }
decision = { default = "allow" }
clause = "Our own gateway asks for nothing"
source = { doc = "House rules", section = "3", effective = 2026-01-01, url = "https://example.com/rules" }
as_of = 2026-11-21
evidence = "V"
review_by = 2027-11-21
"""


def test_own_route_in_front_of_a_closed_model_leaves_the_vendors_terms_in_force(tmp_path: Path) -> None:
    folder = rules(tmp_path / "own", OWN_ROUTE)

    closed = cli("policy", "explain", "openai/gpt-5.4", "--route", "acme-gateway", "--rules", folder)
    opened = cli("policy", "explain", "Qwen/Qwen3-8B", "--route", "acme-gateway", "--rules", folder)

    assert "deny by openai.services.3.3e" in closed.out
    assert opened.code == 0


def test_own_rules_beside_the_recipe_are_read_and_named_in_the_registry_version(
    server: Loopback, tmp_path: Path
) -> None:
    hosted = teacher(server, hf="acme/acme-7b", model="acme")
    path = save(tmp_path / "r.yaml", recipe(server, rows=1, teachers={"qwen": hosted}, actor={"mau": 1}))
    rules(tmp_path / "policy.rules", OWN_MODEL)

    report = synthgen.generate(path, tmp_path / "run")

    policy = json.loads((tmp_path / "run" / "POLICY.json").read_text())
    assert report.exit_code == 0
    assert policy["registry_version"].startswith("1/2026-11-21+")
    assert (tmp_path / "run" / "policy.rules" / "own.toml").read_text() == OWN_MODEL


# ---- docs/policy.md

DOCS = (Path(__file__).parent.parent / "docs" / "policy.md").read_text(encoding="utf-8")
EXPLAINED = [
    shlex.split(line)[1:] for line in DOCS.splitlines() if line.startswith("synthgen policy explain")
]


TOLD = ["openai.services.3.3e", "owes NAME-PREFIX:Llama", "azure.product-terms.unverified"]


@pytest.mark.parametrize(("command", "told"), list(zip(EXPLAINED, TOLD, strict=True)), ids=TOLD)
def test_documented_example_decides_as_described(command: list[str], told: str) -> None:
    result = cli(*command)

    assert result.code in (0, 4)
    assert told in result.out


def test_documented_rule_can_be_used_as_it_stands(tmp_path: Path) -> None:
    text = DOCS.split("```toml\n")[1].split("```")[0]
    given = ("explain", "openai/gpt-5.4", "--route", "azure-openai", "--rules", rules(tmp_path / "own", text))

    assert cli("policy", *given, "--use", "train-general").code == 4
    assert (
        "owes NOT-COMPETE:Microsoft" in cli("policy", *given, "--use", "train-task-internal:classifier").out
    )


def test_documented_exception_and_its_end() -> None:
    given = ("policy", "explain", "openai/gpt-5.4", "--route", "openai-api", "--use", CLASSIFIER)

    assert "owes NO-DISTRIBUTE" in cli(*given).out
    assert "deny by conflict.no-distribute" in cli(*given, "--use", "publish-weights").out
