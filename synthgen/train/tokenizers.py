"""Whether two tokenizers number the same tokens the same way, without which a teacher's ids mean nothing to a student.

In: fast tokenizers of transformers. Out: a digest of everything that decides which ids a text gets, and words for how two
of them differ. Chat template, padding, truncation and what is put around a text (post-processor) do not count: ids are
compared within answers. Rejected: comparing vocabulary sizes, as trainers do. Equal sizes prove nothing, and different
sizes of *embeddings* are harmless: they are padded to round numbers, and the columns beyond are no tokens.
"""

import hashlib
from pathlib import Path

import orjson
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from synthgen.errors import UsageError
from synthgen.train.checkpoints import find_checkpoint

__all__ = ["WAY_OUT", "load_tokenizer", "require_same", "tokenizer_digest"]

WAY_OUT = (
    "train on the teacher's words instead (sequence-level: leave `loss.kd` out), capture a teacher that has the student's "
    "tokenizer, or distil across tokenizers (ULD, TRL's experimental GOLDTrainer)"
)
_OTHER = ("truncation", "padding", "post_processor", "version")
_NAMED = 3


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of vocabulary, merges, added tokens, normaliser and pre-tokeniser.

    Raises:
        UsageError: not a fast tokenizer, whose rules can be read.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"{tokenizer.name_or_path}: not a fast tokenizer, so it cannot be compared")
    rules = orjson.loads(tokenizer.backend_tokenizer.to_str())
    kept = {name: value for name, value in rules.items() if name not in _OTHER}
    return hashlib.sha256(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).hexdigest()


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, in a folder or on the hub.

    Raises:
        UsageError: there is none; a `SourceError` where it looks like a folder.
    """
    name, _, revision = (source, "", "") if Path(source).exists() else source.partition("@")
    found = find_checkpoint(name, pinned=revision != "")
    try:
        return AutoTokenizer.from_pretrained(found, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{source}: no tokenizer can be loaded from there; name the folder of a checkpoint, or a hub id that can be "
            f"reached ({str(error).splitlines()[0]})"
        ) from error


def require_same(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> None:
    """Nothing, if ids of the one are ids of the other.

    Raises:
        UsageError: they are not; how they differ, and what can be done.
    """
    if tokenizer_digest(teacher) != tokenizer_digest(student):
        raise UsageError(
            f"teacher and student have different tokenizers: {_difference(teacher, student)}; token ids of the one mean "
            f"nothing to the other: {WAY_OUT}"
        )


def _difference(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> str:
    theirs, ours = teacher.get_vocab(), student.get_vocab()
    if theirs == ours:
        return f"the same {len(ours):,} tokens, but other rules for splitting text into them"
    parts = [f"{len(theirs):,} tokens against {len(ours):,}"]
    for who, one, other in (("teacher", theirs, ours), ("student", ours, theirs)):
        only = sorted(one.keys() - other.keys(), key=lambda token: one[token])
        if only:
            named = ", ".join(repr(token) for token in only[:_NAMED])
            parts.append(f"{len(only):,} only the {who} has ({named}{', ...' if len(only) > _NAMED else ''})")
    moved = sum(theirs[token] != ours[token] for token in theirs.keys() & ours.keys())
    if moved:
        parts.append(f"{moved:,} with another id")
    return ", ".join(parts)
