"""What is typed on the command line about teachers and users, as the words of the policy."""

from collections.abc import Sequence
from typing import cast, get_args

from pydantic import ValidationError

from synthgen.assets import suggest
from synthgen.errors import UsageError
from synthgen.pipeline import Export, OnDeny
from synthgen.policy import Part, PartRole
from synthgen.recipe.model import SEED_RELATIONS, Actor

__all__ = ["actor_facts", "export_choice", "on_deny_choice", "part_given"]


def actor_facts(given: Sequence[str]) -> Actor:
    """`name=value` facts.

    Raises:
        UsageError: a fact is unknown or out of range.
    """
    try:
        return Actor.model_validate(dict(_pair(item) for item in given))
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(f"--actor {problem['loc'][0]}: {problem['msg']}") from error


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise UsageError(f"--actor {item}: write it as name=value")
    return name, value


def on_deny_choice(word: str) -> OnDeny:
    """One of fail, drop, split.

    Raises:
        UsageError: it is none of them.
    """
    return cast(OnDeny, _one_of("--on-deny", word, get_args(OnDeny)))


def export_choice(word: str) -> Export:
    """What `policy export` can write.

    Raises:
        UsageError: it is none of them.
    """
    return cast(Export, _one_of("export", word, get_args(Export)))


def part_given(
    teacher: str, route: str, hf: str | None, role: str, seed: str, upstream: tuple[str, ...]
) -> Part:
    """The part of `policy explain`; `seed` is a licence, or `licence:relation`.

    Raises:
        UsageError: role or relation is unknown.
    """
    licence, _, relation = seed.rpartition(":") if ":" in seed else (seed, "", "adapted")
    return Part(
        alias=teacher,
        provider="",
        route=route,
        model=teacher,
        hf=hf,
        role=cast(PartRole, _one_of("--role", role, get_args(PartRole))),
        row_license=licence,
        seed_relation=cast(SEED_RELATIONS, _one_of("--seed", relation, get_args(SEED_RELATIONS))),
        upstream=upstream,
    )


def _one_of(option: str, word: str, known: tuple[str, ...]) -> str:
    if word not in known:
        raise UsageError(f"{option}: unknown {word!r}{suggest(word, list(known))}; one of {', '.join(known)}")
    return word
