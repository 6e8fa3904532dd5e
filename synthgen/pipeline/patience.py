"""Timeouts that a recipe writes down and its answers may not keep.

In: a resolved recipe. Out: one line for each teacher whose `timeout_s` is over before a slow server has written
`max_tokens`: such an answer is given up, perhaps billed, and asked again.
"""

from synthgen.asking.providers import SLOW_TOKENS_A_S, RemoteTeacherConfig
from synthgen.pipeline.resolve import Resolved

__all__ = ["short_timeouts"]


def short_timeouts(resolved: Resolved) -> tuple[str, ...]:
    """In the order of the recipe's teachers."""
    said = []
    for alias, spec in resolved.specs.items():
        asked = [step.sampling[alias].max_tokens for step in resolved.tree.steps if alias in step.sampling]
        most = max((tokens for tokens in asked if tokens), default=0)
        config = spec.config
        if not isinstance(config, RemoteTeacherConfig) or config.timeout_s is None:
            continue
        if most > config.timeout_s * SLOW_TOKENS_A_S:
            said.append(
                f"teacher {alias}: an answer of max_tokens ({most}) keeps timeout_s ({config.timeout_s:g}) only at "
                f"{most / config.timeout_s:.0f} tokens/s or more; later ones are given up and asked again"
            )
    return tuple(said)
