"""Whether what a recipe selects by can be in its records, said before anything is paid.

In: a recipe, its chain and judges. Out: nothing, or an error at the line of `refine.select.by`. A filter may turn out to
give no score; publishing says so then.
"""

from collections.abc import Iterator

from synthgen.assets import suggest
from synthgen.errors import RecipeError
from synthgen.pipeline.judged import Judging
from synthgen.pipeline.judgement import BEST_OF_STEP, JUDGE_STEP
from synthgen.pipeline.judging import OVERALL
from synthgen.recipe.load import LoadedRecipe
from synthgen.refine import Chain
from synthgen.shape import RecordShape

__all__ = ["check_select"]


def check_select(loaded: LoadedRecipe, chain: Chain, judging: Judging, shape: RecordShape) -> None:
    """Look for the score or column that `refine.select` names.

    Raises:
        RecipeError: nothing in the recipe gives such a score, or records have no such column.
    """
    select = loaded.recipe.refine.select
    if select is None or select.kind == "diversity":
        return
    if select.kind == "score":
        known, problem = [*_scores(chain, judging)], "nothing in this recipe gives such a score"
    else:
        known, problem = _columns(shape), "records have no such column"
    for name in select.scores or (select.name,):
        if name not in known:
            there = ", ".join(known) or "none"
            where = loaded.where("refine", "select", "by")
            raise RecipeError(
                f"{where}: refine.select.by: {select.by}: {problem}{suggest(name, known)}; there are: {there}"
            )


def _scores(chain: Chain, judging: Judging) -> Iterator[str]:
    """What scores may be called in the records."""
    yield from (step.id for step in chain.steps)
    panel, contest = judging.panel, judging.contest
    if panel is not None and panel.ship_score:
        yield JUDGE_STEP
        criteria = dict.fromkeys(name for judge in panel.judges for name in judge.weights)
        yield from (f"{JUDGE_STEP}:{name}" for name in criteria if name != OVERALL)
        if len(panel.judges) > 1:
            yield from (f"{JUDGE_STEP}@{judge.name}" for judge in panel.judges)
            yield f"{JUDGE_STEP}:spread"
    if contest is not None and contest.ship_score and contest.comparers:
        yield BEST_OF_STEP


def _columns(shape: RecordShape) -> list[str]:
    """Those with one plain value each."""
    from synthgen.schema import record_schema  # polars, which a run that only asks does not load

    return [name for name, dtype in record_schema(shape).items() if not dtype.is_nested()]
