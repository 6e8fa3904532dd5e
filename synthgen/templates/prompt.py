"""Prompts: a YAML file that says what to ask and how to read the reply.

In: `prompts/NAME.yaml` or a user's file of the same form. Out: a `Prompt`; from it and a row's fields the messages, from
a reply its fields. Guarantees: a prompt that loads is consistent: its messages use exactly the declared inputs, its
outputs are what its reply gives, and its example renders and parses. Rejected: prompts as Python functions (they could
not be versioned, licensed, diffed and passed on as data).
"""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError
from synthgen.recipe.model import Strict
from synthgen.recipe.yaml_file import Document, read_yaml, validate
from synthgen.templates.reply import PREFERENCES, Parsed, Reply, Unusable
from synthgen.templates.template import Template, TemplateError, compile_template
from synthgen.types import JSONValue, Message, digest

__all__ = ["Example", "Input", "Prompt", "load_prompt", "parse_reply", "render_messages"]

_FIELD = r"^[A-Za-z_][A-Za-z0-9_]*$"
_FieldName = Annotated[str, Field(pattern=_FIELD)]


class Input(Strict):
    """One input of a prompt; with a `default` (null counts) a row may lack it."""

    default: JSONValue = None
    description: str = ""

    @property
    def required(self) -> bool:
        """Whether every row must bring it."""
        return "default" not in self.model_fields_set


class Example(Strict):
    """Inputs and a reply the prompt can read: documentation that is checked when the prompt is loaded."""

    inputs: dict[str, JSONValue]
    reply: str


class _MessageText(Strict):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class _Score(Strict):
    field: _FieldName = "score"
    min: float = 1
    max: float = 10

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        return {"field": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_range(self) -> "_Score":
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        return self


_Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Rubric(Strict):
    """Criteria scored in one range; the numbers behind them are their weights in the overall score."""

    criteria: Annotated[dict[_FieldName, _Weight], Field(min_length=1)]
    min: float = 1
    max: float = 5

    @field_validator("criteria", mode="before")
    @classmethod
    def _names_weigh_the_same(cls, value: object) -> object:
        return {name: 1.0 for name in value if isinstance(name, str)} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _a_range(self) -> "_Rubric":
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        if reserved := {"overall", "reason"} & self.criteria.keys():
            raise ValueError(f"{reserved.pop()!r} cannot name a criterion")
        return self


class _ReplyForm(Strict):
    text: _FieldName | None = None
    json_: dict[str, JSONValue] | None = Field(default=None, alias="json")
    list_: _FieldName | None = Field(default=None, alias="list")
    sections: Annotated[list[_FieldName], Field(min_length=1)] | None = None
    score: _Score | None = None
    rubric: _Rubric | None = None
    preference: _FieldName | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "_ReplyForm":
        forms = (self.text, self.json_, self.list_, self.sections, self.score, self.rubric, self.preference)
        if len([form for form in forms if form]) != 1:
            raise ValueError("name exactly one of text, json, list, sections, score, rubric, preference")
        return self

    def reply(self) -> Reply:
        """The reader of this form.

        Raises:
            ValueError: a schema that is not valid, or that names no properties.
        """
        if self.text:
            return Reply("text", (self.text,))
        if self.list_:
            return Reply("list", (self.list_,))
        if self.sections:
            return Reply("sections", tuple(self.sections))
        if self.score:
            weights = {self.score.field: 1.0}
            return _scores_reply("score", weights, self.score.min, self.score.max)
        if self.rubric:
            return _scores_reply("rubric", self.rubric.criteria, self.rubric.min, self.rubric.max)
        if self.preference:
            return _preference_reply(self.preference)
        properties = (self.json_ or {}).get("properties")
        if not isinstance(properties, dict) or not properties:
            raise ValueError("the schema must describe an object with `properties`")
        return Reply("json", tuple(properties), _schema_text(self.json_))


class _PromptFile(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    version: Annotated[int, Field(ge=1)]
    description: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    source: str | None = None
    inputs: dict[_FieldName, Input]
    outputs: Annotated[list[_FieldName], Field(min_length=1)]
    messages: Annotated[list[_MessageText], Field(min_length=1)]
    reply: _ReplyForm
    example: Example | None = None

    @field_validator("inputs", mode="before")
    @classmethod
    def _names_or_mapping(cls, value: object) -> object:
        """A list of names means inputs every row must bring; `name:` with nothing after it as well."""
        if isinstance(value, list):
            return {name: {} for name in value if isinstance(name, str)}
        if isinstance(value, dict):
            return {name: {} if spec is None else spec for name, spec in value.items()}
        return value


@dataclass(frozen=True, slots=True)
class Prompt:
    """A loaded prompt. `digest` changes with whatever changes a request or the reading of a reply, with nothing else."""

    name: str
    version: int
    description: str
    licence: str
    source: str | None
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]
    messages: tuple[tuple[Literal["system", "user", "assistant"], Template], ...]
    reply: Reply
    example: Example | None
    digest: str
    required: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Looked up once: every row asks which inputs it must bring."""
        required = frozenset(name for name, spec in self.inputs.items() if spec.required)
        object.__setattr__(self, "required", required)

    def score_range(self) -> tuple[float, float]:
        """Least and greatest score a judge's prompt asks for; 1 to 5 where its schema does not say."""
        schema = orjson.loads(self.reply.schema or "{}")
        name = self.reply.weights[0][0] if self.reply.weights else "score"
        score = schema.get("properties", {}).get(name, {})
        return float(score.get("minimum", 1)), float(score.get("maximum", 5))


def load_prompt(path: Path) -> Prompt:
    """Read and check a prompt file.

    Raises:
        RecipeError: the file is not a consistent prompt; every message starts with `file:line:`.
    """
    document = read_yaml(path)
    form = validate(_PromptFile, document)
    reply = _checked_reply(form, document)
    prompt = Prompt(
        name=form.name,
        version=form.version,
        description=form.description.strip(),
        licence=form.licence,
        source=form.source,
        inputs=form.inputs,
        outputs=reply.outputs,
        messages=_checked_messages(form, document),
        reply=reply,
        example=form.example,
        digest=_digest(form, reply),
    )
    _check_example(prompt, document)
    return prompt


def render_messages(prompt: Prompt, fields: Mapping[str, JSONValue]) -> tuple[Message, ...]:
    """The conversation to send, without outer white space; a blank system message is left out.

    Templates see the declared inputs and nothing else of the row.

    Raises:
        TemplateError: a required input is missing, null or blank, or an expression fails on a value.
    """
    values: dict[str, JSONValue] = {}
    for name, spec in prompt.inputs.items():
        value = fields.get(name)
        if name in prompt.required and (value is None or (isinstance(value, str) and not value.strip())):
            raise TemplateError(
                f"prompt {prompt.name}: input {name!r} is {'missing' if value is None else 'blank'}"
            )
        values[name] = spec.default if value is None else value
    messages = []
    for role, template in prompt.messages:
        content = template.render(values).strip()
        if content or role != "system":
            messages.append(Message(role, content))
    return tuple(messages)


def parse_reply(prompt: Prompt, text: str) -> Parsed | Unusable:
    """The fields in a reply to this prompt; never raises, whatever the text."""
    return prompt.reply.read(text)


def _schema_text(schema: object) -> str:
    """JSON with the keys in the author's order: constrained decoding writes properties in that order."""
    return orjson.dumps(schema).decode()


def _scores_reply(
    kind: Literal["score", "rubric"], weights: Mapping[str, float], low: float, high: float
) -> Reply:
    """The reason stands before the scores, so that a model reasons before it decides."""
    number = {"type": "number", "minimum": low, "maximum": high}
    schema = {
        "type": "object",
        "properties": {"reason": {"type": "string"}, **dict.fromkeys(weights, number)},
        "required": list(weights),
    }
    return Reply(kind, ("reason", *weights), _schema_text(schema), weights=tuple(weights.items()))


def _preference_reply(field: str) -> Reply:
    schema = {
        "type": "object",
        "properties": {"reason": {"type": "string"}, field: {"enum": list(PREFERENCES)}},
        "required": [field],
    }
    return Reply("preference", ("reason", field), _schema_text(schema), preference=field)


def _checked_reply(form: _PromptFile, document: Document) -> Reply:
    try:
        reply = form.reply.reply()
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{document.where(('reply',))}: reply: {reason}") from error
    if set(reply.outputs) != set(form.outputs) or len(form.outputs) != len(reply.outputs):
        raise RecipeError(
            f"{document.where(('outputs',))}: outputs: are {', '.join(form.outputs)}, but the reply gives "
            f"{', '.join(reply.outputs)}"
        )
    if invalid := [name for name in reply.outputs if not name.isidentifier()]:
        raise RecipeError(f"{document.where(('reply',))}: reply: {invalid[0]!r} cannot be a field name")
    return reply


def _checked_messages(
    form: _PromptFile, document: Document
) -> tuple[tuple[Literal["system", "user", "assistant"], Template], ...]:
    messages = []
    used: set[str] = set()
    for number, message in enumerate(form.messages):
        key = f"messages[{number}].content"
        where = f"{document.where(('messages', number, 'content'))}: {key}"
        template = compile_template(message.content, where=where)
        if undeclared := sorted(template.variables - form.inputs.keys()):
            raise RecipeError(f"{where}: uses {', '.join(undeclared)}, which `inputs` does not declare")
        used |= template.variables
        messages.append((message.role, template))
    if unused := sorted(form.inputs.keys() - used):
        where = document.where(("inputs", unused[0]))
        raise RecipeError(f"{where}: inputs.{unused[0]}: no message uses it")
    if messages[-1][0] != "user":
        raise RecipeError(f"{document.where(('messages',))}: messages: the last one must be the user's")
    return tuple(messages)


def _digest(form: _PromptFile, reply: Reply) -> str:
    return digest(
        {
            "messages": [[message.role, message.content] for message in form.messages],
            "inputs": {name: [spec.required, spec.default] for name, spec in form.inputs.items()},
            "reply": [reply.kind, list(reply.outputs), reply.schema],
        }
    )


def _check_example(prompt: Prompt, document: Document) -> None:
    if prompt.example is None:
        return
    where = document.where(("example",))
    if unknown := sorted(prompt.example.inputs.keys() - prompt.inputs.keys()):
        raise RecipeError(f"{where}: example.inputs: {unknown[0]!r} is not an input")
    try:
        render_messages(prompt, prompt.example.inputs)
    except TemplateError as error:
        raise RecipeError(f"{where}: example.inputs: {error}") from error
    parsed = parse_reply(prompt, prompt.example.reply)
    if isinstance(parsed, Unusable):
        raise RecipeError(f"{where}: example.reply: {parsed.reason}: {parsed.detail}")
