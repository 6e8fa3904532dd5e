"""A tokenizer with its chat template: what the student reads and writes, as text and as tokens.

In: a fast tokenizer of transformers, maybe another template. Out: `ChatFormat`. Guarantees: a format that cannot teach
a student to stop is refused before anything is trained; the digest changes with anything that changes a token.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import field

import jinja2
from transformers import PreTrainedTokenizerBase

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.train.conversation import chat
from synthgen.types import JSONValue, Message

__all__ = ["ChatFormat", "Unusable", "chat_format"]


class Unusable(ValueError):
    """A conversation this format cannot hold. `reason` is a short code, the text says what is wrong and never quotes it."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


@dataclass(frozen=True)
class ChatFormat:
    """`control` finds the text of any control token; `stop` is the one that ends an assistant's turn, `stop_id` its id."""

    tokenizer: PreTrainedTokenizerBase
    control: re.Pattern[str]
    stop: str
    stop_id: int
    _ending: re.Pattern[str] = field(repr=False)

    @property
    def pad_id(self) -> int:
        """What fills rows of a batch; masked by attention and labels, so that it may equal the stop token."""
        pad = self.tokenizer.pad_token_id
        return self.stop_id if pad is None else int(pad)

    @property
    def digest(self) -> str:
        """sha256 over vocabulary, merges, control tokens and chat template."""
        backend = self.tokenizer.backend_tokenizer.to_str()
        return hashlib.sha256(f"{backend}\0{self.tokenizer.chat_template}".encode()).hexdigest()

    @property
    def template_digest(self) -> str:
        """sha256 of the chat template, to be compared where the student is served."""
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()

    def render(
        self, messages: Sequence[Message], tools: list[JSONValue] | None = None, *, prompt: bool = False
    ) -> str:
        """The conversation as text; with `prompt`, up to where the assistant would go on.

        Raises:
            Unusable: the template refuses it (an order of roles, a system message).
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    chat(messages), tools=tools, tokenize=False, add_generation_prompt=prompt
                )
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())[:120]
            raise Unusable("refused_by_template", f"the chat template refuses it: {said}") from error

    def end_of_turn(self, completion: str) -> int:
        """Where the turn ends: behind its last control token. What follows belongs to the next message.

        Raises:
            Unusable: no control token closes the turn, so the student would not learn to stop.
        """
        found = self._ending.search(completion)
        if found is None:
            raise Unusable("no_stop_token", "the chat template does not close the turn with a control token")
        return found.end(1)

    def encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Ids and character offsets of each text; control tokens are only those that stand in it."""
        encoded = self.tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(list(one.ids), list(one.offsets)) for one in encoded]

    def decode(self, ids: Sequence[Iterable[int]]) -> list[str]:
        """Text of each run of ids, control tokens included."""
        plain = [[int(token) for token in run] for run in ids]
        return list(self.tokenizer.backend_tokenizer.decode_batch(plain, skip_special_tokens=False))


def chat_format(tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> ChatFormat:
    """Look at how a tokenizer's template (or `template`) writes an answer.

    Raises:
        UsageError: no template, no fast tokenizer, or answers that are not closed by one control token.
    """
    if template is not None:
        tokenizer.chat_template = template
    name = tokenizer.name_or_path or "the base model"
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"{name}: its tokenizer is not a fast one, so text cannot be mapped to tokens")
    if not isinstance(tokenizer.chat_template, str):
        raise UsageError(
            f"{name}: has no chat template; name a Jinja file with `data.chat_template`, best that of the family's chat model"
        )
    special = sorted(
        {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        | set(tokenizer.all_special_tokens),
        key=len,
        reverse=True,
    )
    if not special:
        raise UsageError(f"{name}: its tokenizer has no control tokens, so no answer can end")
    any_of = "|".join(map(re.escape, special))
    ending = re.compile(rf"({any_of})\s*\Z")
    blank = ChatFormat(tokenizer, re.compile(any_of), "", -1, ending)
    stop = _stop_of(blank, name)
    ids, _ = blank.encode([stop])[0]
    if len(ids) != 1:
        raise UsageError(f"{name}: the control token {stop!r} is {len(ids)} tokens to its own tokenizer")
    return ChatFormat(tokenizer, blank.control, stop, ids[0], ending)


def _stop_of(format: ChatFormat, name: str) -> str:
    """The control token behind a short answer."""
    asked = [Message("user", "Question?")]
    try:
        prompt = format.render(asked, prompt=True)
        whole = format.render([*asked, Message("assistant", "Answer.")])
    except Unusable as problem:
        raise UsageError(f"{name}: {problem}; name another one with `data.chat_template`") from problem
    if not whole.startswith(prompt):
        raise UsageError(
            f"{name}: the chat template writes an answer's turn differently from the prompt that asks for it, so a student "
            "would be trained on what it never sees; name another one with `data.chat_template`"
        )
    tail = whole[len(prompt) :].partition("Answer.")[2]
    found = format._ending.match(tail.lstrip()) if tail.strip() else None
    if found is None:
        seen = (
            f"with {tail.strip()[:40]!r}, which is no control token of its tokenizer" if tail.strip() else ""
        )
        raise UsageError(
            f"{name}: the chat template closes an answer {seen or 'with nothing'}: the student would never stop; "
            "name another one with `data.chat_template`, or a base whose tokenizer has its tokens"
        )
    return found[1]
