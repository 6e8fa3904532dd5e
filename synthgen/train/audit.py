"""What will be trained on, looked at before the first step.

In: conversations, a chat format, the section `data`. Out: `Audited`: examples, and counts of what gave none. Guarantees:
nothing is left out without being counted; every turn ends with a supervised control token, even where the padding is that
same token.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation
from synthgen.train.examples import Example
from synthgen.train.masks import Refused, fitting, mask
from synthgen.train.template import ChatFormat

__all__ = ["Audited", "audit", "marked"]

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Audited:
    """`refused`: conversations or examples that are not trained on, by reason."""

    examples: Sequence[Example]
    refused: Mapping[str, int]


def audit(
    conversations: Iterable[Conversation], format: ChatFormat, data: DataConfig, *, context: int | None
) -> Audited:
    """Mask everything and count; `context` is what the model can read.

    Raises:
        UsageError: rows are unusable or too long and not to be dropped, or nothing is left.
    """
    made: list[Example] = []
    refused: list[Refused] = []
    for one in mask(conversations, format, data):
        if isinstance(one, Example):
            made.append(one)
        else:
            refused.append(one)
    if refused and (data.unusable == "error" or not made):
        lines = [f"{one.where or one.id}: {one.problem} ({one.reason})" for one in refused[:_NAMED]]
        more = [f"... and {len(refused) - _NAMED} more"] if len(refused) > _NAMED else []
        advice = "mend or remove them, or set `data.unusable: drop`"
        raise UsageError("\n".join([f"{len(refused)} rows cannot be trained on:", *lines, *more, advice]))
    counts = Counter(one.reason for one in refused)
    lengths = [length for length in (data.max_length, context) if length is not None]
    if lengths:
        made, long = fitting(made, min(lengths), drop=data.too_long == "drop")
        counts.update({"too_long": long} if long else {})
    for example in made:
        _check_ends(example, format)
    return Audited(made, dict(counts))


def _check_ends(example: Example, format: ChatFormat) -> None:
    """Targets end in a control token, whose label stands although it may be what pads."""
    ends = [span.end - 1 for span in example.spans]
    written = format.decode([example.input_ids[end : end + 1] for end in ends])
    if not ends or not all(format.control.search(text) for text in written):
        raise UsageError(f"row {example.id}: a turn is trained on whose end token is not; please report this")


def marked(example: Example, format: ChatFormat) -> str:
    """The text of an example; what is trained on stands between « and »."""
    edges = [0, *(edge for span in example.spans for edge in (span.start, span.end)), len(example)]
    texts = format.decode([example.input_ids[a:b] for a, b in pairwise(edges)])
    return "".join(f"«{text}»" if at % 2 else text for at, text in enumerate(texts))
