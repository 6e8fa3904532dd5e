"""What a decision leaves behind in a dataset: POLICY.json, LICENSES/, NOTICE, the card's licence.

In: the registry and a `GateResult`. Out: values; the dataset layer writes them. Guarantees: equal input, equal bytes;
licence files point to the texts in our own words and never reproduce them; the card never claims a licence that no
text behind the data gives.
Rejected: a plain `mit` or `apache-2.0` because the teacher's weights carry it: that licence covers the weights.
"""

from synthgen.policy.evaluate import seed_ids
from synthgen.policy.gate import GateResult, PartDecision
from synthgen.policy.model import Ask
from synthgen.policy.registry import Registry
from synthgen.types import JSONValue

__all__ = ["card_license", "licence_expression", "licence_texts", "notice_lines", "policy_json"]

POLICY_SCHEMA = "synthgen.policy/1"

# Seed licences whose Hugging Face id is not simply the SPDX id in lower case.
_CARD_IDS = {
    "GPL-3.0-only": "gpl-3.0",
    "GPL-3.0-or-later": "gpl-3.0",
    "PDDL-1.0": "pddl",
    "ODC-By-1.0": "odc-by",
}


def policy_json(registry: Registry, ask: Ask, result: GateResult, *, enforced: bool = True) -> JSONValue:
    """The content of POLICY.json; `enforced` is false only for report-only commands."""
    return {
        "schema": POLICY_SCHEMA,
        "registry_version": registry.version,
        "evaluated": ask.today.isoformat(),
        "uses": list(ask.uses),
        "actor": ask.actor.model_dump(mode="json"),
        "student_base": ask.student_base,
        "decision": result.outcome,
        "obligations": [str(obligation) for obligation in result.obligations],
        "parts": [_part_json(item) for item in result.parts],
        "conflicts": [citation.as_json() for citation in result.conflicts],
        "overrides": [entry.as_json() for entry in result.overrides],
        "questions": list(result.questions),
        "warnings": list(result.warnings),
        "licence": licence_expression(registry, result),
        "enforced": enforced,
    }


def _part_json(item: PartDecision) -> JSONValue:
    part, decision = item.part, item.decision
    return {
        "policy_id": decision.policy_id,
        "decision": decision.outcome,
        "teacher": part.alias,
        "provider": part.provider,
        "route": part.route,
        "model": part.model,
        "hf": part.hf,
        "role": part.role,
        "upstream": list(part.upstream),
        "row_license": part.row_license,
        "seed_relation": part.seed_relation,
        "licences": list(decision.licences),
        "generation": decision.generation,
        "obligations": [str(obligation) for obligation in decision.obligations],
        "rules": [citation.as_json() for citation in decision.citations],
    }


def licence_texts(registry: Registry, result: GateResult) -> dict[str, str]:
    """File name under `LICENSES/` -> its text, for every licence behind the parts, seeds included."""
    expression = licence_expression(registry, result)
    out = {
        "README.md": f"What binds the rows of this dataset: {expression}\n\nThe other files here point to each text.\n"
    }
    for name in sorted({name for item in result.parts for name in item.decision.licences}):
        licence = registry.licences[name]
        out[f"{name}.txt"] = (
            f"{licence.name}\n\nThis file points to the licence; it does not reproduce it.\nText: {licence.url}\n"
        )
    for name in sorted(_seeds(result)):
        out.setdefault(
            f"{name}.txt",
            f"{name} (licence of source texts)\n\nThis file points to the licence; it does not reproduce it.\n"
            f"Text: https://spdx.org/licenses/{name}.html\n",
        )
    return out


def notice_lines(registry: Registry, result: GateResult) -> list[str]:
    """Lines of NOTICE: who made the answers, under which licence, what the licences want shown, what is owed."""
    lines = []
    for item in result.parts:
        part = item.part
        terms = ", ".join(item.decision.licences) or f"terms of {part.route}"
        lines.append(f"{part.role} {part.hf or part.model} on {part.route}: {terms}")
    names = sorted({name for item in result.parts for name in item.decision.licences})
    lines += [registry.licences[name].notice for name in names if registry.licences[name].notice]
    lines += [f"Source texts: {name}" for name in sorted(_seeds(result))]
    lines += [f"Obligation: {obligation}" for obligation in result.obligations]
    return list(dict.fromkeys(lines))


def licence_expression(registry: Registry, result: GateResult) -> str:
    """SPDX expression of what binds the rows; a LicenseRef for whatever is no licence of the rows themselves."""
    terms = sorted(
        {f"LicenseRef-synthgen-{name}-outputs" for name in _reaching(registry, result)}
        | {f"LicenseRef-synthgen-{route}-terms" for route in _contracts(registry, result)}
        | _seeds(result)
    )
    return " AND ".join(terms) or "LicenseRef-synthgen-own"


def card_license(registry: Registry, result: GateResult) -> str:
    """The Hugging Face id if exactly one known licence binds the rows, else `other` (see LICENSES/)."""
    if _contracts(registry, result):
        return "other"
    ids = {registry.licences[name].card for name in _reaching(registry, result)}
    ids |= {_CARD_IDS.get(seed, seed.lower()) for seed in _seeds(result)}
    return ids.pop() if len(ids) == 1 else "other"


def _seeds(result: GateResult) -> set[str]:
    """SPDX ids of source texts that reach the rows."""
    return {
        seed
        for item in result.parts
        for seed in seed_ids(item.part.row_license)
        if seed != "own" and item.part.seed_relation in ("verbatim", "adapted")
    }


def _reaching(registry: Registry, result: GateResult) -> set[str]:
    names = {name for item in result.parts for name in item.decision.licences}
    return {name for name in names if registry.licences[name].reaches_outputs}


def _contracts(registry: Registry, result: GateResult) -> set[str]:
    """Routes whose own terms bind the rows: those that came with an obligation or an override."""
    return {
        citation.subject
        for item in result.parts
        for citation in item.decision.citations
        if citation.layer == "route" and citation.decision != "allow"
    }
