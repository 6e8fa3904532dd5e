"""Does a text repeat a run of words of another? The check before "only inspired by" is believed.

In: two texts. Out: whether they share `RUN` consecutive tokens, or all of a shorter source. Guarantee: pure, the same
tokens as in near-duplicate search. Rejected: a share of common n-grams (one copied paragraph in a long answer is still
copied, and a share would thin it out).
"""

import numpy as np

from synthgen.refine.shingles import ngrams, tokenise

__all__ = ["LEAST", "RUN", "repeats"]

# Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C: texts that share 13 words are taken for
# copies; for shorter sources the whole of it counts, down to 8 words.
RUN = 13
LEAST = 8


def repeats(text: str, source: str) -> bool:
    """Whether `text` repeats 13 consecutive words of `source`, or all of a source of 8 to 12 words.

    Case and punctuation do not count. A source of fewer than 8 words is never repeated: that is a title, not a text.
    """
    tokens = tokenise([text, source])
    run = min(RUN, int((tokens.text_T == 1).sum()))
    if run < LEAST:
        return False
    grams = ngrams(tokens, run)
    ours, theirs = (grams.hash_G[grams.text_G == index] for index in (0, 1))
    return bool(np.isin(ours, theirs).any())
