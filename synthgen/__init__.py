"""synthgen: prompts to supervised fine-tuning data, through teacher language models.

The verbs of the command line as functions over the same code:

    import synthgen
    report = synthgen.generate("recipe.yaml", out="runs/mine")

Nothing heavy is imported before a verb is called.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthgen.api import (
        DedupOptions,
        FilterOptions,
        Options,
        Report,
        ReportOptions,
        SynthgenError,
        dedup,
        doctor,
        filter,
        generate,
        judge_calibrate,
        load_recipe,
        plan,
        policy_attest,
        policy_check,
        policy_export,
        policy_student,
        recipe_schema,
        report,
        show,
    )

__all__ = [
    "DedupOptions",
    "FilterOptions",
    "Options",
    "Report",
    "ReportOptions",
    "SynthgenError",
    "dedup",
    "doctor",
    "filter",
    "generate",
    "judge_calibrate",
    "load_recipe",
    "plan",
    "policy_attest",
    "policy_check",
    "policy_export",
    "policy_student",
    "recipe_schema",
    "report",
    "show",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("synthgen.api"), name)
    raise AttributeError(f"module 'synthgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
