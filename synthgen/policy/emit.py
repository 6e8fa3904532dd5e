"""What a decision leaves behind in a dataset: POLICY.json, its digest in every shard, LICENSES/, NOTICE, the licence.

In: the registry and a `GateResult`. Out: values; the dataset layer writes them. Guarantees: equal input, equal bytes;
licence files point to the texts in our own words and never reproduce them; the card never claims a licence that no
text behind the data gives, nor an id the hub does not know.
Rejected: a plain `mit` or `apache-2.0` because the teacher's weights carry it: that licence covers the weights.
"""

import hashlib
import re

from synthgen.policy.evaluate import seed_ids
from synthgen.policy.expressions import REF, all_of
from synthgen.policy.gate import GateResult, PartDecision
from synthgen.policy.model import Ask
from synthgen.policy.registry import Registry
from synthgen.types import JSONValue, canonical_json

__all__ = [
    "HUB_LICENSES",
    "card_license",
    "licence_expression",
    "licence_texts",
    "model_expression",
    "notice_lines",
    "policy_json",
    "policy_stamp",
]

POLICY_SCHEMA = "synthgen.policy/1"

# Ids the Hugging Face hub takes in a card, as far as our licences and usual seeds have one.
# Source: Hugging Face Hub documentation, "Licenses".
HUB_LICENSES = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bigscience-openrail-m",
        "bigcode-openrail-m",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "etalab-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "agpl-3.0",
        "gfdl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "lppl-1.3c",
        "ms-pl",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "openmdw-1.0",
        "openmdw-1.1",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "gemma",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "llama4",
    ]
)


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


def policy_stamp(
    registry: Registry, ask: Ask, result: GateResult, *, enforced: bool = True
) -> dict[str, str]:
    """Key-values for every shard: the decision in short, and its sha256.

    Without the day it was decided for, so that the same rows under the same decision stay the same bytes; readers who
    rewrite a shard lose them, and find their way by the column `policy_id`.
    """
    parts: list[JSONValue] = [
        {
            "policy_id": item.decision.policy_id,
            "model": item.part.hf or item.part.model,
            "route": item.part.route,
            "role": item.part.role,
            "upstream": list(item.part.upstream),
            "licences": list(item.decision.licences),
            "row_license": item.part.row_license,
            "seed_relation": item.part.seed_relation,
            "generation": item.decision.generation,
            "obligations": [str(obligation) for obligation in item.decision.obligations],
            "rules": [f"{c.rule} {c.as_of.isoformat()} {c.evidence}" for c in item.decision.citations],
        }
        for item in result.parts
    ]
    text = canonical_json(
        {
            "schema": POLICY_SCHEMA,
            "registry_version": registry.version,
            "uses": list(ask.uses),
            "decision": result.outcome,
            "licence": licence_expression(registry, result),
            "obligations": [str(obligation) for obligation in result.obligations],
            "overrides": [entry.as_json() for entry in result.overrides],
            "parts": parts,
            "enforced": enforced,
        }
    )
    return {"policy": text.decode(), "policy.sha256": hashlib.sha256(text).hexdigest()}


def licence_texts(registry: Registry, result: GateResult) -> dict[str, str]:
    """File name under `LICENSES/` -> its text, for every licence behind the parts, seeds included."""
    expression = licence_expression(registry, result)
    out = {}
    for name in sorted({name for item in result.parts for name in item.decision.licences}):
        licence = registry.licences[name]
        out[f"{name}.txt"] = (
            f"{licence.name}\n\nThis file points to the licence; it does not reproduce it.\nText: {licence.url}\n"
        )
    for seed in sorted(_seeds(result)):
        symbol = all_of([seed])
        known = not symbol.startswith(REF) and " " not in symbol
        where = f"https://spdx.org/licenses/{symbol}.html" if known else "see the source of the rows"
        out.setdefault(
            f"{_file_name(seed)}.txt",
            f"{seed} (licence of source texts)\n\nThis file points to the licence; it does not reproduce it.\n"
            f"Text: {where}\n",
        )
    return {"README.md": _licences_readme(registry, result, expression), **out}


def _file_name(seed: str) -> str:
    """A user's word as a file name that stays in its folder."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", seed).strip(".-") or "seed"


def _licences_readme(registry: Registry, result: GateResult, expression: str) -> str:
    """The expression, and what our own references in it mean."""
    refs = [
        f"- `{REF}{name}-outputs`: what the {registry.licences[name].name} says of a model's outputs "
        f"({registry.licences[name].url})"
        for name in sorted(_reaching(registry, result))
    ]
    refs += [
        f"- `{REF}{route}-terms`: the terms of the access route {route}; POLICY.json cites them"
        for route in sorted(_contracts(registry, result))
    ]
    if expression == f"{REF}own":
        refs.append(
            f"- `{expression}`: no text behind the rows gives them a licence; whoever publishes them chooses one"
        )
    told = "\n".join(refs)
    return (
        f"What binds the rows of this dataset: {expression}\n\n"
        + (f"{told}\n\n" if told else "")
        + "The other files here point to each text.\n"
    )


def notice_lines(registry: Registry, result: GateResult) -> list[str]:
    """Lines of NOTICE: who made the answers, under which licence, what the licences want shown, what is owed."""
    lines = ["The text of this dataset was written by language models."]
    for item in result.parts:
        part = item.part
        terms = ", ".join(item.decision.licences) or f"terms of {part.route}"
        lines.append(f"{part.role} {part.hf or part.model} on {part.route}: {terms}")
    names = sorted({name for item in result.parts for name in item.decision.licences})
    lines += [registry.licences[name].notice for name in names if registry.licences[name].notice]
    lines += [o.arg for o in result.obligations if o.id in ("DISPLAY", "DISPLAY?")]
    lines += [f"Source texts: {name}" for name in sorted(_seeds(result))]
    lines += [f"Obligation: {obligation}" for obligation in result.obligations]
    return list(dict.fromkeys(lines))


def licence_expression(registry: Registry, result: GateResult) -> str:
    """SPDX expression of what binds the rows; a LicenseRef for whatever is no licence of the rows themselves."""
    terms = {f"{REF}{name}-outputs" for name in _reaching(registry, result)}
    terms |= {f"{REF}{route}-terms" for route in _contracts(registry, result)}
    return all_of(terms | _seeds(result)) or f"{REF}own"


def model_expression(item: PartDecision) -> str | None:
    """SPDX expression of the licences of a part's weights; None for a model that is only a service."""
    return all_of(item.decision.licences) or None


def card_license(registry: Registry, result: GateResult) -> str:
    """The Hugging Face id if exactly one licence the hub knows binds the rows, else `other` (see LICENSES/)."""
    if _contracts(registry, result):
        return "other"
    ids = {registry.licences[name].card for name in _reaching(registry, result)}
    ids |= {_hub_id(all_of([seed])) for seed in _seeds(result)}
    only = ids.pop() if len(ids) == 1 else "other"
    return only if only in HUB_LICENSES else "other"


def _hub_id(spdx: str) -> str:
    """The hub writes SPDX ids in lower case, and does not tell later versions of a copyleft licence apart."""
    folded = re.sub(r"-(only|or-later)$", "", spdx).lower()
    return {"pddl-1.0": "pddl", "odc-by-1.0": "odc-by", "odbl-1.0": "odbl"}.get(folded, folded)


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
