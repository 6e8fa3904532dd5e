"""The dataset card: `README.md` with the front matter the Hugging Face hub and `datasets` read.

In: a `CardInfo` of plain values. Out: Markdown with YAML front matter. Guarantees: the same values give the same
text; whatever a user wrote into names and descriptions stays text (no table, link or HTML of its own); a licence
the hub does not know is never rounded to one it does.
Rejected: a Jinja template. Half of the text is tables and the front matter, which need code anyway.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import yaml

from synthgen.types import JSONValue

__all__ = [
    "CardFilters",
    "CardInfo",
    "CardPolicy",
    "CardPrompt",
    "CardTeacher",
    "configs_card",
    "dataset_card",
]

# SPDX -> the hub's id, where the hub has one for data or code licences we meet.
_HUB_LICENSES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "BSD-2-Clause": "bsd-2-clause",
    "BSD-3-Clause": "bsd-3-clause",
    "CC0-1.0": "cc0-1.0",
    "CC-BY-2.0": "cc-by-2.0",
    "CC-BY-3.0": "cc-by-3.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-SA-3.0": "cc-by-sa-3.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0",
    "CC-BY-ND-4.0": "cc-by-nd-4.0",
    "CC-BY-NC-ND-4.0": "cc-by-nc-nd-4.0",
    "CDLA-Permissive-2.0": "cdla-permissive-2.0",
    "CDLA-Sharing-1.0": "cdla-sharing-1.0",
    "GPL-3.0-only": "gpl-3.0",
    "ODC-By-1.0": "odc-by",
    "ODbL-1.0": "odbl",
    "PDDL-1.0": "pddl",
    "Unlicense": "unlicense",
}
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)


@dataclass(frozen=True, slots=True)
class CardTeacher:
    """A model that wrote part of the rows: its alias, what was asked for, what the replies named."""

    alias: str
    model: str
    route: str
    role: str
    license: str | None = None
    served_models: tuple[str, ...] = ()


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
    """The gate's result over the rows that were published."""

    uses: tuple[str, ...]
    decision: str
    obligations: tuple[str, ...]
    registry_date: str
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class CardInfo:
    """Everything a card says.

    `license` is an SPDX expression or None where nobody evaluated it; `policy` None says so in the text.
    `counts` is the funnel in reading order, name -> candidates; `rejected_by` maps `stage/reason` to records.
    `languages` are ISO 639-1 codes. `logprobs`: whether the sidecar has all token ids; None: there is no sidecar.
    """

    name: str
    version: str
    train_rows: int
    test_rows: int
    rejected_rows: int
    counts: Mapping[str, int]
    description: str = ""
    license: str | None = None
    languages: tuple[str, ...] = ()
    teachers: tuple[CardTeacher, ...] = ()
    prompts: tuple[CardPrompt, ...] = ()
    filters: CardFilters | None = None
    policy: CardPolicy | None = None
    rejected_by: Mapping[str, int] | None = None
    logprobs: bool | None = None


def dataset_card(info: CardInfo) -> str:
    """The whole `README.md`, ending with a newline."""
    front = yaml.safe_dump(_front_matter(info), sort_keys=False, allow_unicode=True, width=100)
    sections = [
        f"# {_text(info.name)}",
        _text(info.description),
        f"Synthetic conversations for supervised fine-tuning, written by language models and collected with "
        f"synthgen {_text(info.version)}. The text is machine-generated; nobody has checked every record.",
        *_loading(info),
        *_origin(info),
        *_counts(info),
        *_policy(info),
    ]
    body = "\n\n".join(section for section in sections if section)
    return f"---\n{front}---\n\n{body}\n"


def configs_card(name: str, configs: Sequence[str]) -> str:
    """The `README.md` over several datasets that may not stand in one: each is a config with a card of its own."""
    listed: list[JSONValue] = [
        {"config_name": config, "data_files": [{"split": "train", "path": f"{config}/data/*.parquet"}]}
        for config in configs
    ]
    matter: dict[str, JSONValue] = {"pretty_name": name, "tags": ["synthetic", "synthgen"], "configs": listed}
    front = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=100)
    links = "\n".join(f"- [{_text(config)}]({config}/README.md)" for config in configs)
    return (
        f"---\n{front}---\n\n# {_text(name)}\n\nThe terms behind these rows do not all go together, so each config "
        f"stands alone, with its own card, licence and policy files:\n\n{links}\n"
    )


def _front_matter(info: CardInfo) -> dict[str, JSONValue]:
    splits: list[JSONValue] = [{"split": "train", "path": "data/train-*.parquet"}]
    if info.test_rows:
        splits.append({"split": "test", "path": "data/test-*.parquet"})
    configs: list[JSONValue] = [{"config_name": "default", "default": True, "data_files": splits}]
    if info.rejected_rows:
        rejected: JSONValue = [{"split": "train", "path": "rejected/rejected-*.parquet"}]
        configs.append({"config_name": "rejected", "data_files": rejected})
    front: dict[str, JSONValue] = {"pretty_name": info.name}
    if info.languages:
        front["language"] = list(info.languages)
    return {
        **front,
        **_license_keys(info.license),
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "synthgen"],
        "language_creators": ["machine-generated"],
        "size_categories": [_size(info.train_rows + info.test_rows)],
        "configs": configs,
    }


def _license_keys(expression: str | None) -> dict[str, JSONValue]:
    if expression is None:
        return {"license": "unknown"}
    if expression in _HUB_LICENSES:
        return {"license": _HUB_LICENSES[expression]}
    # The hub takes a name of lower-case words; the expression itself stands in the text.
    name = re.sub(r"[^a-z0-9.]+", "-", expression.lower()).strip("-")
    return {"license": "other", "license_name": name or "other", "license_link": "LICENSES/README.md"}


def _size(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "n>1B")


def _loading(info: CardInfo) -> list[str]:
    splits = f"train {info.train_rows:,} rows" + (f", test {info.test_rows:,} rows" if info.test_rows else "")
    lines = ["from datasets import load_dataset", "", 'data = load_dataset("path/to/this/folder")']
    if info.rejected_rows:
        lines.append('dropped = load_dataset("path/to/this/folder", "rejected")  # with stage and reason')
    code = "\n".join(lines)
    labels = []
    if info.logprobs is not None:
        ids = (
            "Every token has its id in the teacher's vocabulary."
            if info.logprobs
            else "Token ids are not complete: they tell how sure a teacher was, and are no training targets."
        )
        labels = [
            f"`logprobs/*.parquet` joins by `id` as well: the teacher's log-probabilities of each token. {ids}"
        ]
    return [
        "## Load",
        f"```python\n{code}\n```",
        f"Splits: {splits}. Each row has `messages` (role, content) and its lineage; `lineage/*.parquet` joins "
        "by `id` and tells of every request that led to a record.",
        *labels,
    ]


def _origin(info: CardInfo) -> list[str]:
    out = []
    if info.teachers:
        rows = (
            (t.alias, t.role, t.model, t.route, ", ".join(t.served_models), t.license or "not stated")
            for t in info.teachers
        )
        head = ("teacher", "role", "model", "route", "served as", "licence")
        out += ["## Teachers", _table(head, rows)]
    if info.prompts:
        prompts = ((p.step, p.name, p.version) for p in info.prompts)
        out += ["## Prompts", _table(("step", "prompt", "version"), prompts)]
    if info.filters:
        steps = ((str(n), step) for n, step in enumerate(info.filters.steps, 1))
        chain = f"Chain {_text(info.filters.chain)}, version {_text(info.filters.version)}."
        out += ["## Filters", chain, _table(("order", "filter"), steps) if info.filters.steps else ""]
    return out


def _counts(info: CardInfo) -> list[str]:
    out = []
    if info.counts:
        counts = ((name, f"{count:,}") for name, count in info.counts.items())
        out += ["## Counts", _table(("candidates", "count"), counts)]
    if info.rejected_by:
        # Most frequent first; equal counts by name, so that the text does not depend on the mapping's order.
        reasons = sorted(info.rejected_by.items(), key=lambda item: (-item[1], item[0]))
        out.append(_table(("rejected by", "count"), ((name, f"{count:,}") for name, count in reasons)))
    return out


def _policy(info: CardInfo) -> list[str]:
    licence = f"Licence expression: {_text(info.license)}." if info.license else "Licence: not evaluated."
    if info.policy is None:
        return [
            "## Policy",
            "policy: unevaluated. Nobody has checked what the origin of these rows allows.",
            licence,
        ]
    policy = info.policy
    rows = (
        ("declared uses", ", ".join(policy.uses)),
        ("decision", policy.decision),
        ("obligations", ", ".join(policy.obligations) or "none"),
        ("rules as of", policy.registry_date),
        *(
            ()
            if policy.enforced
            else (("enforced", "no: policy_enforced=false, this is a report and no permission"),)
        ),
    )
    note = "Engineering evidence, not legal advice; `POLICY.json` holds rules, sources and grades."
    return ["## Policy", _table(("what", "value"), rows), licence, note]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _text(value: str) -> str:
    """`value` as one line of Markdown that means only its own characters."""
    flat = " ".join(value.split())
    escaped = re.sub(r"([\\`*\[\]|#~])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
