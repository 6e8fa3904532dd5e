"""What there is to say about a dataset, as plain values: the one input of the card and of every exported description.

In: nothing but text and numbers; the pipeline fills them in. Out: frozen dataclasses. Guarantee: whatever a card, a
Croissant or an SPDX document says of a dataset, it says from here, so that they cannot disagree.
"""

from collections.abc import Mapping

from synthgen.dataclasses import dataclass

__all__ = [
    "CardFile",
    "CardFilters",
    "CardInfo",
    "CardPolicy",
    "CardPrompt",
    "CardTeacher",
    "CardTerms",
    "CardUse",
]


@dataclass(frozen=True, slots=True)
class CardTeacher:
    """A model that had a part in the rows: its alias, what was asked for, what the replies named.

    `rows`: how many it wrote the last step of, None where that is not known or it writes none. `generation`: see
    `synthgen.schema.record_schema`. `url`: where its weights are published.
    """

    alias: str
    model: str
    route: str
    role: str
    license: str | None = None
    served_models: tuple[str, ...] = ()
    rows: int | None = None
    generation: int = 1
    url: str | None = None


@dataclass(frozen=True, slots=True)
class CardTerms:
    """One text that was decided by: a host's contract, a licence of weights, a licence of source texts."""

    kind: str
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class CardUse:
    """What the policy says of one downstream use; `because` names duties, or the rule that stands in the way."""

    use: str
    decision: str
    because: str


@dataclass(frozen=True, slots=True)
class CardPrompt:
    """The prompt of one step."""

    step: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class CardFilters:
    """The filter chain and its steps in order, as people should read them (`length (min_chars: 20)`)."""

    chain: str
    version: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CardPolicy:
    """The gate's result over the rows that were published. `evaluated` is the ISO date it was decided for."""

    uses: tuple[str, ...]
    decision: str
    obligations: tuple[str, ...]
    registry_date: str
    enforced: bool = True
    evaluated: str = ""
    downstream: tuple[CardUse, ...] = ()
    terms: tuple[CardTerms, ...] = ()
    warnings: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CardFile:
    """One published shard; `sha256` in hex."""

    path: str
    sha256: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class CardInfo:
    """Everything a card says.

    `license` is an SPDX expression or None where nobody evaluated it, `hub_license` its Hugging Face id (`other` where
    there is none); `policy` None says so in the text. `counts` is the funnel in reading order, name -> candidates;
    `rejected_by` maps `stage/reason` to records, `generations` a generation to rows, `seeds` the licence and relation
    of source texts to rows. `languages` are ISO 639-1 codes. `files` are the shards of `data/`, in order. `logprobs`:
    whether the sidecar has all token ids; None: there is no sidecar.
    """

    name: str
    version: str
    train_rows: int
    test_rows: int
    rejected_rows: int
    counts: Mapping[str, int]
    description: str = ""
    license: str | None = None
    hub_license: str = "other"
    languages: tuple[str, ...] = ()
    teachers: tuple[CardTeacher, ...] = ()
    prompts: tuple[CardPrompt, ...] = ()
    filters: CardFilters | None = None
    policy: CardPolicy | None = None
    rejected_by: Mapping[str, int] | None = None
    generations: Mapping[int, int] | None = None
    seeds: Mapping[tuple[str, str], int] | None = None
    files: tuple[CardFile, ...] = ()
    columns: tuple[str, ...] = ()
    logprobs: bool | None = None
