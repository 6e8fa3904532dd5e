"""The story: plan, generate, refine again, publish, show. Reads like `docs/architecture.md`."""

from synthgen.pipeline.dedup import DedupOptions, dedup
from synthgen.pipeline.dedup_output import DedupReport
from synthgen.pipeline.gates import Gates, open_gates
from synthgen.pipeline.generate import Options, generate
from synthgen.pipeline.plan import Plan, make_plan
from synthgen.pipeline.progress import Progress
from synthgen.pipeline.refilter import FilterOptions, filter_foreign, recut
from synthgen.pipeline.report import Report
from synthgen.pipeline.resolve import resolve
from synthgen.pipeline.show import RowStory, RunSummary, row_story, summarise

__all__ = [
    "DedupOptions",
    "DedupReport",
    "FilterOptions",
    "Gates",
    "Options",
    "Plan",
    "Progress",
    "Report",
    "RowStory",
    "RunSummary",
    "dedup",
    "filter_foreign",
    "generate",
    "make_plan",
    "open_gates",
    "recut",
    "resolve",
    "row_story",
    "summarise",
]
