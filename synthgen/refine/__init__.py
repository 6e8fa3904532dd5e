"""The refining half: frames in, verdicts out, no teacher and no network.

`load_chain` and `run_chain` filter, `SeenTexts` finds duplicates, `parse_score` and `judge_verdicts` turn judge replies
into verdicts. All of it is a pure function of its input, in plan order.
"""

from synthgen.refine.chain import RESULT, Chain, ChainStep, load_chain, run_chain
from synthgen.refine.dedup import SeenTexts
from synthgen.refine.judge import judge_verdicts, parse_score
from synthgen.refine.overlap import repeats
from synthgen.refine.verdict import VIEW, Verdicts, view_of

__all__ = [
    "RESULT",
    "VIEW",
    "Chain",
    "ChainStep",
    "SeenTexts",
    "Verdicts",
    "judge_verdicts",
    "load_chain",
    "parse_score",
    "repeats",
    "run_chain",
    "view_of",
]
