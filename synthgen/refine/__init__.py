"""The refining half: frames in, verdicts out, no teacher and no network.

`load_chain` and `run_chain` filter, `SeenTexts` finds duplicates, `repeats_of` copies of benchmark items, `parse_score` and `judge_verdicts` turn judge replies
into verdicts. All of it is a pure function of its input, in plan order.
"""

from synthgen.refine.chain import RESULT, Chain, ChainStep, load_chain, run_chain
from synthgen.refine.decontaminate import Reference, index_reference, repeats_of
from synthgen.refine.dedup import SeenTexts
from synthgen.refine.judge import judge_verdicts, parse_score
from synthgen.refine.judgements import expected_scores, parse_preference, parse_rubric
from synthgen.refine.overlap import repeats
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
    "index_reference",
    "judge_verdicts",
    "load_chain",
    "parse_preference",
    "parse_rubric",
    "parse_score",
    "repeats",
    "repeats_of",
    "run_chain",
    "view_of",
]
