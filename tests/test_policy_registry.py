"""The registry as data: lint of the packaged files, errors of wrong ones, names of models, routes of hosts."""

import re
import shutil
import tomllib
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from synthgen.errors import UsageError
from synthgen.policy import default_route, load_registry, resolve, same_identity
from synthgen.policy import registry as registry_module
from synthgen.policy.parsed import write_parsed
from synthgen.policy.registry import ModelFamily
from synthgen.policy.rules import Rule

REGISTRY = load_registry()
PACKAGED = Path(registry_module.__file__).parent / "data"


FACT_ROWS = {f"R{n}" for n in range(1, 40)} | {f"M{n}" for n in range(1, 58)} | {"seeds"}


@pytest.mark.parametrize("rule", REGISTRY.rules.values(), ids=lambda rule: str(rule.id))
def test_rule_has_source_dates_evidence_and_a_short_clause(rule: Rule) -> None:
    effective = rule.source.effective

    assert rule.source.doc
    assert rule.source.section
    assert rule.is_own or rule.source.url
    assert rule.is_own or rule.basis
    assert set(rule.basis) <= FACT_ROWS
    assert rule.as_of <= REGISTRY.released < rule.review_by, "overdue at release"
    assert not isinstance(effective, date) or effective <= rule.as_of, "seen before it was in force"
    assert 1 <= len(rule.clause.split()) <= 40


def test_every_row_of_the_facts_is_behind_a_rule() -> None:
    assert {row for rule in REGISTRY.rules.values() for row in rule.basis} == FACT_ROWS


def test_permission_rests_only_on_text_that_was_read() -> None:
    unread = [
        rule.id
        for rule in REGISTRY.rules.values()
        if rule.evidence in ("S", "M")
        and rule.layer != "identity"
        and set(rule.decision.values()) != {"review"}
    ]

    assert unread == []


def test_text_that_was_read_is_reviewed_within_a_year() -> None:
    slow = [
        rule.id
        for rule in REGISTRY.rules.values()
        if not rule.is_own and rule.review_by - REGISTRY.released > timedelta(days=366)
    ]

    assert slow == []


def test_unread_route_terms_are_due_for_reading_soon() -> None:
    late = [
        rule.id
        for rule in REGISTRY.rules.values()
        if rule.layer == "route" and rule.evidence in ("S", "M") and rule.review_by > date(2027, 2, 22)
    ]

    assert late == []


def test_nobody_is_named_as_reviewer_who_did_not_read() -> None:
    assert {rule.reviewed_by for rule in REGISTRY.rules.values()} == {()}
    assert {rule.text_sha256 for rule in REGISTRY.rules.values()} == {""}


def test_one_file_holds_one_party_licence_family_or_seed() -> None:
    for path in PACKAGED.rglob("*/*.toml"):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        one_thing = {
            "routes": {route["party"] for route in content.get("route", ())},
            "licences": {item["id"] for item in content.get("licence", ())},
            "models": {model["id"] for model in content.get("model", ())},
            "seeds": {item["id"] for item in content.get("seed", ())},
        }[path.parent.name]
        assert len(one_thing) == 1 or path.stem == "unread", path


@pytest.mark.parametrize("family", REGISTRY.families.values(), ids=lambda family: str(family.id))
def test_every_pattern_finds_its_own_family(family: ModelFamily) -> None:
    route = "self-hosted" if family.weights == "open" else family.routes[0]
    for pattern in family.names:
        bare = pattern.replace("*", "")
        for name in [bare, *(f"{org}/{bare}" for org in family.orgs)]:
            found = resolve(REGISTRY, name, None, route)
            assert found is not None, name
            assert found.id == family.id, name


@pytest.mark.parametrize(
    ("alias", "route"), [("Together.ai", "together"), ("AZURE", "azure-openai"), ("local", "self-hosted")]
)
def test_route_goes_by_its_other_names(alias: str, route: str) -> None:
    found = REGISTRY.route(alias)

    assert found is not None
    assert found.id == route


def test_no_two_routes_share_a_name_host_or_slug() -> None:
    for read in (lambda r: (r.id, *r.aliases), lambda r: r.hosts, lambda r: (r.slug,) if r.slug else ()):
        names = [name for route in REGISTRY.routes.values() for name in read(route)]
        assert len(names) == len(set(names))
        assert all(name == name.lower() for name in names)


def test_lineage_brings_every_ancestors_licence() -> None:
    family = REGISTRY.families["llama-nemotron-3.1"]

    assert REGISTRY.licences_of(family) == ("nvidia-open-model", "llama3.1")


def test_lineage_that_runs_in_a_circle_ends() -> None:
    llama = REGISTRY.families["llama3.1"].model_copy(update={"lineage": ("tulu3-llama3.1",)})
    circle = replace(REGISTRY, families={**REGISTRY.families, "llama3.1": llama})

    assert circle.licences_of(circle.families["tulu3-llama3.1"]) == ("llama3.1",)


def edited(tmp_path: Path, file: str, old: str, new: str) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(PACKAGED, folder)
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("routes/openai.toml", 'clause = "Output may not', 'claus = "Output may not', "claus: Extra inputs"),
        ("routes/openai.toml", 'applies = ["train-*"', 'applies = ["trian-*"', "matches no use"),
        ("routes/openai.toml", '"train-general" = "deny"', '"train-general" = "maybe"', "Input should be"),
        ("routes/openai.toml", 'permitted-exception-b"]', 'permitted-exception-z"]', "is not defined"),
        ("routes/openai.toml", '"evaluate-only"]', "]", "openai-api: no rule speaks on evaluate-only"),
        ("routes/openai.toml", 'evidence = "V"', "", "evidence: Field required"),
        (
            "routes/openai.toml",
            'id = "openai.sharing.disclose"',
            'id = "openai.services.3.3e"',
            "defined twice",
        ),
        ("routes/openai.toml", 'clause = "Output', 'clause = "' + "word " * 40 + "Output", "1 to 40 words"),
        ("licences/llama3.3.toml", 'op = ">"', 'op = "matches"', "Input should be"),
        ("licences/llama3.3.toml", "value = 700_000_000", 'value = "many"', "cannot be compared"),
        (
            "models/llama3.3.toml",
            'licences = ["llama3.3"]',
            'licences = ["llama9"]',
            "licence 'llama9' is not defined",
        ),
        ("routes/openai.toml", "[[route]]", "[[route]", "cannot be read"),
        ("registry.toml", "schema_version = 1", "schema_version = 2", "schema_version"),
    ],
)
def test_wrong_registry_is_refused_with_the_file(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    folder = edited(tmp_path, file, old, new)

    with pytest.raises(UsageError, match=message):
        load_registry(folder)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
        ("meta-llama/Llama-3.1-8B-Instruct@main", "llama3.1"),
        ("llama3.2:1b", "llama3.2"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5"),
        ("Qwen/Qwen2.5-3B-Instruct", "qwen2.5-3b"),
        ("Qwen/Qwen2.5-32B-Instruct", "qwen2.5"),
        ("Qwen/Qwen2.5-72B-Instruct", "qwen2.5-72b"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507-FP8", "qwen3"),
        ("google/gemma-3-27b-it", "gemma"),
        ("google/gemma-4-12b-it", "gemma4"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3-2024"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3-mit"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "r1-distill-llama-8b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-open"),
        ("openai/gpt-oss-20b", "gpt-oss"),
        ("smollm2-135m", "smollm"),
        ("mistralai/Mistral-Large-Instruct-2407", "mistral-research"),
        ("qwen/qwen-2.5-72b-instruct", "qwen2.5-72b"),
        ("Qwen/Qwen2-72B-Instruct", "qwen2-72b"),
        ("xai/grok-2", "grok-2"),
        ("xai/grok-4", None),
        ("MiniMaxAI/MiniMax-M2", "minimax-m2"),
        ("MiniMaxAI/MiniMax-M2.5", "minimax-m2.5"),
        ("zai-org/GLM-5.3", "glm-5.3"),
        ("zai-org/GLM-5.3-Flash", "glm"),
        ("CohereLabs/c4ai-command-r-plus-08-2024", "command-weights"),
        ("tiiuae/falcon-11B", "falcon-2"),
        ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", "llama-nemotron-3.1"),
        ("Qwen/Qwen3-Max", None),
        ("someone/Llama-3.3-70B-Instruct", None),
        ("llama-3.3-70b-uncensored", None),
        ("a/b/c", None),
        ("./qwen3-8b", None),
    ],
)
def test_weights_are_known_by_their_exact_version(name: str, family: str | None) -> None:
    found = resolve(REGISTRY, name, None, "self-hosted")

    assert (found.id if found else None) == family


def test_openrouter_keeps_open_and_closed_gpt_apart() -> None:
    opened = resolve(REGISTRY, "openai/gpt-oss-120b", None, "openrouter")
    closed = resolve(REGISTRY, "openai/gpt-5.4", None, "openrouter")

    assert opened is not None
    assert closed is not None
    assert (opened.id, closed.id) == ("gpt-oss", "openai-hosted")


@pytest.mark.parametrize(
    ("requested", "served", "same"),
    [
        ("gpt-4o-mini", "gpt-4o-mini", True),
        ("gpt-4o-mini", None, True),
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", True),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini", True),
        ("openai/gpt-5.4", "gpt-5.4", True),
        ("claude-sonnet-4-6", "claude-sonnet-4-6-20260115", True),
        ("mistral-small-latest", "mistral-small-2506", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06", False),
        ("gpt-4o", "claude-sonnet-4-6", False),
        ("my-alias", "my-alias-2024-07-18", False),
        ("deepseek-chat", "deepseek-v3.2", False),
        ("anthropic/gpt-5.4", "openai/gpt-5.4", False),
    ],
)
def test_served_model_is_the_requested_one(requested: str, served: str | None, same: bool) -> None:
    assert same_identity(REGISTRY, requested, served) is same


def test_served_as_accepts_a_declared_name() -> None:
    assert same_identity(REGISTRY, "deepseek-chat", "deepseek-v3.2", ("deepseek-v3.2",))


@pytest.mark.parametrize(
    ("provider", "url", "route"),
    [
        ("openai", "https://api.openai.com/v1", "openai-api"),
        ("anthropic", "https://api.anthropic.com", "anthropic-api"),
        ("openai", "https://api.deepseek.com", "deepseek-api"),
        ("openai", "https://api.mistral.ai/v1", "mistral-api"),
        ("openai", "https://generativelanguage.googleapis.com/v1beta/openai/", "gemini-api"),
        ("openai", "https://openrouter.ai/api/v1", "openrouter"),
        ("local", None, "self-hosted"),
        ("vllm", "http://127.0.0.1:8000/v1", None),
        ("openai", "http://api.openai.com/v1", None),
        ("openai", "https://api.openai.com.evil.example/v1", None),
        ("openai", "https://proxy.example/api.openai.com", None),
        ("openai", None, None),
    ],
)
def test_only_the_vendors_own_host_stands_for_a_route(
    provider: str, url: str | None, route: str | None
) -> None:
    assert default_route(REGISTRY, provider, url) == route


def test_readme_counts_what_the_registry_holds() -> None:
    text = " ".join((Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8").split())

    held = f"{len(REGISTRY.routes)} routes, {len(REGISTRY.licences)} licence texts and {len(REGISTRY.families)} lines"
    assert held in text


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(PACKAGED, folder)
    return folder


def test_the_parsed_registry_is_made_of_the_shipped_files(tmp_path: Path) -> None:
    folder = copied(tmp_path)

    write_parsed(folder)

    current = (folder / "registry.json").read_bytes() == (PACKAGED / "registry.json").read_bytes()
    assert current, "run `python -m synthgen.policy.parsed`"


def test_the_parsed_registry_says_what_the_files_say(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "registry.json").unlink()

    parsed, read = load_registry(folder), load_registry()

    names = ("released", "routes", "licences", "families", "aliases", "rules", "seed_aliases")
    assert [getattr(parsed, name) for name in names] == [getattr(read, name) for name in names]


def test_a_changed_file_counts_whatever_was_parsed_before(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    head = folder / "registry.toml"
    head.write_text(re.sub(r"released = \S+", "released = 2020-02-02", head.read_text()))

    registry = load_registry(folder)

    assert registry.released == date(2020, 2, 2)
