"""The card of a student: what it was made from, and what goes along with it.

In: its lineage and numbers. Out: the README.md of its folder. Guarantee: it claims no licence; it names what the student
descends from, and passes on every duty the policy found.
"""

from collections.abc import Mapping

import yaml

from synthgen.dataclasses import dataclass

__all__ = ["Lineage", "student_card"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """`pipeline`: what the hub calls its task. `known`: the data was published by synthgen, so that `obligations` are all there are to its knowledge."""

    name: str
    base: str
    revision: str | None
    dataset: str
    dataset_digest: str
    method: str
    obligations: tuple[str, ...]
    known: bool
    pipeline: str = "text-generation"


def student_card(lineage: Lineage, numbers: Mapping[str, str]) -> str:
    """The text of README.md."""
    head = yaml.safe_dump(
        {
            "base_model": lineage.base,
            "library_name": "transformers",
            "pipeline_tag": lineage.pipeline,
            "tags": ["synthgen", "distillation"],
        },
        sort_keys=True,
    )
    base = f"`{lineage.base}`" + (f" at `{lineage.revision}`" if lineage.revision else "")
    rows = "\n".join(f"| {name} | {value} |" for name, value in numbers.items())
    return f"""---
{head}---

# {lineage.name}

A student of {base}, trained ({lineage.method}) on `{lineage.dataset}` (sha256 `{lineage.dataset_digest}`). `student.json`
holds what it was made from, `metrics.jsonl` every step, `sample.txt` one sequence with what was trained on.

| | |
|---|---|
{rows}

![loss by step](loss.svg)

## Duties

{_duties(lineage)}
"""


def _duties(lineage: Lineage) -> str:
    licence = "The licence of the base model goes along with the student."
    if not lineage.known:
        return f"{licence} The data was not published by synthgen, so its terms are not known here: look them up."
    if not lineage.obligations:
        return f"{licence} The policy of the dataset asks for nothing beyond it."
    listed = "\n".join(f"- {duty}" for duty in lineage.obligations)
    return f"{licence} The dataset's policy asks for:\n\n{listed}"
