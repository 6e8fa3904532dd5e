"""Obligations in words, the check of a student's name, downstream uses, licence expressions."""

from datetime import date
from typing import get_args

import pytest

from synthgen.errors import PolicyError
from synthgen.policy import (
    Ask,
    Obligation,
    Part,
    check_student,
    downstream,
    gate,
    licence_texts,
    load_registry,
)
from synthgen.policy.emit import HUB_LICENSES, card_license
from synthgen.policy.expressions import all_of, symbols
from synthgen.policy.obligations import duties, obligations_md
from synthgen.policy.rules import ObligationId
from synthgen.recipe.model import Actor

REGISTRY = load_registry()
LLAMA = Part("t", "vllm", "self-hosted", "m", hf="meta-llama/Llama-3.3-70B-Instruct")
OPENAI = Part("t", "openai", "openai-api", "gpt-5.4")


def asked(*uses: str) -> Ask:
    return Ask(uses, Actor(mau=1, territory="US"), today=date(2026, 11, 21))


# What is owed


@pytest.mark.parametrize("name", [*get_args(ObligationId), "WAIVER", "ATTESTATION"])
def test_every_obligation_is_put_into_words(name: str) -> None:
    (duty,) = duties([Obligation(name, "x")])

    assert duty.what
    assert duty.how
    assert "{" not in duty.what


def test_what_is_left_to_people_comes_first() -> None:
    found = duties(
        [Obligation("DISCLOSE-AI"), Obligation("NAME-PREFIX", "Llama"), Obligation("AUP", "llama3.3")]
    )

    assert [duty.by for duty in found] == ["yours", "checked", "by synthgen"]


def test_obligations_file_names_uses_and_duties() -> None:
    text = obligations_md([Obligation("NAME-PREFIX", "Llama")], ["publish-weights"])

    assert "when these rows serve publish-weights" in text
    assert "| NAME-PREFIX:Llama | checked |" in text


def test_text_of_a_waiver_cannot_break_the_table() -> None:
    text = obligations_md([Obligation("WAIVER", "a|b\n<img src=x>")], ["train-general"])

    assert "| WAIVER:a\\|b &lt;img src=x> |" in text


# The student's name

PREFIX = [Obligation("NAME-PREFIX", "Llama"), Obligation("AUP", "llama3.3")]


@pytest.mark.parametrize("name", ["Llama-acme-7b", "acme/Llama-7b", "models/out/Llama-7b/"])
def test_a_name_with_the_prefix_is_accepted(name: str) -> None:
    check_student(name, PREFIX)


@pytest.mark.parametrize("name", ["acme-7b", "acme-Llama-7b", "Llama/acme-7b", "llama-7b", ""])
def test_a_name_without_the_prefix_is_refused(name: str) -> None:
    with pytest.raises(PolicyError, match="must begin with 'Llama'"):
        check_student(name, PREFIX)


def test_a_name_with_somebody_elses_brand_is_refused() -> None:
    with pytest.raises(PolicyError, match="must not contain 'DeepSeek'"):
        check_student("acme/my-deepseek-7b", [Obligation("BRAND-LIMIT", "DeepSeek")])


def test_without_a_duty_any_name_is_accepted() -> None:
    check_student("acme-7b", [Obligation("DISCLOSE-AI")])


# Downstream


def test_downstream_answers_are_the_gates() -> None:
    ask = asked("train-task-internal:classifier")

    answers = {answer.use: answer for answer in downstream(REGISTRY, [OPENAI], ask)}

    for use in ("train-general", "publish-weights", "train-task-internal:classifier", "publish-dataset"):
        assert answers[use].decision == gate(REGISTRY, [OPENAI], asked(use)).outcome


def test_a_barred_use_names_the_rule_in_the_way() -> None:
    answers = {a.use: a for a in downstream(REGISTRY, [OPENAI], asked("train-task-internal:classifier"))}

    assert answers["train-general"].decision == "deny"
    assert any(
        text.startswith("openai.services.3.3e (OpenAI Services Agreement")
        for text in answers["train-general"].because
    )


def test_commercial_use_is_answered_for_the_declared_uses() -> None:
    nc = Part("t", "vllm", "self-hosted", "m", hf="Qwen/Qwen2.5-3B-Instruct")

    answers = {a.use: a for a in downstream(REGISTRY, [nc], asked("train-general", "research-nc"))}

    assert answers["train-general; commercial"].decision == "deny"
    assert answers["train-general; research-nc"].decision != "deny"


# Licences


@pytest.mark.parametrize(
    ("licences", "expression"),
    [
        ([], ""),
        (["mit", "MIT"], "MIT"),
        (["MIT", "llama3.3"], "LicenseRef-synthgen-llama3.3 AND MIT"),
        (["MIT OR Apache-2.0", "CC-BY-4.0"], "CC-BY-4.0 AND (Apache-2.0 OR MIT)"),
        (["imported-synthetic"], "LicenseRef-synthgen-imported-synthetic"),
        (["MIT AND"], "LicenseRef-synthgen-MIT-AND"),
        (["all rights reserved!"], "LicenseRef-synthgen-all-rights-reserved"),
        (["LicenseRef-synthgen-own"], "LicenseRef-synthgen-own"),
    ],
)
def test_licences_join_into_one_parsed_expression(licences: list[str], expression: str) -> None:
    assert all_of(licences) == expression


def test_parsing_an_expression_again_changes_nothing() -> None:
    once = all_of(["GPL-2.0-only WITH Classpath-exception-2.0", "MIT OR 0BSD", "gemma"])

    assert all_of([once]) == once
    assert "LicenseRef-synthgen-gemma" in symbols(once)


@pytest.mark.parametrize("name", sorted(REGISTRY.licences))
def test_every_licence_of_the_registry_is_a_symbol_spdx_readers_take(name: str) -> None:
    assert len(symbols(all_of([name]))) == 1


@pytest.mark.parametrize(
    "hf", ["databricks/dbrx-instruct", "google/gemma-3-27b-it", "meta-llama/Llama-3.1-8B"]
)
def test_card_licence_is_one_the_hub_takes(hf: str) -> None:
    part = Part("t", "vllm", "self-hosted", "m", hf=hf)

    assert card_license(REGISTRY, gate(REGISTRY, [part], asked("evaluate-only"))) in {*HUB_LICENSES, "other"}


def test_a_seed_licence_cannot_leave_its_folder() -> None:
    part = Part("t", "vllm", "self-hosted", "m", hf="Qwen/Qwen3-8B", row_license="../../etc/x")

    texts = licence_texts(REGISTRY, gate(REGISTRY, [part], asked("train-general")))

    assert all("/" not in name and not name.startswith(".") for name in texts)
