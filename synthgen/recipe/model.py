"""The recipe as types: the only configuration of a run.

In: plain data from YAML. Out: frozen pydantic models. Guarantees: unknown keys are errors, ranges are checked here
and nowhere else. A provider, a source or a filter brings its own parameter model through `synthgen.plugins`;
providers extend `TeacherConfig`. `load_recipe` resolves those models, so that their errors have lines too.
"""

import math
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, field_validator

from synthgen.types import JSONValue, Sampling

__all__ = [
    "NAME",
    "SEED_RELATIONS",
    "Actor",
    "BestOfConfig",
    "CaptureConfig",
    "DedupConfig",
    "JudgeCapture",
    "JudgeConfig",
    "Limits",
    "NearConfig",
    "OutputConfig",
    "Price",
    "PrivacyMode",
    "Recipe",
    "RecordConfig",
    "ReferenceConfig",
    "RefineConfig",
    "SamplingConfig",
    "SelectConfig",
    "SourceConfig",
    "StepConfig",
    "Strict",
    "TeacherConfig",
]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
PrivacyMode = Literal["block", "redact", "allow"]
SEED_RELATIONS = Literal["verbatim", "adapted", "inspired", "none"]


class Strict(BaseModel):
    """Base of every model users write for: unknown keys are errors, values do not change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        protected_namespaces=(),
        defer_build=True,  # most models are only parts of others: building each costs a third of a start
    )


# What synthgen sets in a request itself -> where a recipe says it; wires send `sampling.extra` as it is.
_NOT_EXTRA = {
    **dict.fromkeys(("messages", "system"), "the prompt says it"),
    "model": "write `model` in the teacher",
    **dict.fromkeys(("n", "best_of"), "write `samples` in the step"),
    **dict.fromkeys(("stream", "stream_options"), "replies are read whole"),
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens"), "write `sampling.max_tokens`"),
    "stop_sequences": "write `sampling.stop`",
    **dict.fromkeys(("logprobs", "top_logprobs"), "write `capture: {logprobs: ...}` in the step"),
    **dict.fromkeys(("tools", "functions"), "write `tools` in the step"),
    **dict.fromkeys(("tool_choice", "function_call"), "write `tool_choice` in the step"),
}


def _is_extra(name: str) -> str:
    way_out = f"write `sampling.{name}`" if name in SamplingConfig.model_fields else _NOT_EXTRA.get(name)
    if way_out and name != "extra":
        raise ValueError(f"synthgen sets this itself; {way_out}")
    return name


class SamplingConfig(Strict):
    """How a teacher draws tokens; absent means the teacher's own default.

    `extra` is sent as it is, beside what synthgen sets itself.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: list[str] = []
    seed: int | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    extra: dict[Annotated[str, AfterValidator(_is_extra)], JSONValue] = {}

    def over(self, base: "SamplingConfig | None") -> Sampling:
        """These settings laid over `base` (a step's over its teacher's)."""
        merged = {
            **(base.model_dump(exclude_unset=True) if base else {}),
            **self.model_dump(exclude_unset=True),
        }
        stop = merged.pop("stop", [])
        return Sampling(**merged, stop=tuple(stop))


class Limits(Strict):
    """What an endpoint allows; absent means what its replies say, and there are no hidden limits.

    Requests (`r`) and tokens (`t`: all, `it`: input, `ot`: output) per second, minute and day. Where a reply's headers
    name one too, the stricter holds. `concurrency` is never exceeded; without it, the number in flight follows what the
    server bears. In a pool the limits hold for each of its servers.
    """

    rps: Annotated[int, Field(ge=1)] | None = None
    rpm: Annotated[int, Field(ge=1)] | None = None
    rpd: Annotated[int, Field(ge=1)] | None = None
    tpm: Annotated[int, Field(ge=1)] | None = None
    tpd: Annotated[int, Field(ge=1)] | None = None
    itpm: Annotated[int, Field(ge=1)] | None = None
    otpm: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=4096)] | None = None


class Price(Strict):
    """USD per million tokens. `cached_input` defaults to `input`."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    cached_input: Annotated[float, Field(ge=0)] | None = None


class TeacherConfig(Strict):
    """What every provider needs to know of a teacher; providers subclass it with their own fields.

    `samples_per_request`: how many samples of a step go into one request, which reads the prompt once; 1 keeps them
    apart, and teachers without such a thing ignore it. `stop_at_refusal_rate`: the share of its last 100 requests that a
    vendor's content policy may refuse before nothing more is sent (vendors ban accounts).
    """

    provider: str
    model: str = Field(min_length=1)
    route: str | None = None
    hf: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+(@[\w.-]+)?$")] | None = None
    pool: Annotated[str, Field(pattern=NAME)] | None = None
    served_as: list[str] = []
    price: Price | None = None
    limits: Limits = Limits()
    sampling: SamplingConfig = SamplingConfig()
    give_up_after_s: Annotated[float, Field(gt=0)] = 1800.0
    stop_at_refusal_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    samples_per_request: Literal["auto"] | Annotated[int, Field(ge=1, le=128)] = "auto"

    @property
    def cloud_route(self) -> str | None:
        """The cloud's own route where this teacher is at one of its hosts, None for every other teacher."""
        return None

    @property
    def maker_model(self) -> str:
        """The name of the model as its maker spells it."""
        return self.model

    @property
    def speaks_messages(self) -> bool:
        """Whether it is asked in the Messages dialect, which wants `max_tokens` with every request."""
        return False

    def most_logprobs(self) -> int | None:
        """How many alternatives a token can be captured with; None: this teacher gives no logprobs at all."""
        return None

    def takes_tools(self) -> bool:
        """Whether this teacher can be offered tools."""
        return True

    def most_samples(self, *, seeded: bool) -> int:
        """How many samples one request can ask for; 1 where this teacher has no such thing."""
        return 1

    def patience_s(self, max_tokens: int | None = None) -> float:
        """Seconds that an answer of at most so many tokens is waited for."""
        return math.inf

    def each_host(self) -> tuple[Self, ...]:
        """This teacher once for each server that answers for it."""
        return (self,)


class SourceConfig(Strict):
    """Where rows come from: exactly one source kind, its parameters, and what may be done with the text.

    `license` is `own` or an SPDX id and mandatory for files; `relation` says how the text enters the data:
    word for word, adapted, only as inspiration, or not at all. `load_recipe` fills `kind` and `params` from the
    one source key (`jsonl: ...`).
    """

    kind: str
    params: SerializeAsAny[BaseModel]
    license: str
    relation: SEED_RELATIONS = "adapted"
    limit: Annotated[int, Field(ge=1)] | None = None


class CaptureConfig(Strict):
    """What to keep of a reply besides its text.

    `logprobs` is the number of likeliest tokens to keep for each token of the reply; 0 keeps only the token's own.
    """

    reasoning: bool = False
    logprobs: Annotated[int, Field(ge=0, le=1024, strict=True)] | None = None


class StepConfig(Strict):
    """One prompt every row passes. `teacher` is an alias, or aliases with weights.

    `tools` are tool definitions in OpenAI's form, or a file of them; `tool_choice` is `auto`, `none`, `required` or the
    name of one. `structured` has the server hold the reply to the prompt's JSON schema. `on_unreadable`: whether a teacher
    stops, or this is only said, when none of its first 20 replies can be read as the prompt wants.
    """

    name: Annotated[str, Field(pattern=NAME)]
    prompt: str
    teacher: str | dict[str, Annotated[float, Field(gt=0)]]
    samples: Annotated[int, Field(ge=1, le=1024)] = 1
    with_: dict[str, str] = Field(default={}, alias="with")
    sampling: SamplingConfig = SamplingConfig()
    capture: CaptureConfig = CaptureConfig()
    structured: bool = False
    tools: str | list[dict[str, JSONValue]] | None = None
    tool_choice: str | None = None
    on_unreadable: Literal["stop", "warn"] = "stop"

    def weights(self) -> dict[str, float]:
        """Teacher alias -> weight."""
        return {self.teacher: 1.0} if isinstance(self.teacher, str) else dict(self.teacher)


class NearConfig(Strict):
    """Near-duplicate rule: word n-gram shingles, MinHash, exact Jaccard verification.

    Defaults: 5-word shingles, threshold 0.8, 128 permutations (Lee et al. 2022, "Deduplicating Training Data
    Makes Language Models Better", use the same threshold on n-gram Jaccard).
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    ngram: Annotated[int, Field(ge=1, le=50)] = 5
    num_perm: Annotated[int, Field(ge=16, le=1024)] = 128
    fields: Literal["prompt", "completion", "both"] = "both"


class DedupConfig(Strict):
    """Exact and near-duplicate removal; `near: null` leaves only the exact one."""

    near: NearConfig | None = NearConfig()


_RULE = re.compile(r"^(>=|>|<=|<|==)\s*(-?\d+(?:\.\d+)?)$")
_Names = str | Annotated[list[str], Field(min_length=1)]


def _is_rule(text: str) -> str:
    if not _RULE.match(text):
        raise ValueError("write a comparison and a number, like '>= 4'")
    return text


_Rule = Annotated[str, AfterValidator(_is_rule), Field(json_schema_extra={"pattern": _RULE.pattern})]


def _listed(names: str | list[str]) -> list[str]:
    """One name, or several, each once."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


class JudgeCapture(Strict):
    """What to keep of a judgement besides its text: the K likeliest tokens of each position, for expected scores."""

    logprobs: Annotated[int, Field(ge=2, le=1024, strict=True)] | None = None


class JudgeConfig(Strict):
    """A scoring prompt sent through the paid path; records whose score fails `keep` are rejected.

    Several teachers or prompts are as many judges (each teacher with each prompt), whose scores are combined; with
    `majority` each judge votes by `keep`. Fewer scores than `min_judges` (more than half of them, if it is not given) are
    no judgement. `keep` is a rule for the overall score, or one for each of several criteria of a rubric and `overall`;
    `weights` replace those of the rubric. `ship_score: false` keeps the scores out of the dataset: then the judge only
    selects, which some terms treat more mildly than output that is trained on.
    """

    teacher: _Names
    prompt: _Names = "judge_helpfulness"
    keep: _Rule | Annotated[dict[str, _Rule], Field(min_length=1)] = ">= 4"
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    combine: Literal["mean", "median", "majority"] = "mean"
    min_judges: Annotated[int, Field(ge=1)] | None = None
    capture: JudgeCapture = JudgeCapture()
    sampling: SamplingConfig = SamplingConfig()
    ship_score: bool = True

    def teachers(self) -> list[str]:
        """Their aliases."""
        return _listed(self.teacher)

    def prompts(self) -> list[str]:
        """Their names."""
        return _listed(self.prompt)

    def rules(self) -> dict[str, tuple[str, float]]:
        """`overall` or a criterion -> the comparison and its number."""
        given = {"overall": self.keep} if isinstance(self.keep, str) else self.keep
        return {name: _parsed(rule) for name, rule in given.items()}

    def rule(self) -> tuple[str, float]:
        """The comparison for the overall score and its number."""
        return self.rules()["overall"]


def _parsed(rule: str) -> tuple[str, float]:
    match = _RULE.match(rule)
    assert match is not None  # it was validated
    return match[1], float(match[2])


class BestOfConfig(Strict):
    """Of the samples of one question, keep only the best.

    With a `teacher`, every two of them are compared in both orders; without, the judge's score decides.
    """

    keep: Annotated[int, Field(ge=1)] = 1
    teacher: _Names | None = None
    prompt: str = "compare_answers"
    sampling: SamplingConfig = SamplingConfig()
    ship_score: bool = True

    def teachers(self) -> list[str]:
        """Aliases of those who compare."""
        return [] if self.teacher is None else _listed(self.teacher)


class ReferenceConfig(Strict):
    """A benchmark whose items must not be in the dataset: a Parquet, JSONL or CSV file, or a text of one item a line.

    `fields`: the columns that hold items; `ngram`: a run of so many words convicts (13: Brown et al. 2020, appendix C;
    8 is stricter). `name` and `split` are what reports call it.
    """

    path: str = Field(min_length=1)
    name: Annotated[str, Field(pattern=NAME)] | None = None
    split: Annotated[str, Field(pattern=NAME)] | None = None
    fields: list[str] = []
    ngram: Annotated[int, Field(ge=8, le=50)] = 13


_SELECTION = re.compile(r"^(diversity|stratify:.+|score:[^*]+(\*[^*]+)*)$")


def _is_selection(text: str) -> str:
    if not _SELECTION.match(text):
        raise ValueError("write diversity, score:NAME or stratify:COLUMN; score:A*B is the product of two")
    return text


_Selection = Annotated[
    str, AfterValidator(_is_selection), Field(json_schema_extra={"pattern": _SELECTION.pattern})
]


class SelectConfig(Strict):
    """Of the accepted records, publish the `n` most varied (`diversity`), best (`score:NAME`, or `score:A*B` by the product),
    or those of evenly sized groups (`stratify:COLUMN`); the others are rejected. `target` counts records before that.
    """

    n: Annotated[int, Field(ge=1)]
    by: _Selection = "diversity"

    @property
    def kind(self) -> str:
        """diversity, score or stratify."""
        return self.by.partition(":")[0]

    @property
    def name(self) -> str:
        """The score, or the column of the record whose values share evenly."""
        return self.by.partition(":")[2]

    @property
    def scores(self) -> tuple[str, ...]:
        """The scores whose product ranks; none where no score does."""
        return tuple(name.strip() for name in self.name.split("*")) if self.kind == "score" else ()


class RefineConfig(Strict):
    """Filter chain (a bundled name, a path, or `none`), duplicates, reference sets to stay clear of, judge, best of,
    and how many of the accepted records are wanted."""

    chain: str = "sft_default"
    dedup: DedupConfig = DedupConfig()
    decontaminate: list[str | ReferenceConfig] = []
    judge: JudgeConfig | None = None
    best_of: BestOfConfig | None = None
    select: SelectConfig | None = None

    def references(self) -> list[ReferenceConfig]:
        """The reference sets, also those named by a path alone."""
        return [
            ReferenceConfig(path=entry) if isinstance(entry, str) else entry for entry in self.decontaminate
        ]


class RecordConfig(Strict):
    """Templates over the final fields of a row that build `messages`; an empty `system` is left out."""

    system: str | None = None
    user: str = "{{ instruction }}"
    assistant: str = "{{ response }}"


class OutputConfig(Strict):
    """Shape of the published dataset. `redact`: private values in records become placeholders, in answers too."""

    record: RecordConfig = RecordConfig()
    redact: bool = False
    rows_per_shard: Annotated[int, Field(ge=1)] = 50_000
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Actor(Strict):
    """Facts about who will use the data; unknown facts count as the worst value for the rule at hand.

    `territory` is a country code of two letters, or `EU`; `mau` are monthly users of all products together; `maas`:
    models are offered to others as a service.
    """

    territory: str | None = None
    mau: Annotated[int, Field(ge=0)] | None = None
    revenue12m_usd: Annotated[float, Field(ge=0)] | None = None
    maas: bool | None = None
    foundation_model_developer: bool | None = None


class Recipe(Strict):
    """A whole recipe; see `README.md` for an example and `synthgen schema` for the JSON schema.

    `privacy`: what becomes of a prompt with credentials or personal data whose teacher is hosted by somebody else: its
    row is rejected (`block`), the values are replaced (`redact`), or it is sent as it is (`allow`).
    """

    name: Annotated[str, Field(pattern=NAME)]
    description: str = ""
    use: Annotated[list[str], Field(min_length=1)]
    target: Annotated[int, Field(ge=1)] | None = None
    budget_usd: Annotated[float, Field(ge=0)] | None = None
    seed: int = 0
    wave: Annotated[int, Field(ge=1, le=100_000)] = 256
    privacy: PrivacyMode = "allow"
    source: SourceConfig
    teachers: Annotated[dict[str, SerializeAsAny[TeacherConfig]], Field(min_length=1)]
    steps: Annotated[list[StepConfig], Field(min_length=1)]
    refine: RefineConfig = RefineConfig()
    output: OutputConfig = OutputConfig()
    actor: Actor = Actor()
    student_base: str | None = None

    @field_validator("use", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value
