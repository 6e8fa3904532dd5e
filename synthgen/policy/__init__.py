"""Policy, default deny: may these teachers, on these routes, with these source texts, serve this use?

In: the packaged registry of dated rules, the parts of a run, the declared uses, `policy.lock.toml`. Out: decisions
with their citations and obligations, and the files that carry them. Nothing here opens a socket.
"""

from synthgen.policy.emit import card_license, licence_expression, licence_texts, notice_lines, policy_json
from synthgen.policy.evaluate import evaluate
from synthgen.policy.gate import GateResult, PartDecision, default_route, gate, refusal, vetted_hosts
from synthgen.policy.loading import RULES_DIR, load_registry, rule_folders
from synthgen.policy.model import (
    Ask,
    Citation,
    Decision,
    Obligation,
    Outcome,
    Override,
    Overrides,
    Part,
    PartRole,
)
from synthgen.policy.overrides import LOCK_NAME, load_lock
from synthgen.policy.registry import Registry
from synthgen.policy.resolve import resolve, same_identity
from synthgen.policy.uses import USES, parse_uses

__all__ = [
    "LOCK_NAME",
    "RULES_DIR",
    "USES",
    "Ask",
    "Citation",
    "Decision",
    "GateResult",
    "Obligation",
    "Outcome",
    "Override",
    "Overrides",
    "Part",
    "PartDecision",
    "PartRole",
    "Registry",
    "card_license",
    "default_route",
    "evaluate",
    "gate",
    "licence_expression",
    "licence_texts",
    "load_lock",
    "load_registry",
    "notice_lines",
    "parse_uses",
    "policy_json",
    "refusal",
    "resolve",
    "rule_folders",
    "same_identity",
    "vetted_hosts",
]
