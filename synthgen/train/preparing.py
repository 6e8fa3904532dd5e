"""From a dataset to the sequences the engine trains on.

In: a student's file, the conversations, the base, its chat format. Out: `Prepared`. Guarantees: no row is cut; rows that
cannot be used are an error or counted by reason, as the file says; all rows of one source row are on one side of the
validation cut; packed rows do not see each other, or packing is refused.
"""

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.train.audit import Audited, audit
from synthgen.train.base import Base, context_of
from synthgen.train.config import LoadedStudent, StudentConfig
from synthgen.train.distilling import soft_examples
from synthgen.train.examples import Example
from synthgen.train.packing import pack
from synthgen.train.probe import require_separation
from synthgen.train.reading import Dataset, split
from synthgen.train.template import ChatFormat

__all__ = ["Prepared", "packed_lengths", "prepare", "template_of"]

_PACKED_TOKENS = 1024  # of a packed sequence, where `data.max_length` is not given and rows are shorter


@dataclass(frozen=True, slots=True)
class Prepared:
    """Sequences as the engine takes them: one example each, or packed groups."""

    training: Sequence[Sequence[Example]]
    validation: Sequence[Sequence[Example]]
    refused: Mapping[str, int]

    @property
    def examples(self) -> list[Example]:
        return [example for group in self.training for example in group]


def prepare(loaded: LoadedStudent, data: Dataset, base: Base, format: ChatFormat) -> Prepared:
    """Mask the data, cut the validation share off by source row, give it its soft labels, pack it.

    Raises:
        UsageError: rows cannot be used, soft labels do not fit, or nothing is left.
    """
    config = loaded.config
    held_out = {
        one.id for one in split(data.conversations, config.data.validation_share, seed=config.seed)[1]
    }
    audited = audit(data.conversations, format, config.data, context=context_of(base.model))
    if config.loss.kd is not None:
        audited = _softened(loaded, audited, data, base.tokenizer)
    training = [example for example in audited.examples if example.id not in held_out]
    validation = [example for example in audited.examples if example.id in held_out]
    if not training or (held_out and not validation):
        raise UsageError(
            f"nothing is left to {'validate on' if training else 'train on'}: {dict(audited.refused)}"
        )
    if not config.data.packing:
        return Prepared([[one] for one in training], [[one] for one in validation], audited.refused)
    require_separation(base.model, training)
    room = _room(config, audited.examples)
    return Prepared(_packed(training, room), _packed(validation, room), audited.refused)


def packed_lengths(config: StudentConfig, examples: Sequence[Example]) -> list[int]:
    """Tokens of each sequence the engine would get."""
    if not config.data.packing:
        return list(map(len, examples))
    return [sum(map(len, group)) for group in _packed(examples, _room(config, examples))]


def template_of(loaded: LoadedStudent) -> str | None:
    """The chat template the file names; None: the base's own."""
    named = loaded.config.data.chat_template
    if named is None:
        return None
    path = loaded.path(named)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{loaded.where('data', 'chat_template')}: {path}: {error.strerror}") from error


def _softened(
    loaded: LoadedStudent, audited: Audited, data: Dataset, tokenizer: PreTrainedTokenizerBase
) -> Audited:
    kd = loaded.config.loss.kd
    assert kd is not None
    labelled = soft_examples(kd, audited.examples, tokenizer, run=data.folder, path=loaded.path)
    missed = {f"soft_labels:{reason}": count for reason, count in labelled.misfits.items()}
    return Audited(labelled.examples, {**audited.refused, **missed})


def _packed(examples: Sequence[Example], room: int) -> list[list[Example]]:
    return [[examples[at] for at in group] for group in pack(list(map(len, examples)), room)]


def _room(config: StudentConfig, examples: Sequence[Example]) -> int:
    return config.data.max_length or max(_PACKED_TOKENS, *map(len, examples))
