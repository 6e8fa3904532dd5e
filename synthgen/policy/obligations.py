"""What is owed, in words: each obligation, who sees to it, and how; and the check of a student's name.

In: obligations of a decision. Out: `OBLIGATIONS.md`, errors. Guarantees: every obligation the rules know has a line
here; what a tool can do is done or checked (`by synthgen`, `checked`), the rest is said to be `yours`.
"""

from collections.abc import Iterable
from typing import Literal

from synthgen.dataclasses import dataclass
from synthgen.errors import PolicyError
from synthgen.policy.model import Obligation

__all__ = ["Duty", "check_student", "duties", "obligations_md"]

By = Literal["by synthgen", "checked", "yours"]

_PREFIX = "NAME-PREFIX"
_BRAND = "BRAND-LIMIT"

# id -> who sees to it, what is owed (`{}` is the argument), and how it is met.
_MEANING: dict[str, tuple[By, str, str]] = {
    "NAME-PREFIX": (
        "checked",
        "a model trained on these rows has a name that begins with `{}` if it is distributed",
        "`check_student` refuses any other name",
    ),
    "DISPLAY": (
        "by synthgen",
        "`{}` is shown with a model or product made from the rows",
        "the line is in NOTICE",
    ),
    "DISPLAY?": (
        "by synthgen",
        "`{}` is shown with a model made from the rows; whether the text asks for it here is uncertain",
        "the line is in NOTICE",
    ),
    "DISPLAY-IF": ("yours", "`{}` is shown in products above the size the licence names", "count your users"),
    "FLOWDOWN": (
        "yours",
        "{} bind whoever gets a model made from the rows",
        "put them into the model's licence",
    ),
    "PROHIBITED-USES": ("yours", "the uses that {} prohibits stay prohibited", "put them into your terms"),
    "AUP": ("yours", "the acceptable use policy of {} is kept", "LICENSES/ leads to it"),
    "LIC-COPY": (
        "yours",
        "a copy of the licence {} goes along with the model",
        "LICENSES/ leads to its text",
    ),
    "NOTICE": ("by synthgen", "the notice of {} goes along", "NOTICE has it"),
    "ATTR-NOTICE": (
        "by synthgen",
        "notices and attribution of the model's licence go along",
        "NOTICE has them",
    ),
    "NC-ONLY": ("checked", "no commercial use ({})", "the use `commercial` is denied on these rows"),
    "NO-DISTRIBUTE": (
        "checked",
        "neither rows nor models made from them leave the organisation",
        "every use that publishes is denied on these rows; keep the folder private",
    ),
    "MAU-LIMIT": ("yours", "no more monthly users than {} without a licence of its own", "count your users"),
    "NOT-COMPETE": ("yours", "nothing that competes with {} is built", "judge the product"),
    "BRAND-LIMIT": (
        "checked",
        "the name {} is used within its owner's limits, and not for a model of yours",
        "`check_student` refuses a name that contains it",
    ),
    "NO-REVERSE-ENGINEERING": (
        "yours",
        "the rows do not serve to reconstruct a model of {}",
        "mind what you train",
    ),
    "SHARE-ALIKE": ("yours", "what is published from the rows is published under {}", "choose that licence"),
    "ROW-LICENSE": ("by synthgen", "each row says that its source is under {}", "the column `row_license`"),
    "KEEP-GPL-NOTICE": ("yours", "code from {} keeps its notices", "leave them in the text"),
    "SEED-ATTRIBUTION": ("by synthgen", "the sources under {} are named", "NOTICE, and the column `source`"),
    "ROUTE-PIN": ("by synthgen", "requests through {} reach vetted hosts alone", "pinned in every request"),
    "STRIP-JUDGE-COLUMNS": (
        "checked",
        "what the judge wrote does not leave with the rows",
        "`ship_score: false`",
    ),
    "QUARANTINE-ROWS": ("by synthgen", "rows of a model that was not asked for are set aside", "quarantine/"),
    "DISCLOSE-AI": (
        "by synthgen",
        "it is said that a model wrote the text",
        "the card says so; its tag is `synthetic`",
    ),
    "INPUTS-TRAINED-ON": ("yours", "{} may train on what is sent", "send nothing confidential"),
    "PREVIEW-NO-PRODUCTION": (
        "yours",
        "a preview of {} is not for production",
        "keep the rows out of products",
    ),
    "WAIVER": ("by synthgen", "the contract `{}` permits it", "the entry is copied into POLICY.json"),
    "ATTESTATION": (
        "by synthgen",
        "a person answered for the rule `{}`",
        "the entry is copied into POLICY.json",
    ),
}


@dataclass(frozen=True, slots=True)
class Duty:
    """One obligation in words."""

    obligation: Obligation
    by: By
    what: str
    how: str


def duties(obligations: Iterable[Obligation]) -> list[Duty]:
    """Every obligation in words, what is left to people first."""
    order: tuple[By, ...] = ("yours", "checked", "by synthgen")
    found = [_duty(obligation) for obligation in obligations]
    return sorted(found, key=lambda duty: (order.index(duty.by), duty.obligation))


def _duty(obligation: Obligation) -> Duty:
    by, what, how = _MEANING[obligation.id]
    return Duty(obligation, by, what.format(obligation.arg or "its owner"), how)


def obligations_md(obligations: Iterable[Obligation], uses: Iterable[str]) -> str:
    """`OBLIGATIONS.md`, for the declared uses."""
    lines = [
        "# Obligations",
        "",
        f"What is owed when these rows serve {', '.join(uses)}. Other uses may owe more: "
        "`synthgen policy check FOLDER --use USE`. Engineering evidence, not legal advice.",
        "",
    ]
    found = duties(obligations)
    if not found:
        return "\n".join([*lines, "None.", ""])
    lines += ["| obligation | who | what | how |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {_cell(str(duty.obligation))} | {duty.by} | {_cell(duty.what)} | {_cell(duty.how)} |"
        for duty in found
    ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def check_student(name: str, obligations: Iterable[Obligation]) -> None:
    """Refuse a student's name that breaks a duty; for a trainer to call before it saves.

    `name` may have an owner in front (`org/name`): what counts is the name itself, in the case it is written in.
    `obligations` are those of the decision on the rows it was trained on, for the uses the weights are for.

    Raises:
        PolicyError: the name does not begin as it must, or contains a name that must not be used.
    """
    own = name.rstrip("/").rpartition("/")[2]
    problems = []
    for obligation in sorted(set(obligations)):
        if obligation.id == _PREFIX and not own.startswith(obligation.arg):
            problems.append(f"must begin with {obligation.arg!r} ({obligation})")
        if obligation.id == _BRAND and obligation.arg and obligation.arg.lower() in own.lower():
            problems.append(f"must not contain {obligation.arg!r} ({obligation})")
    if problems:
        raise PolicyError(f"student name {name!r}: {'; '.join(problems)}; choose another name")
