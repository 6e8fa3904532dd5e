"""What a teacher thinks of each class, as a distribution: soft labels that need no tokenizer.

In: answers of a teacher to the same row, or the captured logprobs of one answer. Out: probabilities in the order of the
classes. Both work with hosted teachers, whatever tokenizer the student has.

Votes: the share of n answers that name each class; an honest estimate for any n, with a standard error of at most
0.5 / sqrt(n). Choices: the probability of each class read off the tokens of one answer, by walking along it: where an
alternative token leads to another class, its probability is that class's.
Rejected: the logprob of the answer's first token alone. Classes that begin alike (`billing_error`, `billing_refund`) would
share it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass

__all__ = ["Choice", "choices", "one_hot", "votes"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Choice:
    """`probabilities` of the classes add up to 1; `covered` is how much of the teacher's mass was seen to name one."""

    probabilities: Floats
    covered: float


def one_hot(label: str, classes: Sequence[str]) -> Floats:
    """All mass on one class.

    Raises:
        ValueError: no such class.
    """
    return votes([label], classes)


def votes(answers: Iterable[str], classes: Sequence[str]) -> Floats:
    """Shares of the classes among the answers, compared without case and surrounding space; other answers do not count.

    Raises:
        ValueError: no answer names a class.
    """
    counts = Counter(answer.strip().casefold() for answer in answers)
    named = np.array([counts[name.casefold()] for name in classes], dtype=np.float64)
    if not named.sum():
        raise ValueError("no answer names one of the classes")
    shares: Floats = named / named.sum()
    return shares


def choices(
    tokens: Sequence[str],
    top_tokens: Sequence[Sequence[str | None]],
    top_logprobs: Sequence[Sequence[float]],
    classes: Sequence[str],
    *,
    before: str = "",
) -> Choice:
    """Probabilities of the classes from one answer: its tokens, and the likeliest at each position.

    The class is expected after the first occurrence of `before` (`"category": "` in a JSON answer), and at the start of
    the answer where that is empty; what was written before it is taken as given. An alternative that could still become
    several classes, or none, is left out; `covered` says how much is left in.

    Raises:
        ValueError: the answer does not name a class there.
    """
    names = [name.casefold() for name in classes]
    at, written = _start(tokens, before)
    path, probabilities = 1.0, np.zeros(len(classes))
    for here in range(at, len(tokens)):
        following = 0.0
        spelled = written + tokens[here]
        for text, logprob in zip(top_tokens[here], top_logprobs[here], strict=True):
            if text is None:
                continue
            if text == tokens[here]:
                following += float(np.exp(logprob))
            elif (found := _only(written + text, names)) is not None:
                probabilities[found] += path * float(np.exp(logprob))
        path, written = path * following, spelled
        if (found := _only(written, names)) is not None:
            probabilities[found] += path
            return Choice(probabilities / probabilities.sum(), float(probabilities.sum()))
    raise ValueError("the answer does not name one of the classes where it was expected")


def _start(tokens: Sequence[str], before: str) -> tuple[int, str]:
    """The token the class begins in, and what that position already holds of it (nothing, as a rule)."""
    if not before:
        return 0, ""
    text = ""
    for at, token in enumerate(tokens):
        text += token
        found = text.find(before)
        if found >= 0:
            return at + 1, text[found + len(before) :]
    raise ValueError(f"the answer does not hold {before!r}")


def _only(written: str, names: Sequence[str]) -> int | None:
    """The one class that can follow from what is written, where exactly one can."""
    text = written.lstrip().casefold()
    if not text:
        return None
    possible = [at for at, name in enumerate(names) if name.startswith(text) or _names(text, name)]
    exact = [at for at in possible if _names(text, names[at])]
    if len(exact) > 1:  # one name is the beginning of another: the longer one is what was written
        exact = [max(exact, key=lambda at: len(names[at]))]
    if exact and len(possible) == 1:
        return exact[0]
    return (
        possible[0] if len(possible) == 1 else (exact[0] if exact and _ended(text, names[exact[0]]) else None)
    )


def _names(text: str, name: str) -> bool:
    return text == name or (text.startswith(name) and _ended(text, name))


def _ended(text: str, name: str) -> bool:
    """Whether something follows the name that ends a word."""
    rest = text[len(name) :]
    return bool(rest) and not (rest[0].isalnum() or rest[0] in "_-")
