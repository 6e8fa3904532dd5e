"""Text with holes: sandboxed Jinja2 over the fields of a row.

In: template text written by a recipe's or a prompt's author, and fields, which may hold anything. Out: text.
Guarantees: fields are values and never rendered again; the same fields give the same text (`random` and `lipsum` are
not there); a field the template needs and the row lacks is an error, never an empty string. Strings render as
themselves, null as nothing, every other JSON value as JSON.
Rejected: `str.format` (no conditions or loops, so prompts would grow code), plain Jinja2 (a template could call what
it likes; recipes and prompts are passed around).
"""

import re
from collections.abc import Mapping

import jinja2
import orjson
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError, SynthgenError
from synthgen.types import JSONValue

__all__ = ["Template", "TemplateError", "compile_template"]


class TemplateError(SynthgenError):
    """A row cannot be rendered. The message names a variable or the kind of problem, never a field's text."""


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: object, attribute: str) -> object:
        """A mapping's own key wins over a method of that name: `{{ persona.items }}`."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _as_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _shown(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool | float | dict | list | tuple):
        return _as_json(value)
    if isinstance(value, str | int | jinja2.Undefined):
        return value
    # A generator or a method prints its address, so one row would have several texts.
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _environment() -> _Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        autoescape=False,
        keep_trailing_newline=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja's own tojson escapes <, > and & for HTML pages; here the text goes to a model.
    environment.filters["tojson"] = _as_json
    for filters_or_globals in (environment.filters, environment.globals):
        for name in ("random", "lipsum"):  # they would give one row several texts
            filters_or_globals.pop(name, None)
    return environment


_ENVIRONMENT = _environment()
_ALONE = re.compile(r"\{\{ *([A-Za-z_]\w*) *\}\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template. `variables` are the fields it mentions, needed or not."""

    source: str
    variables: frozenset[str]
    _compiled: jinja2.Template
    _alone: str | None  # the field a template consists of, as most do: its text needs no engine

    def render(self, fields: Mapping[str, JSONValue]) -> str:
        """The text for these fields.

        Raises:
            TemplateError: a variable is missing, or an expression fails on these values.
        """
        if self._alone is not None and isinstance(text := fields.get(self._alone), str):
            return text
        try:
            return self._compiled.render(fields)
        except jinja2.UndefinedError as error:
            raise TemplateError(self._missing(str(error))) from error
        # A boundary: filters and operators raise whatever they like on values they do not expect, and their
        # messages quote the values. The row fails, with the kind of problem alone.
        except Exception as error:
            raise TemplateError(f"template fails with {type(error).__name__}") from error

    def _missing(self, message: str) -> str:
        """The missing name, if it stands in the template; a name computed from a field's text is not repeated."""
        for name in re.findall(r"'([A-Za-z_]\w*)' is undefined|has no attribute '([A-Za-z_]\w*)'", message):
            word = name[0] or name[1]
            if re.search(rf"\b{word}\b", self.source):
                return f"{word!r} is missing"
        return "a looked-up value is missing"


def compile_template(source: str, *, where: str) -> Template:
    """Compile template text; `where` (`recipe.yaml:14: output.record.user`) starts the error message.

    Raises:
        RecipeError: not valid Jinja2, or an unknown filter.
    """
    try:
        variables = meta.find_undeclared_variables(_ENVIRONMENT.parse(source))
        compiled = _ENVIRONMENT.from_string(source)
        compiled.globals = dict(compiled.globals)  # a ChainMap, walked twice a rendering: half of its time
        alone = _ALONE.fullmatch(source)
        name = alone[1] if alone and alone[1] in variables else None
        return Template(source, frozenset(variables), compiled, name)
    except jinja2.TemplateError as error:
        line = f", template line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise RecipeError(f"{where}: not a valid template{line}: {error.message}") from error
