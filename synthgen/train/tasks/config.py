"""The files of students that do not write: `task: classify`, `embed`, `on_policy`; and of chains."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synthgen.recipe.model import Strict
from synthgen.train.config import Share, StartConfig
from synthgen.train.on_policy import OnPolicyConfig

__all__ = ["ClassifyConfig", "EmbedConfig", "LabelConfig", "OnPolicyStudent", "TextConfig", "TrainingConfig"]


class TextConfig(Strict):
    """What the student reads of a conversation: the `last` question, or `all` messages before the answer.

    `after`: only what follows the first occurrence of these words, so that a teacher's instructions stay behind.
    """

    read: Literal["last", "all"] = "last"
    after: str | None = None


class TrainingConfig(Strict):
    """Of an encoder. Texts of more than `max_length` tokens are an error: nothing is cut."""

    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=2)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    max_length: Annotated[int, Field(ge=1)] = 512


class LabelConfig(Strict):
    """Where distributions over the classes come from.

    `votes`: all answers to the same text, duplicates that the run removed among them. `choices`: the captured logprobs of
    one answer; `tokenizer` (hub id or folder) spells their ids where only ids were captured, `before` is what the answer
    has in front of the class, and answers of which less than `least` of the mass was seen to name a class are dropped.
    `field`: the answer is a JSON object, and this key of it names the class.
    """

    source: Literal["votes", "choices"] = "votes"
    field: str | None = None
    before: str = ""
    tokenizer: str | None = None
    least: Share = 0.5

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.source == "choices" and self.field is not None:
            raise ValueError(
                "field is for votes; of choices, `before` says where in the answer the class begins"
            )
        if self.source == "votes" and (self.before or self.tokenizer is not None):
            raise ValueError(
                "before and tokenizer are for choices; of votes, `field` says where the class is"
            )
        return self


class ClassifyConfig(StartConfig):
    """A classifier. Its temperature is fitted on `validation_share` of the source rows."""

    task: Literal["classify"]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    labels: LabelConfig = LabelConfig()
    text: TextConfig = TextConfig()
    training: TrainingConfig = TrainingConfig()
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({name.strip().casefold() for name in self.classes}) < len(self.classes):
            raise ValueError("classes: one is there twice (case and surrounding space do not count)")
        return self


class EmbedConfig(StartConfig):
    """An embedding model. `teacher`: a checkpoint whose mean-pooled vectors are learnt; without it the dataset is a file
    with the columns `text` and `vector`, of any provider."""

    task: Literal["embed"]
    teacher: str | None = None
    text: TextConfig = TextConfig()
    training: TrainingConfig = TrainingConfig(batch_size=32)
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1


class OnPolicyStudent(StartConfig):
    """A student that writes, and is told by its teacher how likely each of its tokens was."""

    task: Literal["on_policy"]
    on_policy: OnPolicyConfig
