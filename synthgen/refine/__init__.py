"""The refining half: frames in, verdicts out, no teacher and no network.

`load_chain` and `run_chain` filter, `SeenTexts` finds duplicates, `repeats_of` copies of benchmark items, `parse_score` and `judge_verdicts` turn judge replies
into verdicts, `redact` takes private values out of texts. All of it is a pure function of its input, in plan order.
"""

from typing import TYPE_CHECKING

from synthgen.lazy import lazily

if TYPE_CHECKING:
    from synthgen.refine.chain import Chain, ChainStep, load_chain
    from synthgen.refine.decontaminate import repeats_of
    from synthgen.refine.dedup import SeenTexts
    from synthgen.refine.judge import judge_verdicts
    from synthgen.refine.judgements import expected_scores, parse_preference, parse_rubric
    from synthgen.refine.overlap import repeats
    from synthgen.refine.privacy import found_in, redact, redact_fields
    from synthgen.refine.reference import Reference, index_reference
    from synthgen.refine.running import RESULT, run_chain
    from synthgen.refine.score import parse_score
    from synthgen.refine.verdict import VIEW, Verdicts, view_of

__all__ = [
    "RESULT",
    "VIEW",
    "Chain",
    "ChainStep",
    "Reference",
    "SeenTexts",
    "Verdicts",
    "expected_scores",
    "found_in",
    "index_reference",
    "judge_verdicts",
    "load_chain",
    "parse_preference",
    "parse_rubric",
    "parse_score",
    "redact",
    "redact_fields",
    "repeats",
    "repeats_of",
    "run_chain",
    "view_of",
]

__getattr__ = lazily(
    __name__,
    {
        "chain": (
            "Chain",
            "ChainStep",
            "load_chain",
        ),
        "decontaminate": ("repeats_of",),
        "dedup": ("SeenTexts",),
        "judge": ("judge_verdicts",),
        "judgements": (
            "expected_scores",
            "parse_preference",
            "parse_rubric",
        ),
        "overlap": ("repeats",),
        "privacy": (
            "found_in",
            "redact",
            "redact_fields",
        ),
        "reference": (
            "Reference",
            "index_reference",
        ),
        "running": (
            "RESULT",
            "run_chain",
        ),
        "score": ("parse_score",),
        "verdict": (
            "VIEW",
            "Verdicts",
            "view_of",
        ),
    },
)
