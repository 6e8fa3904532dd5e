"""The dataset card: `README.md` with the front matter the Hugging Face hub and `datasets` read.

In: a `CardInfo` of plain values. Out: Markdown with YAML front matter. Guarantees: the same values give the same
text; whatever a user wrote into names and descriptions stays text (no table, link or HTML of its own); a licence
the hub does not know is never rounded to one it does.
Rejected: a Jinja template. Half of the text is tables and the front matter, which need code anyway.
"""

import re
from collections.abc import Iterable, Sequence

import yaml

from synthgen.dataset.about import CardInfo, CardPolicy
from synthgen.dataset.ai_act import ai_act_rows
from synthgen.types import JSONValue

__all__ = ["configs_card", "dataset_card"]

_OURS = "LicenseRef-synthgen-"  # before names of licences SPDX does not list
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)


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
        **_license_keys(info),
        "task_categories": ["text-generation"],
        "tags": _tags(info),
        "language_creators": ["machine-generated"],
        "annotations_creators": ["machine-generated"],
        "size_categories": [_size(info.train_rows + info.test_rows)],
        "configs": configs,
    }


def _tags(info: CardInfo) -> list[JSONValue]:
    """`synthetic` is the hub's convention; no field of its own names teachers, so tags do."""
    tags = ["synthetic", "synthgen"]
    tags += [f"synthgen:teacher:{teacher.model}" for teacher in info.teachers if teacher.role == "teacher"]
    if info.policy is None:
        return [*tags, "synthgen:policy:unevaluated"]
    tags.append(f"synthgen:policy:{info.policy.decision}")
    if not info.policy.enforced:
        tags.append("synthgen:policy-not-enforced")
    return list(dict.fromkeys(tags))


def _license_keys(info: CardInfo) -> dict[str, JSONValue]:
    if info.license is None:
        return {"license": "unknown"}
    if info.hub_license != "other":
        return {"license": info.hub_license}
    # The hub takes a name of lower-case words; the expression itself stands in the text.
    name = re.sub(r"[^a-z0-9.]+", "-", info.license.lower()).strip("-")
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
            (
                t.alias,
                t.role,
                t.model,
                t.route,
                ", ".join(t.served_models),
                (t.license or "not stated").replace(_OURS, ""),
                "" if t.rows is None else f"{t.rows:,}",
                str(t.generation),
            )
            for t in info.teachers
        )
        head = ("teacher", "role", "model", "route", "served as", "licence", "rows", "generation")
        out += ["## Teachers", _table(head, rows)]
    if info.seeds:
        seeds = (
            (licence, relation, f"{count:,}") for (licence, relation), count in sorted(info.seeds.items())
        )
        out += ["## Source texts", _table(("licence", "relation to the rows", "rows"), seeds)]
    out += _generations(info)
    if info.prompts:
        prompts = ((p.step, p.name, p.version) for p in info.prompts)
        out += ["## Prompts", _table(("step", "prompt", "version"), prompts)]
    if info.filters:
        steps = ((str(n), step) for n, step in enumerate(info.filters.steps, 1))
        chain = f"Chain {_text(info.filters.chain)}, version {_text(info.filters.version)}."
        out += ["## Filters", chain, _table(("order", "filter"), steps) if info.filters.steps else ""]
    return out


def _generations(info: CardInfo) -> list[str]:
    """Rounds of distillation behind the rows.

    Source of the warning: Shumailov et al. 2024, "AI models collapse when trained on recursively generated data".
    """
    if not info.generations:
        return []
    rows = ((str(number), f"{count:,}") for number, count in sorted(info.generations.items()))
    note = (
        "Generation 1: the writers learned from people's texts, as far as is known. Each number above it is a round of "
        "training on a model's answers behind the writer, or a source text that a model wrote."
    )
    if max(info.generations) > 1:
        note += (
            " **Each round loses some of what the first teacher knew, rare things first; mix in rows of generation 1 or "
            "people's texts.**"
        )
    return ["## Generations", _table(("generation", "rows"), rows), note]


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
    return [
        "## Policy",
        _table(("what", "value"), _decided(info.policy)),
        licence,
        "Engineering evidence, not legal advice; `POLICY.json` holds rules, sources and grades, `OBLIGATIONS.md` what is "
        "owed, `NOTICE` and `LICENSES/` whose texts bind.",
        *(f"Warning: {_text(warning)}." for warning in info.policy.warnings),
        *_terms(info.policy),
        *_downstream(info.policy),
        *_ai_act(info),
    ]


def _decided(policy: CardPolicy) -> list[tuple[str, str]]:
    rows = [
        ("declared uses", ", ".join(policy.uses)),
        ("decision", policy.decision),
        ("obligations", ", ".join(policy.obligations) or "none"),
        ("rules as of", policy.registry_date),
    ]
    if policy.evaluated:
        rows.append(("decided for", policy.evaluated))
    rows += [("lifted by", entry) for entry in policy.overrides]
    if not policy.enforced:
        rows.append(("enforced", "no: policy_enforced=false, this is a report and no permission"))
    return rows


def _terms(policy: CardPolicy) -> list[str]:
    if not policy.terms:
        return []
    rows = [(terms.kind, terms.name, terms.url) for terms in policy.terms]
    return ["### Texts decided by", _table(("what", "text", "address"), rows)]


def _downstream(policy: CardPolicy) -> list[str]:
    """What whoever gets these rows may do with them, as far as we know."""
    if not policy.downstream:
        return []
    allowed = [use for use in policy.downstream if use.decision.startswith("allow")]
    barred = [use for use in policy.downstream if not use.decision.startswith("allow")]
    head = ("use", "decision", "because")
    out = []
    for title, uses in (
        ("Permitted downstream uses", allowed),
        ("Barred downstream uses, `review` until a person has decided", barred),
    ):
        rows = [(use.use, use.decision, use.because) for use in uses]
        out += [f"### {title}", _table(head, rows) if rows else "None."]
    return out


def _ai_act(info: CardInfo) -> list[str]:
    return [
        "### Summary of training content: synthetic data",
        "For the public summary that Article 53(1)(d) of Regulation (EU) 2024/1689 asks of providers of general-purpose "
        "models, which lists synthetic data as a category of its own.",
        _table(("what", "value"), ai_act_rows(info)),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _text(value: str) -> str:
    """`value` as one line of Markdown that means only its own characters."""
    flat = " ".join(value.split())
    escaped = re.sub(r"([\\`*\[\]|#~])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
