"""The section `loss` of a student's file."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synthgen.recipe.model import Strict

__all__ = ["FeatureConfig", "LogitConfig", "LossConfig", "RelationConfig", "TopKConfig"]

Weight = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class TopKConfig(Strict):
    """Stored teacher logprobs as targets: the `k` likeliest tokens of each position, and a bucket for the rest.

    `weight` is their share; the labels have what is left, and all of a position without stored tokens. `logprobs`: folder
    of sidecar files, the run's own where it is not given. `tokenizer`: hub id or folder of the teacher's tokenizer, where
    the files do not name it. `unaligned`: rows whose captured tokens are not the student's are dropped, or keep their
    labels; they are counted either way.
    """

    weight: Share = 0.5
    k: Annotated[int, Field(ge=1, le=1024)] = 20
    logprobs: str | None = None
    tokenizer: str | None = None
    unaligned: Literal["drop", "labels"] = "drop"
    temperature: float = 1.0

    @model_validator(mode="after")
    def _no_temperature(self) -> Self:
        if self.temperature != 1.0:
            raise ValueError(
                "temperature is not sound here: how the mass of tokens that were not stored would change is unknown; "
                "leave it out, or use `loss.logits` with a local `loss.teacher`"
            )
        return self


class LogitConfig(Strict):
    """The whole distribution of `loss.teacher`, computed beside the student. `beta` is for `jsd`: its teacher's share."""

    weight: Share = 0.5
    divergence: Literal["forward", "reverse", "jsd"] = "forward"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5


class FeatureConfig(Strict):
    """Hidden states of `layers` evenly spread layers, as those of `loss.teacher`; added to the rest with `weight`."""

    weight: Weight = 1.0
    layers: Annotated[int, Field(ge=1)] = 1


class RelationConfig(Strict):
    """Which rows of a batch are alike, as `loss.teacher` sees it; added to the rest with `weight`."""

    weight: Weight = 1.0


class LossConfig(Strict):
    """What the student is trained on: the labels, and whatever is named here.

    `teacher` is a checkpoint that runs beside the student. `positions` of them are computed at once, which changes
    memory and nothing else.
    """

    kd: TopKConfig | None = None
    logits: LogitConfig | None = None
    features: FeatureConfig | None = None
    relations: RelationConfig | None = None
    teacher: str | None = None
    positions: Annotated[int, Field(ge=1)] = 1024

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher has to run beside the student."""
        return any(part is not None for part in (self.logits, self.features, self.relations))

    @property
    def needs_hidden(self) -> bool:
        """Whether hidden states are compared."""
        return self.features is not None or self.relations is not None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.needs_teacher and self.teacher is None:
            raise ValueError(
                "logits, features and relations need `teacher`: a checkpoint, local or on the hub"
            )
        if self.teacher is not None and not self.needs_teacher:
            raise ValueError("`teacher` is named but nothing asks it: add logits, features or relations")
        shares = sum(part.weight for part in (self.kd, self.logits) if part is not None)
        if shares > 1:
            raise ValueError(f"kd.weight and logits.weight add up to {shares:g}, more than 1")
        return self
