"""The questions a doctor asks: fixed texts, each with the most it may cost.

In: a teacher's spec. Out: `Question`s, the `Request`s they become, and the upper bound of all of them. Guarantees: no
question is sent more often than its `sends`, so the bound holds; prompts are the same for every teacher and hold
nothing of the user's. Each is built so that a server that ignores what is asked for cannot pass by chance: the
structured question never mentions JSON, the stop text stands in the middle of a count.
"""

from dataclasses import replace

import orjson

from synthgen.asking.ask import TeacherSpec
from synthgen.asking.prices import cost_usd
from synthgen.asking.transport.endpoint import Dialect
from synthgen.dataclasses import dataclass
from synthgen.recipe.model import SamplingConfig
from synthgen.types import Message, Request, Sampling, Usage

__all__ = [
    "CHAT",
    "CHOICE",
    "CHOICES",
    "COMPLETION_LIMIT",
    "LOGPROBS",
    "MANY",
    "SCHEMA",
    "STOP",
    "STORY",
    "STRUCTURED",
    "SYSTEM",
    "TOOLS",
    "TOOL_NAME",
    "TOOL_SCHEMA",
    "Bound",
    "Question",
    "bound",
    "request_for",
    "worst_usd",
]

# Enough for a reasoning model to think about a small thing and still answer.
_ROOMY = 512


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt. `sends` is how often it may be asked, `choices` how many answers one send may bring.

    `varied` questions are to be drawn, not looked up: a temperature of 0 is left to the server's default.
    """

    user: str
    max_tokens: int
    system: str | None = None
    tools: str | None = None
    schema: str | None = None
    stop: tuple[str, ...] = ()
    varied: bool = False
    choices: int = 1
    sends: int = 1


TOOL_NAME = "report_temperature"
TOOL_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "celsius": {"type": "integer"}},
    "required": ["city", "celsius"],
    "additionalProperties": False,
}
_TOOLS = orjson.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": TOOL_NAME,
                "description": "Report the temperature of a city.",
                "parameters": TOOL_SCHEMA,
            },
        }
    ]
).decode()
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["calm", "busy"]}, "digit": {"type": "integer"}},
    "required": ["mood", "digit"],
    "additionalProperties": False,
}
CHOICES = ("zebra", "okapi")

CHAT = Question("How many letters does the word 'seventeen' have? Answer with the number.", _ROOMY)
SYSTEM = Question(
    "What is the capital of France?",
    _ROOMY,
    system="Whatever you are asked, answer with this one word and nothing else: marmalade",
)
STORY = Question("Write a long story about a lighthouse.", 24, varied=True, sends=3)
MANY = Question("Write a long story about a river.", 24, varied=True, choices=2)
STOP = Question("Count from 1 to 9. Write only the digits, separated by spaces.", _ROOMY, stop=("6",))
STRUCTURED = Question(
    "Describe the city of Lisbon in a few words.", _ROOMY, schema=orjson.dumps(SCHEMA).decode()
)
TOOLS = Question(
    f"It is 7 degrees Celsius in Oslo. Report this by calling the tool {TOOL_NAME}.",
    _ROOMY,
    tools=_TOOLS,
    sends=2,
)
# One token is enough to see how many alternatives come with it; some servers want two.
LOGPROBS = Question("Say hello.", 2, sends=13)
COMPLETION_LIMIT = Question("Write a long story about a mountain.", 24)
CHOICE = Question("Say hello.", _ROOMY)

_BOTH = (CHAT, SYSTEM, STORY, STOP, STRUCTURED, TOOLS)
_OPENAI = (*_BOTH, MANY, LOGPROBS, COMPLETION_LIMIT)


def questions_for(spec: TeacherSpec, dialect: Dialect) -> tuple[Question, ...]:
    """All questions the doctor may ask a teacher."""
    if dialect == "anthropic":
        return _BOTH
    return (*_OPENAI, CHOICE) if spec.config.provider == "vllm" else _OPENAI


def request_for(
    spec: TeacherSpec,
    question: Question,
    *,
    seed: int | None = None,
    top_logprobs: int | None = None,
    tool_choice: str | None = None,
) -> Request:
    """The request a question becomes, with the teacher's own sampling under what the question sets."""
    own = SamplingConfig().over(spec.config.sampling)
    limit = question.max_tokens + _thinking_budget(own)
    temperature = (own.temperature or None) if question.varied else own.temperature
    sampling: Sampling = replace(
        own, max_tokens=limit, stop=question.stop, seed=seed, temperature=temperature
    )
    messages = [Message("user", question.user)]
    if question.system is not None:
        messages.insert(0, Message("system", question.system))
    return Request(
        tuple(messages),
        spec.identity,
        sampling,
        tools=question.tools,
        response_schema=question.schema,
        tool_choice=tool_choice,
        capture=() if top_logprobs is None else (f"logprobs:{top_logprobs}",),
    )


def _thinking_budget(sampling: Sampling) -> int:
    """Anthropic wants `max_tokens` above the thinking budget a recipe sets, and refuses the request otherwise."""
    thinking = sampling.extra.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return budget if isinstance(budget, int) and budget > 0 else 0


def worst_usd(spec: TeacherSpec, question: Question) -> float:
    """The most one send of a question can cost; 0 where the price is unknown."""
    if spec.price is None:
        return 0.0
    return cost_usd(spec.price, _worst_usage(spec, question))


def _worst_usage(spec: TeacherSpec, question: Question) -> Usage:
    request = request_for(spec, question)
    return Usage(
        request.input_tokens_bound(), output_tokens=(request.sampling.max_tokens or 0) * question.choices
    )


@dataclass(frozen=True, slots=True)
class Bound:
    """The most an examination can ask and cost; `usd` None: a price is unknown."""

    requests: int
    input_tokens: int
    output_tokens: int
    usd: float | None

    def __add__(self, other: "Bound") -> "Bound":
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Bound(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            usd,
        )


def bound(spec: TeacherSpec, dialect: Dialect) -> Bound:
    """The upper bound of examining one endpoint."""
    total = Bound(0, 0, 0, None if spec.price is None else 0.0)
    for question in questions_for(spec, dialect):
        usage, sends = _worst_usage(spec, question), question.sends
        usd = None if spec.price is None else sends * cost_usd(spec.price, usage)
        total += Bound(sends, sends * usage.input_tokens, sends * usage.output_tokens, usd)
    return total
