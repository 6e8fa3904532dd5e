"""What steps and judges have in common when they are resolved: prompt, sampling, what is captured.

In: a loaded recipe, a place in it, and what stands there. Out: the checked value; errors name file and line.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from synthgen.asking import TeacherSpec
from synthgen.assets import Kind
from synthgen.errors import RecipeError, UsageError
from synthgen.recipe.load import LoadedRecipe
from synthgen.recipe.model import SamplingConfig
from synthgen.templates import Prompt, load_prompt
from synthgen.types import Sampling

__all__ = ["Find", "Loc", "capture_of", "prompt_at", "sampling_of"]

Loc = tuple[str | int, ...]
Find = Callable[[Kind, str], Path]


def capture_of(
    loaded: LoadedRecipe,
    at: Loc,
    wanted: int | None,
    aliases: Iterable[str],
    specs: Mapping[str, TeacherSpec],
) -> tuple[str, ...]:
    """What the replies of these teachers are asked to hold besides their text.

    Raises:
        RecipeError: one of them gives no logprobs, or not so many.
    """
    if wanted is None:
        return ()
    where = loaded.where(*at)
    for alias in aliases:
        config = specs[alias].config
        most = config.most_logprobs()
        if most is None:
            raise RecipeError(
                f"{where}: teacher {alias!r} (provider {config.provider}) gives no logprobs; "
                "use a `vllm` or `openai` teacher here, or leave `logprobs` out"
            )
        if wanted > most:
            raise RecipeError(
                f"{where}: {wanted} is more than the {most} that teacher {alias!r} gives a token"
            )
    return (f"logprobs:{wanted}",)


def sampling_of(
    loaded: LoadedRecipe,
    at: Loc,
    own: SamplingConfig,
    spec: TeacherSpec,
    cap_usd: float | None,
) -> Sampling:
    """What is set at `at` laid over the teacher's own; a cap makes prices and `max_tokens` mandatory.

    Raises:
        RecipeError: one of them is missing.
    """
    sampling = own.over(spec.config.sampling)
    where = loaded.where("teachers", spec.alias)
    needed = spec.config.speaks_messages or (cap_usd is not None and not _is_free(spec))
    if cap_usd is not None and spec.price is None:
        raise RecipeError(
            f"{where}.price: is required with a budget: no table price is known for {spec.config.model!r}; "
            "write price: {input: USD per million tokens, output: ...}"
        )
    if needed and sampling.max_tokens is None:
        why = "with a budget" if cap_usd is not None else "by this provider"
        raise RecipeError(
            f"{where}.sampling.max_tokens: is required {why} (or set it on {loaded.where(*at)})"
        )
    return sampling


def _is_free(spec: TeacherSpec) -> bool:
    return spec.price is not None and spec.price.input == spec.price.output == 0


def prompt_at(loaded: LoadedRecipe, find: Find, at: Loc, name: str) -> Prompt:
    """The prompt that is named at `at`.

    Raises:
        RecipeError: there is none, or it is not consistent.
    """
    try:
        return load_prompt(find("prompts", name))
    except UsageError as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{loaded.where(*at)}: {error}") from error
