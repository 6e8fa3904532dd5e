"""Decisions: what is cited, what is unknown, what softens, what ages, and the algebra of the whole."""

import socket
from dataclasses import replace
from datetime import date
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import UsageError
from synthgen.policy import (
    USES,
    Ask,
    Decision,
    Override,
    Overrides,
    Part,
    evaluate,
    gate,
    load_registry,
    parse_uses,
    refusal,
    resolve,
    vetted_hosts,
)
from synthgen.policy.model import Outcome, PartRole, rank, strictest
from synthgen.policy.registry import ModelFamily
from synthgen.recipe.model import SEED_RELATIONS, Actor

TODAY = date(2026, 11, 21)
REGISTRY = load_registry()
CLASSIFIER = "train-task-internal:classifier"

OPENAI = Part("gpt", "openai", "openai-api", "gpt-5.4")
CLAUDE = Part("claude", "anthropic", "anthropic-api", "claude-sonnet-4-6")
QWEN3 = Part("qwen", "vllm", "self-hosted", "qwen3", hf="Qwen/Qwen3-8B")
GEMINI = Part("gemini", "openai", "gemini-api-paid", "gemini-3.1-pro")
LLAMA33 = Part("llama", "vllm", "self-hosted", "any", hf="meta-llama/Llama-3.3-70B-Instruct")
SMALL = Actor(mau=1000, territory="US")


def decide(part: Part, *uses: str, **ask: object) -> Decision:
    return evaluate(REGISTRY, part, replace(Ask(uses, today=TODAY), **ask))  # type: ignore[arg-type]  # test shorthand


def rules(decision: Decision, outcome: Outcome) -> set[str]:
    return {c.rule for c in decision.citations if c.decision == outcome}


def owed(decision: Decision) -> list[str]:
    return [str(obligation) for obligation in decision.obligations]


PURPOSES = [use for use in USES if use not in ("research-nc", "commercial")]


def a_name(family: ModelFamily) -> str:
    """A name of the family."""
    bare = family.names[0].replace("*", "")
    return f"{family.orgs[0]}/{bare}" if family.orgs else bare


def a_part_on(route: str) -> Part:
    """A model that the route offers."""
    for family in REGISTRY.families.values():
        name = a_name(family)
        if resolve(REGISTRY, name, None, route):
            return Part("t", "p", route, name)
    raise AssertionError(f"{route} offers nothing")


@pytest.mark.parametrize("route", REGISTRY.routes)
def test_every_route_is_cited_with_rule_source_and_date_for_every_purpose(route: str) -> None:
    for use in PURPOSES:
        decision = decide(a_part_on(route), use)

        cited = [c for c in decision.citations if c.layer == "route" and c.subject == route]
        assert cited
        assert all(c.rule and c.doc and c.section and c.effective and c.as_of <= TODAY for c in cited)
        assert "default.no-rule" not in {c.rule for c in decision.citations}


@pytest.mark.parametrize("family", REGISTRY.families.values(), ids=lambda family: str(family.id))
def test_every_model_cites_every_licence_of_its_lineage_for_every_purpose(family: ModelFamily) -> None:
    route = "self-hosted" if family.weights == "open" else family.routes[0]
    part = Part("t", "p", route, a_name(family))
    for use in PURPOSES:
        decision = decide(part, use)

        cited = {c.subject for c in decision.citations if c.layer == "licence"}
        assert cited == set(decision.licences) == set(REGISTRY.licences_of(family))
        assert f"model.{family.id}" in {c.rule for c in decision.citations}


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        (Part("t", "p", "nowhere", "gpt-5.4"), "default.unknown-route"),
        (Part("t", "p", "openai-api", "new-model"), "default.unknown-model"),
        (Part("t", "p", "self-hosted", "/models/llama.gguf"), "default.unknown-model"),
        (Part("t", "p", "self-hosted", "x", hf="someone/Qwen3-8B"), "default.unknown-model"),
        (Part("t", "p", "self-hosted", "qwen3-8b-mycorp"), "default.unknown-model"),
        (Part("t", "p", "self-hosted", "gpt-5.4"), "default.model-not-on-route"),
        (Part("t", "p", "openai-api", "claude-sonnet-4-6"), "default.model-not-on-route"),
        (replace(QWEN3, row_license="Secret-1.0"), "default.unknown-seed"),
        (replace(QWEN3, row_license=""), "default.unknown-seed"),
    ],
)
def test_what_is_not_listed_is_denied(part: Part, rule: str) -> None:
    decision = decide(part, "evaluate-only")

    assert decision.outcome == "deny"
    assert rules(decision, "deny") == {rule}
    assert all(c.doc == "synthgen default" for c in decision.citations if c.rule == rule)


def test_unknown_student_base_is_denied_for_training() -> None:
    decision = decide(QWEN3, "train-general", student_base="acme/base")

    assert rules(decision, "deny") == {"default.unknown-student"}


def test_local_is_another_name_of_self_hosted() -> None:
    decision = decide(Part("t", "local", "local", "smollm2-135m"), "train-general", "publish-weights")

    assert (decision.outcome, decision.licences) == ("allow", ("Apache-2.0",))


def test_hf_decides_over_the_served_name() -> None:
    part = Part("t", "vllm", "self-hosted", "qwen3-8b", hf="meta-llama/Llama-2-7b-chat-hf")

    assert decide(part, "train-general").outcome == "deny"


def test_exception_for_internal_classifiers_removes_the_ban() -> None:
    decision = decide(OPENAI, CLASSIFIER)

    assert decision.outcome == "allow_with_obligations"
    assert "openai.services.3.3e" not in {c.rule for c in decision.citations}


def test_internal_permission_ends_when_weights_are_published() -> None:
    decision = decide(OPENAI, CLASSIFIER, "publish-weights")

    assert rules(decision, "deny") == {"conflict.no-distribute"}


def test_narrow_model_from_claude_needs_a_person() -> None:
    decision = decide(CLAUDE, CLASSIFIER)

    assert decision.outcome == "review"
    assert rules(decision, "review") == {"anthropic.commercial.D4", "anthropic.aup.training"}


def test_router_passes_the_vendors_terms_through() -> None:
    decision = decide(Part("t", "openai", "openrouter", "openai/gpt-5.4"), "train-general")

    assert "openai.services.3.3e" in rules(decision, "deny")


def test_router_on_open_weights_owes_a_pinned_route() -> None:
    decision = decide(Part("t", "openai", "openrouter", "deepseek/deepseek-r1"), "train-general")

    assert owed(decision) == ["ROUTE-PIN:openrouter"]


def test_distilled_llama_keeps_the_licence_of_its_ancestor() -> None:
    part = replace(LLAMA33, hf="deepseek-ai/DeepSeek-R1-Distill-Llama-70B")

    decision = decide(part, "train-general", "publish-weights", actor=SMALL)

    assert decision.licences == ("MIT", "llama3.3")
    assert "NAME-PREFIX:Llama" in owed(decision)


def test_limit_of_the_students_own_base_is_not_asked_twice() -> None:
    decision = decide(
        replace(LLAMA33, hf="meta-llama/Llama-2-70b-chat-hf"),
        "train-own-family",
        student_base="meta-llama/Llama-2-7b",
    )

    assert decision.outcome == "allow_with_obligations"
    assert decision.questions == ()


def test_limit_that_is_passed_is_denied_whatever_the_students_base() -> None:
    decision = decide(
        replace(LLAMA33, hf="meta-llama/Llama-2-70b-chat-hf"),
        "train-own-family",
        student_base="meta-llama/Llama-2-7b",
        actor=Actor(mau=700_000_001),
    )

    assert rules(decision, "deny") == {"llama2.2"}


KIMI3 = replace(QWEN3, hf="moonshotai/Kimi-K3")


@pytest.mark.parametrize(
    ("actor", "outcome"),
    [
        (Actor(maas=True, revenue12m_usd=20_000_001), "deny"),
        (Actor(maas=True, revenue12m_usd=20_000_000), "allow_with_obligations"),
        (Actor(maas=False), "allow_with_obligations"),
        (Actor(revenue12m_usd=1), "allow_with_obligations"),
        (Actor(maas=True), "review"),
        (Actor(), "review"),
    ],
)
def test_two_facts_of_one_condition_hold_together_or_not_at_all(actor: Actor, outcome: str) -> None:
    assert decide(KIMI3, "train-general", "publish-weights", actor=actor).outcome == outcome


def test_conditions_question_names_every_fact_that_is_missing() -> None:
    (question,) = decide(KIMI3, "train-general").questions

    assert question.startswith("actor.maas, actor.revenue12m_usd are not declared; kimi-k3.2 ")


def test_undeclared_limit_of_commercial_use_is_owed_until_commercial_is_declared() -> None:
    qwen = replace(QWEN3, hf="Qwen/Qwen2.5-72B-Instruct")

    assert "MAU-LIMIT:100M" in owed(decide(qwen, "train-general"))
    assert owed(decide(qwen, "train-general", actor=SMALL)) == []
    assert decide(qwen, "train-general", "commercial").outcome == "review"


@pytest.mark.parametrize(
    ("territory", "outcome"),
    [("KR", "deny"), ("uk", "deny"), ("FR", "deny"), ("JP", "allow"), (None, "review")],
)
def test_union_stands_for_its_members(territory: str | None, outcome: str) -> None:
    part = replace(QWEN3, hf="tencent/Hunyuan-A13B-Instruct")

    assert decide(part, "evaluate-only", actor=Actor(territory=territory, mau=1)).outcome == outcome


def test_clause_of_all_access_paths_reaches_a_cloud() -> None:
    decision = decide(Part("t", "p", "bedrock", "anthropic/claude-sonnet-4.6"), "train-general")

    assert rules(decision, "review") == {"anthropic.aup.training", "aws.service-terms.unverified"}


def test_text_nobody_read_neither_allows_nor_denies() -> None:
    part = Part("t", "p", "azure-openai", "gpt-5.4")

    assert {decide(part, use).outcome for use in PURPOSES} == {"review"}


def test_own_family_of_a_closed_model_is_tuned_in_the_vendors_service_alone() -> None:
    assert decide(OPENAI, "train-own-family").outcome == "allow_with_obligations"
    assert decide(OPENAI, "train-own-family", student_base="openai/gpt-oss-20b").outcome == "deny"


def test_host_behind_a_router_brings_its_own_terms() -> None:
    routed = Part("t", "openai", "openrouter", "deepseek/deepseek-r1")

    fireworks = decide(replace(routed, upstream=("Fireworks",)), "train-general")
    together = decide(replace(routed, upstream=("Together",)), "train-general")
    unknown = decide(replace(routed, upstream=("DeepCheap",)), "train-general")

    assert rules(fireworks, "review") == {"fireworks.2.2c"}
    assert owed(together) == ["NOT-COMPETE:Together AI", "ROUTE-PIN:openrouter"]
    assert rules(unknown, "deny") == {"default.unknown-route"}


def test_vetted_hosts_are_those_whose_own_terms_let_the_part_pass() -> None:
    ask = Ask(("train-general",), today=TODAY)

    open_weights = vetted_hosts(REGISTRY, Part("t", "openai", "openrouter", "deepseek/deepseek-r1"), ask)
    closed = vetted_hosts(REGISTRY, Part("t", "openai", "openrouter", "openai/gpt-5.4"), ask)

    assert open_weights == ("deepseek", "together")
    assert closed == ()


def test_declared_weights_do_not_hide_a_closed_model_at_a_router() -> None:
    part = Part("t", "openai", "openrouter", "openai/gpt-5.4", hf="Qwen/Qwen3-8B")

    assert decide(part, "train-general").outcome == "deny"


def test_another_served_model_is_for_review_and_quarantine() -> None:
    decision = decide(replace(QWEN3, model="qwen/qwen3-8b", served="qwen/qwen3-4b"), "train-general")

    assert rules(decision, "review") == {"default.served-identity"}
    assert owed(decision) == ["QUARANTINE-ROWS"]


def test_snapshot_of_the_asked_model_is_no_other_one() -> None:
    assert (
        decide(replace(OPENAI, served="gpt-5.4-2026-03-01"), CLASSIFIER).outcome == "allow_with_obligations"
    )


def test_commercial_use_of_a_non_commercial_seed_is_denied_through_its_duty() -> None:
    decision = decide(replace(QWEN3, row_license="CC-BY-NC-4.0"), "train-general", "commercial")

    assert "conflict.nc-commercial" in rules(decision, "deny")


def test_two_share_alike_texts_in_one_row_have_no_common_licence() -> None:
    part = replace(QWEN3, row_license="CC-BY-SA-4.0 AND ODbL-1.0")

    assert rules(decide(part, "publish-dataset"), "deny") == {"conflict.share-alike"}


def test_rules_of_our_own_do_not_age() -> None:
    assert decide(QWEN3, "train-general", today=date(2032, 1, 1)).outcome == "allow"


def test_overdue_review_is_a_warning() -> None:
    decision = decide(QWEN3, "train-general", today=date(2027, 12, 1))

    assert any(w.startswith("spdx.Apache-2.0: a review was due on 2027-11-21") for w in decision.warnings)


def test_equal_question_is_answered_from_memory() -> None:
    assert decide(OPENAI, "train-general") is decide(replace(OPENAI), "train-general")


def test_undeclared_fact_asks_instead_of_guessing() -> None:
    decision = decide(LLAMA33, "train-general")

    assert decision.outcome == "review"
    assert decision.questions[0].startswith("actor.mau is not declared; llama3.3.2.undeclared ")


@pytest.mark.parametrize(("territory", "outcome"), [("DE", "deny"), ("de", "deny"), ("Germany", "review")])
def test_llama4_reads_the_territory_with_care(territory: str, outcome: str) -> None:
    part = replace(LLAMA33, hf="meta-llama/Llama-4-Scout-17B-16E-Instruct")

    assert decide(part, "train-general", actor=Actor(mau=1, territory=territory)).outcome == outcome


def test_remembered_lineage_is_not_enough() -> None:
    decision = decide(replace(LLAMA33, hf="NousResearch/Hermes-4-70B"), "train-general", actor=SMALL)

    assert rules(decision, "review") == {"model.hermes-4-llama"}


def test_second_hand_assignment_to_a_read_licence_is_enough() -> None:
    assert decide(replace(QWEN3, hf="HuggingFaceTB/SmolLM3-3B"), "train-general").outcome == "allow"


@pytest.mark.parametrize("role", ["judge-filter", "embedder"])
def test_model_that_only_selects_softens_a_training_ban_to_review(role: PartRole) -> None:
    decision = decide(replace(OPENAI, role=role), "train-general")

    assert decision.outcome == "review"
    assert "STRIP-JUDGE-COLUMNS" in owed(decision)


@pytest.mark.parametrize(
    "part",
    [
        Part("t", "p", "chatgpt-consumer", "gpt-5.4"),
        Part("t", "p", "openrouter", "openrouter/auto"),
        Part("t", "p", "sambanova", "Qwen/Qwen3-8B"),
        replace(QWEN3, hf="meta-llama/Llama-4-Scout-17B-16E-Instruct"),
    ],
)
def test_model_that_may_not_be_used_at_all_may_not_select_either(part: Part) -> None:
    decision = decide(replace(part, role="judge-filter"), "train-general", actor=Actor(mau=1, territory="FR"))

    assert decision.outcome == "deny"


def test_ban_on_other_students_softens_for_a_model_that_only_selects() -> None:
    judge = replace(QWEN3, hf="meta-llama/Llama-2-7b-hf", role="judge-filter")

    decision = decide(judge, "train-own-family", student_base="Qwen/Qwen3-8B", actor=SMALL)

    assert decision.outcome == "review"


@pytest.mark.parametrize("role", ["rewriter", "judge-shipped"])
def test_model_whose_words_are_shipped_counts_as_a_teacher(role: PartRole) -> None:
    assert decide(replace(OPENAI, role=role), "train-general").outcome == "deny"


def test_old_route_rule_stops_allowing_and_warns() -> None:
    decision = decide(OPENAI, CLASSIFIER, today=date(2027, 8, 23))

    assert decision.outcome == "review"
    assert any(
        w.startswith("openai.services.permitted-exception-a: the terms were last seen 366 days ago")
        for w in decision.warnings
    )


def test_half_year_old_route_rule_only_warns() -> None:
    decision = decide(OPENAI, CLASSIFIER, today=date(2027, 3, 1))

    assert decision.outcome == "allow_with_obligations"
    assert decision.warnings


def test_licence_text_does_not_age() -> None:
    assert decide(QWEN3, "train-general", today=date(2030, 1, 1)).outcome == "allow"
    assert "review" not in {
        c.decision
        for c in decide(QWEN3, "train-general", today=date(2030, 1, 1)).citations
        if c.layer == "licence"
    }


@pytest.mark.parametrize(
    ("licence", "relation", "use", "outcome"),
    [
        ("own", "verbatim", "publish-dataset", "allow"),
        ("CC-BY-4.0", "adapted", "publish-dataset", "allow_with_obligations"),
        ("CC-BY-4.0", "inspired", "publish-dataset", "allow"),
        ("CC-BY-NC-4.0", "adapted", "commercial", "deny"),
        ("CC-BY-NC-4.0", "inspired", "commercial", "allow"),
        ("CC-BY-ND-4.0", "adapted", "publish-dataset", "deny"),
        ("CC-BY-ND-4.0", "verbatim", "publish-dataset", "review"),
        ("CC-BY-SA-4.0 AND CC-BY-NC-4.0", "adapted", "publish-dataset", "deny"),
        ("CC-BY-NC-SA-4.0", "adapted", "publish-dataset", "allow_with_obligations"),
    ],
)
def test_seed_licence_counts_by_how_the_text_enters(
    licence: str, relation: SEED_RELATIONS, use: str, outcome: str
) -> None:
    part = replace(QWEN3, row_license=licence, seed_relation=relation)

    assert decide(part, "train-general", use).outcome == outcome


def test_policy_id_names_the_part_not_the_decision() -> None:
    assert decide(OPENAI, "train-general").policy_id == decide(OPENAI, CLASSIFIER).policy_id
    assert (
        decide(OPENAI, CLASSIFIER).policy_id != decide(replace(OPENAI, role="rewriter"), CLASSIFIER).policy_id
    )


def test_alias_in_the_recipe_does_not_change_the_policy_id() -> None:
    assert decide(OPENAI, CLASSIFIER).policy_id == decide(replace(OPENAI, alias="b"), CLASSIFIER).policy_id


def test_students_base_adds_its_own_duties() -> None:
    decision = decide(
        QWEN3, "train-general", "publish-weights", student_base="meta-llama/Llama-3.1-8B", actor=SMALL
    )

    assert "NAME-PREFIX:Llama" in owed(decision)


def test_names_that_no_student_can_carry_together_are_denied() -> None:
    registry_rule = REGISTRY.rules["llama3.3.1.b.i"]
    other = registry_rule.model_copy(
        update={
            "id": "other.name",
            "obligations": (registry_rule.obligations[1].model_copy(update={"arg": "Qwen"}),),
            "match": registry_rule.match.model_copy(update={"licence": ("Apache-2.0",)}),
        }
    )
    registry = replace(REGISTRY, rules={**REGISTRY.rules, "other.name": other})
    ask = Ask(("train-general", "publish-weights"), actor=SMALL, today=TODAY)

    result = gate(registry, [LLAMA33, QWEN3], ask)

    assert result.outcome == "deny"
    assert [c.rule for c in result.conflicts] == ["conflict.name-prefix"]


def test_a_name_that_begins_with_the_other_is_no_conflict() -> None:
    llama3 = replace(LLAMA33, hf="meta-llama/Meta-Llama-3-8B")
    ask = Ask(("publish-weights",), actor=SMALL, student_base="meta-llama/Meta-Llama-3-8B", today=TODAY)

    assert gate(REGISTRY, [LLAMA33, llama3], ask).conflicts == ()


def test_refusal_names_rule_source_date_and_the_way_out() -> None:
    text = refusal(gate(REGISTRY, [OPENAI], Ask(("train-general",), today=TODAY)), ["train-general"])

    assert "openai.services.3.3e" in text
    assert "OpenAI Services Agreement 3.3(e), 2026-01-01; as of 2026-08-22 V" in text
    assert "policy.lock.toml" in text


def test_evaluation_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)

    assert gate(load_registry(), [OPENAI, QWEN3], Ask(("train-general",), today=TODAY)).outcome == "deny"


def test_unknown_use_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'train-general'"):
        parse_uses(["train-generel"])


@pytest.mark.parametrize("uses", [[], ["commercial"], ["research-nc", "commercial"]])
def test_manner_without_a_purpose_is_refused(uses: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_uses(uses)


def test_long_alias_means_train_general() -> None:
    assert parse_uses(["train-competing-general-model", "train-general"]) == ("train-general",)


OUTCOMES = st.sampled_from(["allow", "allow_with_obligations", "review", "deny"])
PARTS = st.sampled_from(
    [
        replace(part, role=role, row_license=seed)
        for part in (
            OPENAI,
            CLAUDE,
            QWEN3,
            GEMINI,
            LLAMA33,
            replace(QWEN3, hf="Qwen/Qwen2.5-3B-Instruct"),
            replace(QWEN3, hf="meta-llama/Llama-2-7b-hf"),
            Part("t", "p", "nowhere", "x"),
        )
        for role in ("teacher", "judge-filter")
        for seed in ("own", "CC-BY-SA-4.0", "CC-BY-NC-4.0 AND MIT")
    ]
)
USE_SETS = st.sets(st.sampled_from(USES), min_size=1).filter(lambda u: u - {"research-nc", "commercial"})
ACTORS = st.sampled_from([Actor(), SMALL, Actor(mau=10**9, territory="FR")])


@given(OUTCOMES, OUTCOMES, OUTCOMES)
def test_join_of_outcomes_is_a_semilattice(a: Outcome, b: Outcome, c: Outcome) -> None:
    assert strictest([strictest([a, b]), c]) == strictest([a, strictest([b, c])])
    assert strictest([a, b]) == strictest([b, a])
    assert strictest([a, a]) == a == strictest([a, "allow"])


@settings(max_examples=40, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=3), USE_SETS, ACTORS)
def test_order_and_repetition_of_parts_change_nothing(
    parts: list[Part], uses: set[str], actor: Actor
) -> None:
    ask = Ask(tuple(uses), actor=actor, today=TODAY)

    results = [gate(REGISTRY, [*order, *order], ask) for order in permutations(parts)]

    assert len({(r.outcome, r.obligations, r.conflicts, r.questions) for r in results}) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=3), PARTS, USE_SETS, ACTORS)
def test_one_more_part_never_lowers_the_outcome(
    parts: list[Part], more: Part, uses: set[str], actor: Actor
) -> None:
    ask = Ask(tuple(uses), actor=actor, today=TODAY)

    before, after = gate(REGISTRY, parts, ask), gate(REGISTRY, [*parts, more], ask)

    assert rank(after.outcome) >= rank(before.outcome)


@settings(max_examples=80, deadline=None)
@given(PARTS, USE_SETS, st.sampled_from(USES), ACTORS)
def test_one_more_use_never_lowers_the_outcome(part: Part, uses: set[str], more: str, actor: Actor) -> None:
    before = evaluate(REGISTRY, part, Ask(tuple(uses), actor=actor, today=TODAY))
    after = evaluate(REGISTRY, part, Ask((*uses, more), actor=actor, today=TODAY))

    assert rank(after.outcome) >= rank(before.outcome)


@settings(max_examples=60, deadline=None)
@given(PARTS, USE_SETS, ACTORS, st.sampled_from(sorted(REGISTRY.rules)), OUTCOMES)
def test_one_more_rule_never_lowers_the_outcome(
    part: Part, uses: set[str], actor: Actor, model: str, outcome: Outcome
) -> None:
    extra = REGISTRY.rules[model].model_copy(
        update={"id": "extra.rule", "decision": {"default": outcome}, "applies": ("*",), "when": ()}
    )
    wider = replace(REGISTRY, rules={**REGISTRY.rules, "extra.rule": extra})
    ask = Ask(tuple(uses), actor=actor, today=TODAY)

    assert rank(evaluate(wider, part, ask).outcome) >= rank(evaluate(REGISTRY, part, ask).outcome)


@settings(max_examples=60, deadline=None)
@given(PARTS, USE_SETS, ACTORS)
def test_denied_part_owes_nothing_and_its_outcome_is_its_strictest_citation(
    part: Part, uses: set[str], actor: Actor
) -> None:
    decision = evaluate(REGISTRY, part, Ask(tuple(uses), actor=actor, today=TODAY))

    assert decision.outcome == strictest(c.decision for c in decision.citations)
    assert decision.outcome != "deny" or decision.obligations == ()


def override(kind: str, rule: str, use: str, **more: object) -> Overrides:
    entry = Override(
        kind="waiver" if kind == "waiver" else "attestation",
        rules=(rule,),
        use=use,
        justification="j" * 40,
        who="w",
        signed=TODAY,
        expires=date(2027, 6, 30),
        contract_ref="C-1" if kind == "waiver" else None,
    )
    return Overrides((replace(entry, **more),))  # type: ignore[arg-type]  # test shorthand


def test_attestation_lifts_review() -> None:
    lock = override("attestation", "openai.services.3.3e", "publish-dataset")

    decision = decide(OPENAI, "publish-dataset", overrides=lock)

    assert decision.outcome == "allow_with_obligations"
    assert "ATTESTATION:openai.services.3.3e" in owed(decision)
    assert decision.overrides == lock.entries


def test_attestation_does_not_lift_deny() -> None:
    lock = override("attestation", "openai.services.3.3e", "train-general")

    assert decide(OPENAI, "train-general", overrides=lock).outcome == "deny"


def test_waiver_lifts_deny() -> None:
    lock = override("waiver", "openai.services.3.3e", "train-general")

    decision = decide(OPENAI, "train-general", overrides=lock)

    assert decision.outcome == "allow_with_obligations"
    assert "WAIVER:C-1" in owed(decision)


def test_override_for_another_use_lifts_nothing() -> None:
    lock = override("waiver", "openai.services.3.3e", "publish-dataset")

    assert decide(OPENAI, "train-general", overrides=lock).outcome == "deny"


def test_override_past_its_date_lifts_nothing() -> None:
    lock = override("waiver", "openai.services.3.3e", "train-general")

    assert decide(OPENAI, "train-general", overrides=lock, today=date(2027, 7, 1)).outcome == "deny"


def test_override_with_a_subject_lifts_only_that_part() -> None:
    lock = override("waiver", "default.unknown-model", "train-general", subject="acme/internal-7b")
    ours = replace(QWEN3, hf="acme/internal-7b")

    assert decide(ours, "train-general", overrides=lock).outcome == "allow_with_obligations"
    assert decide(replace(ours, hf="acme/typo"), "train-general", overrides=lock).outcome == "deny"


@pytest.mark.parametrize(
    ("hf", "seed", "generation"),
    [
        ("Qwen/Qwen3-8B", "own", 1),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "own", 2),
        ("Qwen/Qwen3-8B", "imported-synthetic", 2),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "synthetic", 3),
    ],
)
def test_rounds_of_training_on_answers_are_counted(hf: str, seed: str, generation: int) -> None:
    assert decide(replace(QWEN3, hf=hf, row_license=seed), "train-general").generation == generation


def test_teacher_that_is_itself_a_student_is_a_warning_unless_it_only_selects() -> None:
    student = replace(QWEN3, hf="deepseek-ai/DeepSeek-R1-Distill-Qwen-32B")
    ask = Ask(("train-general",), today=TODAY)

    (warning,) = gate(REGISTRY, [QWEN3, student], ask).warnings

    assert "DeepSeek-R1-Distill-Qwen-32B: rows of generation 2" in warning
    assert gate(REGISTRY, [replace(student, role="judge-filter")], ask).warnings == ()
