"""What a decision leaves in a dataset: POLICY.json, licence pointers, NOTICE, the card's licence."""

import json
from datetime import date

import pytest

from synthgen.policy import (
    Ask,
    GateResult,
    Part,
    card_license,
    gate,
    licence_expression,
    licence_texts,
    load_registry,
    notice_lines,
    policy_json,
)
from synthgen.recipe.model import SEED_RELATIONS, Actor
from synthgen.types import canonical_json

REGISTRY = load_registry()
ASK = Ask(("train-general", "publish-dataset"), actor=Actor(mau=1, territory="US"), today=date(2026, 11, 21))


def served(hf: str, *, seed: str = "own", relation: SEED_RELATIONS = "adapted") -> Part:
    return Part("t", "vllm", "self-hosted", "m", hf=hf, row_license=seed, seed_relation=relation)


def result(*parts: Part) -> GateResult:
    return gate(REGISTRY, parts, ASK)


LLAMA = served("meta-llama/Llama-3.3-70B-Instruct")
QWEN3 = served("Qwen/Qwen3-8B")


def test_policy_json_carries_decision_parts_rules_and_dates() -> None:
    value = json.loads(canonical_json(policy_json(REGISTRY, ASK, result(LLAMA))))

    assert value["decision"] == "allow_with_obligations"
    assert value["enforced"] is True
    assert value["registry_version"] == "1/2026-11-21"
    (part,) = value["parts"]
    assert part["licences"] == ["llama3.3"]
    assert len(part["policy_id"]) == 16
    cited = {rule["rule"]: rule for rule in part["rules"]}
    assert cited["llama3.3.1.b.i"]["source"]["effective"] == "2024-12-06"
    assert cited["llama3.3.1.b.i"]["evidence"] == "V"


def test_report_only_is_stamped() -> None:
    value = json.loads(canonical_json(policy_json(REGISTRY, ASK, result(LLAMA), enforced=False)))

    assert value["enforced"] is False


def test_equal_input_gives_equal_bytes() -> None:
    once, again = (canonical_json(policy_json(load_registry(), ASK, result(LLAMA, QWEN3))) for _ in range(2))

    assert once == again


def test_every_licence_gets_a_pointer_with_its_address() -> None:
    texts = licence_texts(REGISTRY, result(LLAMA, served("Qwen/Qwen3-8B", seed="CC-BY-4.0")))

    assert sorted(texts) == ["Apache-2.0.txt", "CC-BY-4.0.txt", "README.md", "llama3.3.txt"]
    assert "LicenseRef-synthgen-llama3.3-outputs" in texts.pop("README.md")
    assert all("https://" in text and len(text) < 400 for text in texts.values())


def test_notice_names_teacher_licence_line_and_obligations() -> None:
    lines = notice_lines(REGISTRY, result(LLAMA))

    assert lines[1] == "teacher meta-llama/Llama-3.3-70B-Instruct on self-hosted: llama3.3"
    assert any(line.startswith("Llama 3.3 is licensed under") for line in lines)
    assert "Obligation: AUP:llama3.3" in lines


@pytest.mark.parametrize(
    ("parts", "card", "expression"),
    [
        ((LLAMA,), "llama3.3", "LicenseRef-synthgen-llama3.3-outputs"),
        ((QWEN3,), "other", "LicenseRef-synthgen-own"),
        ((served("Qwen/Qwen3-8B", seed="CC-BY-SA-4.0"),), "cc-by-sa-4.0", "CC-BY-SA-4.0"),
        (
            (served("Qwen/Qwen3-8B", seed="CC-BY-SA-4.0", relation="inspired"),),
            "other",
            "LicenseRef-synthgen-own",
        ),
        (
            (LLAMA, served("Qwen/Qwen3-8B", seed="CC-BY-4.0")),
            "other",
            "CC-BY-4.0 AND LicenseRef-synthgen-llama3.3-outputs",
        ),
        (
            (Part("t", "openai", "mistral-api", "mistral-small-latest"),),
            "other",
            "LicenseRef-synthgen-mistral-api-terms",
        ),
    ],
)
def test_card_claims_only_what_a_text_behind_the_rows_gives(
    parts: tuple[Part, ...], card: str, expression: str
) -> None:
    decided = result(*parts)

    assert card_license(REGISTRY, decided) == card
    assert licence_expression(REGISTRY, decided) == expression
