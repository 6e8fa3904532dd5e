"""Do the templates of a recipe find their fields? Asked before anything is paid.

In: a resolved recipe and the first rows of its source. Out: nothing, or a `RecipeError` that names the template and the
field no row will ever have. A field that only some rows lack is no error: those rows become rejects.
"""

from collections.abc import Iterable, Iterator

from synthgen.errors import RecipeError
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.rows import Row
from synthgen.templates import Template

__all__ = ["require_fields"]

Missing = tuple[tuple[str | int, ...], str]


def require_fields(resolved: Resolved, rows: Iterable[Row]) -> None:
    """Refuse a recipe in which every one of `rows` lacks the same field.

    Raises:
        RecipeError: names the key of the recipe, the field, and what there is.
    """
    common: dict[Missing, None] | None = None
    known: set[str] = set()
    for row in rows:
        missing = dict.fromkeys(_missing(resolved, set(row.fields)))
        common = missing if common is None else {key: None for key in common if key in missing}
        known |= set(row.fields)
    if not common:
        return
    at, field = next(iter(common))
    given = {name for step in resolved.tree.steps for name in step.prompt.outputs}
    raise RecipeError(
        f"{resolved.loaded.where(*at)}: no row has the field {field!r}; the source has {_names(known)}, "
        f"the steps add {_names(given)}"
    )


def _missing(resolved: Resolved, have: set[str]) -> Iterator[Missing]:
    """What a row with these fields lacks, in the order it would be needed."""
    for number, step in enumerate(resolved.tree.steps):
        for name, template in step.rename.items():
            yield from (
                (("steps", number, "with", name), field) for field in sorted(_needed(template) - have)
            )
        required = {name for name, spec in step.prompt.inputs.items() if spec.required}
        for field in sorted(required - have - set(step.rename)):
            yield ("steps", number, "prompt"), field
        have = have | set(step.prompt.outputs)
    record = resolved.tree.record
    templates = {"system": record.system, "user": record.user, "assistant": record.assistant}
    for role, text in templates.items():
        for field in sorted(_needed(text) - have) if text else ():
            yield ("output", "record", role), field


def _needed(template: Template) -> frozenset[str]:
    """Fields a template cannot do without; one that asks whether a field is there can."""
    return (
        frozenset[str]()
        if "defined" in template.source or "default" in template.source
        else template.variables
    )


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
