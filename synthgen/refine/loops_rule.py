"""What counts as said again: the numbers that both passes of `synthgen.refine.loops` share."""

__all__ = ["ENDS", "KEY_SHIFT", "LINE_BYTES", "LONG", "SHORT"]

LONG, SHORT = 8, 4  # words per n-gram
# Lines shorter than this, in UTF-8 bytes, repeat in every poem, dialogue and data listing.
LINE_BYTES = 15
ENDS = "\n.!?。！？।؟"  # of Chinese, Hindi and Arabic sentences too
# Of a text of 10 000 words two n-grams share these bits of their hashes once in 20 000 texts.
KEY_SHIFT = 24
