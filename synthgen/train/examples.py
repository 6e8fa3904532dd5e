"""One training sequence, and a batch of them.

In: token ids with the spans that are trained on. Out: `Example`, which everything between the mask builder and the
engine hands on. Guarantees: labels cannot disagree with the ids, because they are derived from the spans; the first
token is never a target, since nothing predicts it; soft labels have one row for each target, in order.

Axes: T tokens of a sequence, S its targets (supervised tokens), K alternatives of a soft label.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass

__all__ = ["IGNORED", "NO_TOKEN", "Example", "Part", "SoftLabels", "Span"]

IGNORED = -100  # what every loss of torch and TRL skips
NO_TOKEN = -1  # fills a soft label with fewer alternatives than its neighbours

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Part = Literal["answer", "rationale"]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start` to `end` (exclusive) are targets: what the student would write as message `message`.

    The last one is the token that ends the turn. `message` counts in the conversation as it was read.
    """

    start: int
    end: int
    message: int

    def __post_init__(self) -> None:
        if not 1 <= self.start < self.end:
            raise ValueError(f"a span from {self.start} to {self.end} has no target, or one nothing predicts")


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """A teacher's distribution for each target of an example, in order: row s belongs to the s-th target.

    `ids_SK`: token ids of the student's tokenizer, most likely first, `NO_TOKEN` where there are fewer than K or none.
    `logprobs_SK`: natural logarithms, ignored where the id is `NO_TOKEN`; what they leave of 1 is the tail.
    """

    ids_SK: Ints
    logprobs_SK: Floats

    def __post_init__(self) -> None:
        if self.ids_SK.shape != self.logprobs_SK.shape or self.ids_SK.ndim != 2:
            raise ValueError("soft labels: ids and logprobs differ in shape, or are no matrices")


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence the student is trained on. `id` is the record it comes from, `row` that record's root row.

    One record can give several: where a template shows an earlier turn differently once later ones follow, and where
    rationale and answer are separate targets (`part`). `weight` multiplies the loss of its targets.
    """

    input_ids: Ints
    spans: tuple[Span, ...]
    id: str = ""
    row: str = ""
    part: Part = "answer"
    weight: float = 1.0
    soft: SoftLabels | None = None

    def __post_init__(self) -> None:
        end = 0
        for span in self.spans:
            if span.start < end or span.end > len(self.input_ids):
                raise ValueError("spans overlap, are out of order, or reach beyond the sequence")
            end = span.end
        if self.soft is not None and len(self.soft.ids_SK) != self.targets:
            raise ValueError(f"{len(self.soft.ids_SK)} soft labels for {self.targets} targets")

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def targets(self) -> int:
        """How many tokens are trained on."""
        return sum(span.end - span.start for span in self.spans)

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """Of each token, whether it is trained on."""
        mask = np.zeros(len(self.input_ids), dtype=bool)
        for span in self.spans:
            mask[span.start : span.end] = True
        return mask

    @property
    def labels(self) -> Ints:
        """The ids of the targets in their places, `IGNORED` elsewhere. Not shifted: models of transformers shift."""
        return np.where(self.is_target, self.input_ids, IGNORED).astype(np.int32)

    def with_soft(self, soft: SoftLabels) -> "Example":
        """The same sequence with a teacher's distributions."""
        return replace(self, soft=soft)
