"""What may leave for a hosted teacher: `privacy: allow | redact | block` of a recipe.

In: a row's fields, the rendered messages, the teacher. Out: fields and messages as they may be sent, or why they may not.
Guarantees: with `redact` and `block` no prompt that holds a value the patterns know reaches a hosted teacher; what is
redacted is redacted before the request has a key, so that the same recipe asks the same questions again; teachers on
the user's own machines see all that `block` holds back.

`redact` changes the row itself, for every teacher of a recipe that has a hosted one: the record shows what was asked, and
samples of one question by several teachers belong to one text.

`allow` is the default. The row is the user's own and so is the choice of the teacher; a default that drops or alters
rows would quietly break the tasks that are about addresses (extraction, routing, form filling) and every earlier
run's keys. So that nobody sends unawares, `plan` counts what the first prompts hold.
"""

from collections.abc import Mapping
from dataclasses import replace

from synthgen.asking import TeacherSpec
from synthgen.dataclasses import dataclass
from synthgen.recipe.model import PrivacyMode
from synthgen.types import JSONValue, Message

__all__ = ["ALLOW", "REDACTED", "Privacy", "hosted_teachers"]

REDACTED = "redacted:"  # of flags: `redacted:pii_email`
_OWN_MACHINES = "self-hosted"


def hosted_teachers(specs: Mapping[str, TeacherSpec]) -> frozenset[str]:
    """Aliases of the teachers on somebody else's machines."""
    return frozenset(alias for alias, spec in specs.items() if spec.identity.route != _OWN_MACHINES)


@dataclass(frozen=True, slots=True)
class Privacy:
    """The mode, and the teachers it is about. `records`: the finished record is redacted too, answers included."""

    mode: PrivacyMode = "allow"
    hosted: frozenset[str] = frozenset()
    records: bool = False

    def row(self, fields: Mapping[str, JSONValue]) -> tuple[Mapping[str, JSONValue], frozenset[str]]:
        """The fields a row goes on with, and the codes of what was replaced."""
        if self.mode != "redact" or not self.hosted:
            return fields, frozenset()
        from synthgen.refine import redact_fields

        return redact_fields(fields)

    def prompt(self, messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], frozenset[str]]:
        """The messages as they may be sent: the template's own words and what came together across fields too."""
        if self.mode != "redact" or not self.hosted:
            return messages, frozenset()
        return _redacted(messages)

    def record(self, messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], frozenset[str]]:
        """The finished record as it is kept."""
        return _redacted(messages) if self.records else (messages, frozenset())

    def objection(self, alias: str, messages: tuple[Message, ...]) -> str | None:
        """The code of the first thing for which this prompt must not go to this teacher."""
        if self.mode != "block" or alias not in self.hosted:
            return None
        from synthgen.refine import found_in  # brings polars along

        return next(iter(found_in([message.content for message in messages]).values()), None)


ALLOW = Privacy()


def _redacted(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], frozenset[str]]:
    from synthgen.refine import redact

    texts = [text for message in messages for text in (message.content, message.reasoning or "")]
    replaced, reasons = redact(texts)
    if not reasons:
        return messages, reasons
    pairs = zip(replaced[::2], replaced[1::2], messages, strict=True)
    return tuple(
        replace(message, content=content, reasoning=reasoning or message.reasoning)
        for content, reasoning, message in pairs
    ), reasons
