"""Policy, default deny: may these teachers, on these routes, with these source texts, serve this use?

In: the packaged registry of dated rules, the parts of a run, the declared uses, `policy.lock.toml`. Out: decisions
with their citations and obligations, and the files that carry them. Nothing here opens a socket.
"""

from synthgen.policy.downstream import UseAnswer, downstream
from synthgen.policy.emit import (
    card_license,
    licence_expression,
    licence_texts,
    model_expression,
    notice_lines,
    policy_json,
    policy_stamp,
)
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
from synthgen.policy.obligations import check_student, obligations_md
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
    "UseAnswer",
    "card_license",
    "check_student",
    "default_route",
    "downstream",
    "evaluate",
    "gate",
    "licence_expression",
    "licence_texts",
    "load_lock",
    "load_registry",
    "model_expression",
    "notice_lines",
    "obligations_md",
    "parse_uses",
    "policy_json",
    "policy_stamp",
    "refusal",
    "resolve",
    "rule_folders",
    "same_identity",
    "vetted_hosts",
]
