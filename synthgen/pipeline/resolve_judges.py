"""The judges of a recipe, resolved: each teacher with each prompt, the rules over their scores, the contest.

In: a loaded recipe with its teachers. Out: `Judging`; errors name file and line. Nothing is sent.
"""

from collections.abc import Mapping
from dataclasses import replace

from synthgen.asking import TeacherSpec
from synthgen.assets import suggest
from synthgen.errors import RecipeError
from synthgen.pipeline.contest import Comparer, Contest
from synthgen.pipeline.judged import Judging
from synthgen.pipeline.judging import OVERALL, Judge, Panel
from synthgen.pipeline.privacy import ALLOW, Privacy
from synthgen.pipeline.resolve_parts import Find, capture_of, prompt_at, sampling_of
from synthgen.pipeline.tree import Step
from synthgen.recipe.load import LoadedRecipe
from synthgen.recipe.model import JudgeConfig
from synthgen.templates import Prompt

__all__ = ["resolve_judging"]

_AT = ("refine", "judge")
_BEST_AT = ("refine", "best_of")
_SPREAD = "spread"  # the score that says how far several judges lie apart


def resolve_judging(
    loaded: LoadedRecipe,
    find: Find,
    specs: Mapping[str, TeacherSpec],
    last: Step,
    cap_usd: float | None,
    privacy: Privacy = ALLOW,
) -> Judging:
    """Who judges what the step `last` brings.

    Raises:
        RecipeError: a prompt, rule, weight or teacher does not fit.
    """
    panel = _panel(loaded, find, specs, cap_usd)
    contest = _contest(loaded, find, specs, last, cap_usd)
    if panel is not None:
        panel = replace(panel, judges=tuple(replace(judge, privacy=privacy) for judge in panel.judges))
    if contest is not None:
        contest = replace(
            contest, comparers=tuple(replace(comparer, privacy=privacy) for comparer in contest.comparers)
        )
    return Judging(panel, contest, privacy)


def _panel(
    loaded: LoadedRecipe, find: Find, specs: Mapping[str, TeacherSpec], cap_usd: float | None
) -> Panel | None:
    config = loaded.recipe.refine.judge
    if config is None:
        return None
    prompts = [_scoring_prompt(loaded, find, name) for name in config.prompts()]
    _require_fitting(loaded, config, prompts)
    aliases = config.teachers()
    capture = capture_of(loaded, (*_AT, "capture", "logprobs"), config.capture.logprobs, aliases, specs)
    judges = tuple(
        Judge(
            name=_name(alias, prompt, len(aliases), len(prompts)),
            spec=specs[alias],
            prompt=prompt,
            sampling=sampling_of(loaded, _AT, config.sampling, specs[alias], cap_usd),
            weights={name: config.weights.get(name, weight) for name, weight in _weights(prompt).items()},
            # Scores are read as text; vLLM would name the alternatives by their ids alone.
            capture=(*capture, "texts") if capture else (),
        )
        for alias in aliases
        for prompt in prompts
    )
    if config.min_judges is not None and config.min_judges > len(judges):
        where = loaded.where(*_AT, "min_judges")
        raise RecipeError(f"{where}: {config.min_judges} is more than the {len(judges)} judges there are")
    most = len(judges) // 2 + 1
    return Panel(judges, config.rules(), config.ship_score, config.combine, config.min_judges or most)


def _name(alias: str, prompt: Prompt, teachers: int, prompts: int) -> str:
    if prompts == 1:
        return alias
    return prompt.name if teachers == 1 else f"{alias}/{prompt.name}"


def _weights(prompt: Prompt) -> dict[str, float]:
    return dict(prompt.reply.weights) or {"score": 1.0}


def _scoring_prompt(loaded: LoadedRecipe, find: Find, name: str) -> Prompt:
    where = loaded.where(*_AT, "prompt")
    prompt = prompt_at(loaded, find, (*_AT, "prompt"), name)
    # A question can be rated without its answer; then all its samples share one judgement.
    scores = prompt.reply.kind in ("score", "rubric")
    if {"instruction", *(() if scores else ("response",))} - set(prompt.inputs):
        compares = prompt.reply.kind == "preference"
        hint = "; a prompt that compares belongs to `refine.best_of`" if compares else ""
        raise RecipeError(
            f"{where}: a judge prompt takes instruction and response; {prompt.name!r} does not{hint}"
        )
    return prompt


def _require_fitting(loaded: LoadedRecipe, config: JudgeConfig, prompts: list[Prompt]) -> None:
    """Rules and weights name criteria that are there; scores that are combined have one range."""
    rubrics = [prompt for prompt in prompts if prompt.reply.kind == "rubric"]
    criteria = {name for prompt in rubrics for name, _ in prompt.reply.weights}
    for key, names in (("weights", config.weights), ("keep", config.rules())):
        for name in names:
            in_all = all(prompt in rubrics and name in _weights(prompt) for prompt in prompts)
            if (key == "keep" and name == OVERALL) or in_all or (key == "weights" and name in criteria):
                continue
            known = [*([OVERALL] if key == "keep" else []), *sorted(criteria)]
            where = loaded.where(*_AT, key)
            raise RecipeError(
                f"{where}: no criterion {name!r} in {' and '.join(prompt.name for prompt in prompts)}"
                f"{suggest(name, known)}; there is {', '.join(known) or 'none'}"
            )
    if len({prompt.score_range() for prompt in prompts}) > 1:
        ranges = ", ".join("{} {:g} to {:g}".format(p.name, *p.score_range()) for p in prompts)
        where = loaded.where(*_AT, "prompt")
        raise RecipeError(f"{where}: scores of different ranges cannot be combined: {ranges}")
    if _SPREAD in criteria:
        raise RecipeError(f"{loaded.where(*_AT, 'prompt')}: {_SPREAD!r} cannot name a criterion")


def _contest(
    loaded: LoadedRecipe,
    find: Find,
    specs: Mapping[str, TeacherSpec],
    last: Step,
    cap_usd: float | None,
) -> Contest | None:
    config = loaded.recipe.refine.best_of
    if config is None:
        return None
    if last.samples <= config.keep:
        raise RecipeError(
            f"{loaded.where(*_BEST_AT)}: keeps the best {config.keep} of the samples of one question, but step "
            f"{last.name!r} has {last.samples}: write `samples: {config.keep + 1}` or more there"
        )
    if last.prompt.reply.kind == "list":
        raise RecipeError(
            f"{loaded.where(*_BEST_AT)}: compares answers; step {last.name!r} gives lists of them"
        )
    if config.teacher is None and loaded.recipe.refine.judge is None:
        raise RecipeError(
            f"{loaded.where(*_BEST_AT)}: by what? name a `teacher` that compares, or a `refine.judge` whose score decides"
        )
    prompt = prompt_at(loaded, find, (*_BEST_AT, "prompt"), config.prompt)
    if prompt.reply.kind != "preference" or {"instruction", "response_a", "response_b"} - set(prompt.inputs):
        raise RecipeError(
            f"{loaded.where(*_BEST_AT, 'prompt')}: a comparing prompt takes instruction, response_a and response_b and "
            f"replies with a preference; {prompt.name!r} does not"
        )
    comparers = tuple(
        Comparer(
            alias, specs[alias], prompt, sampling_of(loaded, _BEST_AT, config.sampling, specs[alias], cap_usd)
        )
        for alias in config.teachers()
    )
    return Contest(comparers, config.keep, config.ship_score)
