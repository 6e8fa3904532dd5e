"""Licence expressions: what binds rows or weights, in the words of SPDX, checked by a parser.

In: our licence ids, seed licences as users write them. Out: expressions in canonical form. Guarantees: every symbol is
an SPDX id or a `LicenseRef-synthgen-*` that LICENSES/README.md explains; repeated terms appear once; text that is no
expression never passes as one.
Rejected: the parser's own references (`LicenseRef-scancode-*`): they lack Llama 3, Gemma of 2025 and Qwen of 2024.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Protocol, cast

__all__ = ["REF", "all_of", "symbols"]

REF = "LicenseRef-synthgen-"


class _Symbol(Protocol):
    key: str


class _Expression(Protocol):
    def simplify(self) -> "_Expression": ...

    def subs(self, substitutions: Mapping[_Symbol, "_Expression"]) -> "_Expression": ...


class _Licensing(Protocol):
    """What we use of `license_expression.Licensing`, which has no types."""

    def parse(self, expression: str) -> _Expression: ...

    def AND(self, *expressions: _Expression) -> _Expression: ...  # noqa: N802  # their name

    def license_keys(self, expression: str) -> list[str]: ...

    def unknown_license_symbols(self, expression: _Expression) -> list[_Symbol]: ...


def all_of(licences: Iterable[str]) -> str:
    """One expression that wants all of them; '' for none.

    A licence is an expression or one of our ids. What SPDX does not know becomes a reference; so does a text that
    cannot be parsed, as a whole.
    """
    parts = [_parsed(text) for text in sorted(set(licences))]
    if not parts:
        return ""
    licensing = _licensing()
    return str((licensing.AND(*parts) if len(parts) > 1 else parts[0]).simplify())


def symbols(expression: str) -> list[str]:
    """The ids in an expression, sorted."""
    return sorted(_licensing().license_keys(expression))


@cache
def _licensing() -> _Licensing:
    from license_expression import get_spdx_licensing  # reading the SPDX list takes a tenth of a second

    return cast(_Licensing, get_spdx_licensing())


@cache
def _parsed(text: str) -> _Expression:
    from license_expression import ExpressionError, ExpressionParseError

    licensing = _licensing()
    try:
        parsed = licensing.parse(text)
    except (ExpressionError, ExpressionParseError):
        return licensing.parse(_reference(text))
    unknown = [s for s in licensing.unknown_license_symbols(parsed) if not s.key.startswith("LicenseRef-")]
    return parsed.subs({symbol: licensing.parse(_reference(symbol.key)) for symbol in unknown})


def _reference(name: str) -> str:
    return REF + re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")
