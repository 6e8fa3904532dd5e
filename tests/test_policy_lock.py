"""`policy.lock.toml`: what is read, and that nothing in it is silently ignored."""

from datetime import date
from pathlib import Path

import pytest

from synthgen.errors import RecipeError
from synthgen.policy import Ask, Overrides, Part, evaluate, load_lock, load_registry

TODAY = date(2026, 11, 21)
REGISTRY = load_registry()
USE = "train-task-internal:classifier"
CLAUDE = Part("claude", "anthropic", "anthropic-api", "claude-sonnet-4-6")

ATTESTATION = """\
# decided in the meeting of 2026-11-20

[[attestation]]
rules = ["anthropic.commercial.D4", "anthropic.aup.training"]
use = "train-task-internal:classifier"
justification = "Routes our own tickets inside the company; competes with nothing"
who = "A. Person"
date = 2026-11-20
expires = 2027-11-19
"""
WAIVER = """
[[waiver]]
rules = ["anthropic.commercial.D4c"]
use = "publish-dataset"
justification = "Written approval of the vendor, filed with legal in October"
who = "A. Person"
date = 2026-11-20
expires = 2027-06-30
contract_ref = "CONTRACT-123"
document_sha256 = "%s"
""" % ("ab" * 32)


def lock(folder: Path, text: str, *uses: str) -> Overrides:
    path = folder / "policy.lock.toml"
    path.write_text(text, encoding="utf-8")
    return load_lock(path, TODAY, registry=REGISTRY, uses=uses or (USE, "publish-dataset"))


def test_no_file_is_no_override(tmp_path: Path) -> None:
    found = load_lock(tmp_path / "policy.lock.toml", TODAY, registry=REGISTRY, uses=(USE,))

    assert found == Overrides()


def test_attestation_from_the_file_lets_the_run_go_on(tmp_path: Path) -> None:
    overrides = lock(tmp_path, ATTESTATION)

    decision = evaluate(REGISTRY, CLAUDE, Ask((USE,), today=TODAY, overrides=overrides))

    assert decision.outcome == "allow_with_obligations"
    assert decision.overrides == overrides.entries


def test_waiver_from_the_file_lifts_a_denial(tmp_path: Path) -> None:
    overrides = lock(tmp_path, ATTESTATION + WAIVER)

    decision = evaluate(REGISTRY, CLAUDE, Ask((USE, "publish-dataset"), today=TODAY, overrides=overrides))

    assert decision.outcome == "allow_with_obligations"
    assert "WAIVER:CONTRACT-123" in {str(obligation) for obligation in decision.obligations}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("expires = 2027-11-19", "expires = 2026-11-20", "expired on 2026-11-20"),
        ("expires = 2027-11-19", "expires = 2027-11-30", "within 12 months"),
        ("date = 2026-11-20", "date = 2026-11-22", "lies in the future"),
        ('"anthropic.aup.training"', '"anthropic.*"', "wildcards are not accepted"),
        (
            "anthropic.aup.training",
            "anthropic.aup.trainin",
            "unknown rule.*did you mean 'anthropic.aup.training'",
        ),
        ("anthropic.aup.training", "default.unknown-model", "add subject"),
        ("internal:classifier", "internal:clasifier", "unknown use.*did you mean"),
        ("train-task-internal:classifier", "train-general", "is not declared in the recipe"),
        (
            "Routes our own tickets inside the company; competes with nothing",
            "fine",
            "justification: .*at least 40",
        ),
        ('who = "A. Person"\n', "", "who: Field required"),
        ('who = "A. Person"', 'who = "A. Person"\nforce = true', "force: Extra inputs"),
        ("[[attestation]]", "[[attest]]", "unknown key 'attest'"),
        ("[[attestation]]", "[[attestation]", ":1: cannot be read"),
        ("[[attestation]]", "[[waiver]]", "contract_ref: Field required"),
    ],
)
def test_wrong_entry_is_an_error(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in ATTESTATION

    with pytest.raises(RecipeError, match=message):
        lock(tmp_path, ATTESTATION.replace(old, new))


def test_error_names_file_line_and_entry(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        lock(tmp_path, ATTESTATION.replace("2027-11-19", "2026-11-20"))

    assert str(caught.value).startswith(f"{tmp_path}/policy.lock.toml:3: attestation[0]: expired on")


def test_document_digest_must_be_a_sha256(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="document_sha256"):
        lock(tmp_path, WAIVER.replace("ab" * 32, "abc"))
