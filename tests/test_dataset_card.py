"""The dataset card: front matter for the hub, tables for people."""

from dataclasses import replace

import pytest
import yaml

from synthgen.dataset.about import (
    CardFilters,
    CardInfo,
    CardPolicy,
    CardPrompt,
    CardTeacher,
    CardTerms,
    CardUse,
)
from synthgen.dataset.card import dataset_card

INFO = CardInfo(
    name="support-triage",
    version="0.1.0",
    train_rows=980,
    test_rows=20,
    rejected_rows=40,
    counts={"planned": 1040, "accepted": 1000, "rejected": 40},
    description="Tickets and their labels.",
    license="Apache-2.0",
    hub_license="apache-2.0",
    languages=("en", "no"),
    teachers=(
        CardTeacher("big", "qwen3", "self-hosted", "teacher", "Apache-2.0", ("qwen3", "Qwen3-8B"), 1000),
    ),
    prompts=(CardPrompt("label", "answer", "1"),),
    filters=CardFilters("sft_default", "2", ("length (min_chars: 20)", "refusal")),
    policy=CardPolicy(
        ("train-general",),
        "allow_with_obligations",
        ("DISCLOSE-AI",),
        "2026-08-22",
        evaluated="2026-11-21",
        downstream=(
            CardUse("train-general", "allow_with_obligations", "DISCLOSE-AI"),
            CardUse("publish-weights", "deny", "big.1 (Terms 1)"),
        ),
        terms=(CardTerms("route", "Terms, 2026-01-01 (seen 2026-08-22, V)", "https://example.org/terms"),),
    ),
    generations={1: 990, 2: 10},
    seeds={("own", "adapted"): 1000},
    rejected_by={"length/too_short": 10, "dedup/near": 30},
)


def _front(info: CardInfo) -> dict[str, object]:
    card = dataset_card(info)
    assert card.startswith("---\n")
    front = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(front, dict)
    return front


def test_whole_card() -> None:
    assert (
        dataset_card(INFO)
        == """\
---
pretty_name: support-triage
language:
- en
- 'no'
license: apache-2.0
task_categories:
- text-generation
tags:
- synthetic
- synthgen
- synthgen:teacher:qwen3
- synthgen:policy:allow_with_obligations
language_creators:
- machine-generated
annotations_creators:
- machine-generated
size_categories:
- 1K<n<10K
configs:
- config_name: default
  default: true
  data_files:
  - split: train
    path: data/train-*.parquet
  - split: test
    path: data/test-*.parquet
- config_name: rejected
  data_files:
  - split: train
    path: rejected/rejected-*.parquet
---

# support-triage

Tickets and their labels.

Synthetic conversations for supervised fine-tuning, written by language models and collected with synthgen 0.1.0. The text is machine-generated; nobody has checked every record.

## Load

```python
from datasets import load_dataset

data = load_dataset("path/to/this/folder")
dropped = load_dataset("path/to/this/folder", "rejected")  # with stage and reason
```

Splits: train 980 rows, test 20 rows. Each row has `messages` (role, content) and its lineage; `lineage/*.parquet` joins by `id` and tells of every request that led to a record.

## Teachers

| teacher | role | model | route | served as | licence | rows | generation |
| --- | --- | --- | --- | --- | --- | --- | --- |
| big | teacher | qwen3 | self-hosted | qwen3, Qwen3-8B | Apache-2.0 | 1,000 | 1 |

## Source texts

| licence | relation to the rows | rows |
| --- | --- | --- |
| own | adapted | 1,000 |

## Generations

| generation | rows |
| --- | --- |
| 1 | 990 |
| 2 | 10 |

Generation 1: the writers learned from people's texts, as far as is known. Each number above it is a round of training on a model's answers behind the writer, or a source text that a model wrote. **Each round loses some of what the first teacher knew, rare things first; mix in rows of generation 1 or people's texts.**

## Prompts

| step | prompt | version |
| --- | --- | --- |
| label | answer | 1 |

## Filters

Chain sft_default, version 2.

| order | filter |
| --- | --- |
| 1 | length (min_chars: 20) |
| 2 | refusal |

## Counts

| candidates | count |
| --- | --- |
| planned | 1,040 |
| accepted | 1,000 |
| rejected | 40 |

| rejected by | count |
| --- | --- |
| dedup/near | 30 |
| length/too_short | 10 |

## Policy

| what | value |
| --- | --- |
| declared uses | train-general |
| decision | allow_with_obligations |
| obligations | DISCLOSE-AI |
| rules as of | 2026-08-22 |
| decided for | 2026-11-21 |

Licence expression: Apache-2.0.

Engineering evidence, not legal advice; `POLICY.json` holds rules, sources and grades, `OBLIGATIONS.md` what is owed, `NOTICE` and `LICENSES/` whose texts bind.

### Texts decided by

| what | text | address |
| --- | --- | --- |
| route | Terms, 2026-01-01 (seen 2026-08-22, V) | https://example.org/terms |

### Permitted downstream uses

| use | decision | because |
| --- | --- | --- |
| train-general | allow_with_obligations | DISCLOSE-AI |

### Barred downstream uses, `review` until a person has decided

| use | decision | because |
| --- | --- | --- |
| publish-weights | deny | big.1 (Terms 1) |

### Summary of training content: synthetic data

For the public summary that Article 53(1)(d) of Regulation (EU) 2024/1689 asks of providers of general-purpose models, which lists synthetic data as a category of its own.

| what | value |
| --- | --- |
| data category | synthetic data, generated by models for training |
| modality | text |
| size | 1,000 records |
| languages | en, no |
| models that generated it | qwen3 by self-hosted |
| generated by a model trained on model output | 10 records (generation 2 or above) |
| aim | train-general |
| method | supervised fine-tuning data: prompts answered by the models above, then filtered |
| source texts | own (adapted) |
"""
    )


def test_configs_name_only_files_that_exist() -> None:
    front = _front(replace(INFO, test_rows=0, rejected_rows=0))

    assert front["configs"] == [
        {
            "config_name": "default",
            "default": True,
            "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
        }
    ]


def test_a_licence_the_hub_does_not_know_is_other_with_a_name() -> None:
    front = _front(replace(INFO, license="Apache-2.0 AND LicenseRef-llama3.3", hub_license="other"))

    assert front["license"] == "other"
    assert front["license_name"] == "apache-2.0-and-licenseref-llama3.3"
    assert front["license_link"] == "LICENSES/README.md"


def test_unevaluated_policy_is_said_and_gives_no_licence() -> None:
    info = replace(INFO, policy=None, license=None)

    assert "policy: unevaluated" in dataset_card(info)
    assert _front(info)["license"] == "unknown"


@pytest.mark.parametrize(
    ("rows", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (2 * 10**9, "n>1B")],
)
def test_size_category_is_the_hubs(rows: int, size: str) -> None:
    assert _front(replace(INFO, train_rows=rows, test_rows=0))["size_categories"] == [size]


def test_user_text_cannot_break_a_table_or_bring_markup() -> None:
    teacher = CardTeacher("a|b\nc", "<img src=x>", "[x](http://y)", "`teacher`")

    card = dataset_card(replace(INFO, teachers=(teacher,)))

    assert (
        "| a\\|b c | \\`teacher\\` | &lt;img src=x&gt; | \\[x\\](http://y) |  | not stated |  | 1 |" in card
    )


def test_user_text_cannot_break_the_front_matter() -> None:
    name = "x: y\n---\nlicense: mit # &amp"

    assert yaml.safe_load(dataset_card(replace(INFO, name=name)).split("\n---\n\n")[0])["pretty_name"] == name
