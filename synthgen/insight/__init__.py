"""What a set of rows is like, in numbers: nothing here keeps or drops a row.

coverage   what real requests ask for and the set lacks
diversity  how varied its texts are
drops      losses by teacher and filter; empty combinations of attributes
bias       gender and professions, prompts against answers
languages  which languages its texts are in
"""

from synthgen.insight.bias import WordLists, gender_bias, read_word_lists
from synthgen.insight.coverage import Coverage, Seed, cover
from synthgen.insight.diversity import diversity
from synthgen.insight.drops import cells, drop_table
from synthgen.insight.languages import languages, spoken
from synthgen.insight.words import count_words, pick, wilson

__all__ = [
    "Coverage",
    "Seed",
    "WordLists",
    "cells",
    "count_words",
    "cover",
    "diversity",
    "drop_table",
    "gender_bias",
    "languages",
    "pick",
    "read_word_lists",
    "spoken",
    "wilson",
]
