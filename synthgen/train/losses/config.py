"""The section `loss` of a student's file."""

from typing import Literal

from synthgen.recipe.model import Strict

__all__ = ["LossConfig"]


class LossConfig(Strict):
    """What the student is trained on: `sft`, the labels alone."""

    kind: Literal["sft"] = "sft"
