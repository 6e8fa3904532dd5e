"""Which model a name means: names to families, licences and ancestors; and whether two names are one model.

In: a registry and names as a recipe or a reply spells them. Out: the `ModelFamily`, or None for unknown.
Guarantee: a name is only known if every piece of it is. Patterns know two stars: `*` stands for usual pieces (sizes,
dates, `instruct`, quantisations), so that `qwen3-8b-mycorp` is not taken for `qwen3-8b`; `**` stands for anything and
is for closed models, which nobody else can publish. An organisation, where written, must be the family's own.
Rejected: plain globs (any fine-tune would inherit the permission of its base's name).
"""

import re
from functools import cache, lru_cache

from synthgen.policy.registry import ModelFamily, Registry, Route

__all__ = ["SELF_HOSTED", "candidates", "resolve", "same_identity"]

SELF_HOSTED = "self-hosted"

_PIECE = (
    r"(?:\d+(?:\.\d+)?[bmkt]|\d+x\d+b|[aeh]\d+(?:\.\d+)?[bm]|\d+e|\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{4,8}|v\d+(?:\.\d+)*"
    r"|instruct|chat|it|base|hf|pt|thinking|think|reasoning|preview|exp|terminus|zero|lite|flash|air|free|latest"
    r"|micro|tiny|mini|small|medium|large|plus|h|vision|multimodal|scout|maverick|math|coder|vl|next|distill"
    r"|fp8|fp16|bf16|int4|int8|nvfp4|mxfp4|awq|gptq|gguf|bnb|4bit|8bit|q\d(?:[._]\w+)?|qat)"
)
_TAIL = rf"(?:[-_.:]?{_PIECE})*"
_SNAPSHOT = re.compile(r"[-_@:.]?(?:\d{4}-\d{2}-\d{2}|\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{3})$")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern.lower())
    stars = {"**": ".*", "*": _TAIL}
    return re.compile("".join(stars.get(part) or re.escape(part) for part in parts))


def _fits(pattern: str, bare: str) -> bool:
    # Most patterns fail at once here, and are then never compiled: that takes a millisecond each.
    return (
        bare.startswith(pattern.lower().partition("*")[0]) and _compiled(pattern).fullmatch(bare) is not None
    )


def _split(name: str) -> tuple[str, str] | None:
    """Organisation ('' where none is written) and bare name, lower-case, revision cut; None for a path."""
    org, slash, bare = name.lower().partition("@")[0].rpartition("/")
    return None if "/" in org or (slash and not org) or not bare else (org, bare)


@lru_cache(maxsize=4096)
def candidates(registry: Registry, name: str) -> tuple[ModelFamily, ...]:
    """Every family the name fits, whatever the route; the most exact pattern first.

    An alias counts where no family has the name, a user's own family where no shipped one has it.
    """
    found = _fitting(registry, name)
    other = registry.aliases.get(name.lower())
    if not found and other is not None:
        found = _fitting(registry, other)
    shipped = tuple(family for family in found if family.id not in registry.theirs)
    return shipped or found


def _fitting(registry: Registry, name: str) -> tuple[ModelFamily, ...]:
    parts = _split(name)
    if parts is None:
        return ()
    org, bare = parts
    found: list[tuple[int, ModelFamily]] = []
    for family in registry.families.values():
        if org and org not in family.orgs:
            continue
        exact = [len(pattern.replace("*", "")) for pattern in family.names if _fits(pattern, bare)]
        if exact:
            found.append((max(exact), family))
    return tuple(family for _, family in sorted(found, key=lambda pair: -pair[0]))


def _served_on(family: ModelFamily, route: Route) -> bool:
    """Whether the route can offer the family: the vendor's own, any published weights, or a router."""
    if route.id in family.routes:
        return True
    return (
        family.weights == "open"
        if route.serves == "open"
        else route.serves == "any" and family.weights != "service"
    )


@lru_cache(maxsize=4096)
def resolve(registry: Registry, model: str, hf: str | None, route: str) -> ModelFamily | None:
    """The family of a teacher at a route; a declared `hf` decides, else the model's name is tried.

    On somebody else's machines `hf` does not hide a model of the vendor: `gpt-5.4` at a router stays what it is called.
    None: unknown name, or a name this route cannot serve (a closed model behind a self-hosted proxy).
    """
    known = registry.route(route)
    if known is None:
        return None
    named = [family for family in candidates(registry, model) if _served_on(family, known)]
    if hf is None or (known.id != SELF_HOSTED and named and named[0].weights != "open"):
        return named[0] if named else None
    fitting = [family for family in candidates(registry, hf) if _served_on(family, known)]
    return fitting[0] if fitting else None


def same_identity(
    registry: Registry, requested: str, served: str | None, served_as: tuple[str, ...] = ()
) -> bool:
    """Whether the served model is the one that was asked for (gate 2).

    Yes if the reply names none, the same, or one listed in `served_as`; or if both names have one family (hence
    the same licences) and one is a snapshot of the other: `gpt-4o-mini` and `gpt-4o-mini-2024-07-18`, but neither
    `gpt-4o` nor another date.
    """
    if served is None or served == requested or served in served_as:
        return True
    if not _snapshots(requested, served):
        return False
    ours, theirs = candidates(registry, requested), candidates(registry, served)
    return bool(ours and theirs) and ours[0].id == theirs[0].id


def _snapshots(one: str, other: str) -> bool:
    names = [_split(name) for name in (one, other)]
    if names[0] is None or names[1] is None:
        return False
    (org_a, a), (org_b, b) = names[0], names[1]
    if org_a and org_b and org_a != org_b:
        return False
    a, b = a.removesuffix("-latest"), b.removesuffix("-latest")
    return a == b or _SNAPSHOT.sub("", a) == b or a == _SNAPSHOT.sub("", b)
