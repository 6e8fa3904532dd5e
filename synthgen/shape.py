"""Which optional fields the records of a run have: known when it is planned, long before a table is written.

In: what a recipe can produce. Out: `RecordShape`. Apart from `schema`, so that planning and asking load no data frames.
"""

from synthgen.dataclasses import dataclass

__all__ = ["SCHEMA_VERSION", "RecordShape"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class RecordShape:
    """Which optional fields the messages of a run have.

    `reasoning` adds `reasoning_content`; `tools` adds `tool_calls` and `tool_call_id` and the column `tools`;
    `names` adds `name`.
    """

    reasoning: bool = False
    tools: bool = False
    names: bool = False

    def __or__(self, other: "RecordShape") -> "RecordShape":
        """The smallest shape that holds both."""
        return RecordShape(
            self.reasoning or other.reasoning, self.tools or other.tools, self.names or other.names
        )

    def label(self) -> str:
        """`plain`, or the optional parts joined by `+`; the key into `arrow_schemas.json`."""
        parts = {"reasoning": self.reasoning, "tools": self.tools, "names": self.names}
        return "+".join(name for name, present in parts.items() if present) or "plain"
