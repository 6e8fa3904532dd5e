"""What a set of rows is like, in numbers: nothing here keeps or drops a row.

coverage   what real requests ask for and the set lacks
diversity  how varied its texts are
drops      losses by teacher and filter; empty combinations of attributes
bias       gender and professions, prompts against answers
swaps      the same prompts about the other gender
counterfactual  what a teacher answered to both
languages  which languages its texts are in
"""

from synthgen.insight.bias import WordLists, gender_bias, read_word_lists
from synthgen.insight.counterfactual import Answers, Pair, compare_pairs
from synthgen.insight.coverage import Coverage, Seed, cover
from synthgen.insight.diversity import diversity
from synthgen.insight.drops import cells, drop_table
from synthgen.insight.languages import languages, spoken
from synthgen.insight.swaps import Swap, swap
from synthgen.insight.words import count_words, pick, wilson

__all__ = [
    "Answers",
    "Coverage",
    "Pair",
    "Seed",
    "Swap",
    "WordLists",
    "cells",
    "compare_pairs",
    "count_words",
    "cover",
    "diversity",
    "drop_table",
    "gender_bias",
    "languages",
    "pick",
    "read_word_lists",
    "spoken",
    "swap",
    "wilson",
]
