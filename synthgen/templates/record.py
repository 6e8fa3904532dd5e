"""The record of a row: `messages` built from its final fields.

In: `output.record` of the recipe. Out: system (if not blank), user, assistant. A teacher's own prompt text never gets
here: the only texts are the recipe's and the row's.
"""

from collections.abc import Mapping

from synthgen.dataclasses import dataclass
from synthgen.recipe.model import RecordConfig
from synthgen.templates.template import Template, compile_template
from synthgen.types import JSONValue, Message, ToolCall

__all__ = ["RecordTemplate", "compile_record"]


@dataclass(frozen=True, slots=True)
class RecordTemplate:
    """Compiled `output.record`."""

    system: Template | None
    user: Template
    assistant: Template

    @property
    def variables(self) -> frozenset[str]:
        """Every field the record mentions."""
        system = self.system.variables if self.system else frozenset[str]()
        return system | self.user.variables | self.assistant.variables

    def build(
        self,
        fields: Mapping[str, JSONValue],
        *,
        reasoning: str | None = None,
        tool_calls: tuple[ToolCall, ...] = (),
    ) -> tuple[Message, ...]:
        """The conversation; `reasoning` and `tool_calls` go to the assistant turn.

        Raises:
            TemplateError: a field is missing, or an expression fails on it.
        """
        system = self.system.render(fields) if self.system else ""
        turns = (
            Message("user", self.user.render(fields)),
            Message("assistant", self.assistant.render(fields), reasoning=reasoning, tool_calls=tool_calls),
        )
        return (Message("system", system), *turns) if system.strip() else turns


def compile_record(config: RecordConfig, *, where: str) -> RecordTemplate:
    """Compile `output.record`; `where` (`recipe.yaml:30: output.record`) starts error messages.

    Raises:
        RecipeError: a template is not valid.
    """
    return RecordTemplate(
        system=compile_template(config.system, where=f"{where}.system") if config.system else None,
        user=compile_template(config.user, where=f"{where}.user"),
        assistant=compile_template(config.assistant, where=f"{where}.assistant"),
    )
