"""How long the server asks us to wait: retry-after in all its spellings, and the rate-limit headers.

In: reply headers with lower-case names, and the time now (the reply's own `date` header where it has one, so that
a wrong clock here does not matter). Out: seconds, or None where nothing usable is said. Guarantee: garbage is ignored,
never raised. Whoever waits decides how long a wait is believed (a proxy once said 1e9 seconds).

Sources: RFC 9110 10.2.3 (`retry-after`); rate-limit guides of OpenAI, Anthropic, Groq, Cerebras and DigitalOcean for the
vendor headers.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from synthgen.asking.outcome import LimitKind, SeenLimit
from synthgen.dataclasses import dataclass

__all__ = ["Wait", "named_limits", "read_limits", "read_wait"]

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d{1,15}(?:\.\d{1,15})?)(ms|us|µs|ns|d|h|m|s)"
_DURATION = re.compile(rf"(?:{_PART})+")
_PIECE = re.compile(_PART)
_LIMITS = ("x-ratelimit-{field}{kind}", "anthropic-ratelimit{kind}-{field}")
_KINDS = ("", "-requests", "-tokens", "-input-tokens", "-output-tokens")
_SEEN: tuple[tuple[str, LimitKind], ...] = (
    ("-requests", "requests"),
    ("-tokens", "tokens"),
    ("-input-tokens", "input_tokens"),
    ("-output-tokens", "output_tokens"),
)
_MINUTE_S, _DAY_S = 60.0, 86400.0
# Names with their window: `-requests-day` (Cerebras), `-tokens-per-minute` (DigitalOcean).
_WINDOWED: tuple[tuple[str, LimitKind, float], ...] = tuple(
    (f"{suffix}-{per}{name}", kind, window_s)
    for suffix, kind in _SEEN[:2]
    for per in ("", "per-")
    for name, window_s in (("minute", _MINUTE_S), ("hour", 3600.0), ("day", _DAY_S))
)
_IS_LIMIT = re.compile(r"ratelimit-(?:.*-)?limit\b")
_HAS_WINDOW = re.compile(r"-(?:minute|hour|day)\b")


@dataclass(frozen=True, slots=True)
class Wait:
    """`exhausted`: a rate-limit header says that nothing remains."""

    seconds: float | None
    exhausted: bool


def read_wait(headers: Mapping[str, str], now: float) -> Wait:
    """What the headers say, the explicit `retry-after` before the reset of an exhausted limit.

    `now` (Unix seconds) is used where the reply carries no `date`.
    """
    now = _http_date(headers.get("date", "")) or now
    spent = _spent(headers)
    named = _milliseconds(headers.get("retry-after-ms", ""))
    if named is None:
        named = _retry_after(headers.get("retry-after", ""), now)
    if named is None:
        resets = [wait for reset in spent if (wait := _reset(reset, now)) is not None]
        named = max(resets, default=None)
    return Wait(None if named is None else max(named, 0.0), bool(spent))


def read_limits(headers: Mapping[str, str], now: float) -> tuple[SeenLimit, ...]:
    """The limits that the headers name, with what remains of them.

    Azure sends -1 or 0 for limits it does not keep, and -1 for what remains where it does not know: both say nothing.
    Few name the window; see `_window_s`.
    """
    names = " ".join(headers)
    if "ratelimit-" not in names:
        return ()
    now = _http_date(headers.get("date", "")) or now
    found = []
    for suffix, kind in _SEEN:
        for pattern in _LIMITS:
            limit, remaining = _kept(headers, pattern, suffix)
            if limit is None:
                continue
            window_s = _MINUTE_S
            if pattern.startswith("x-"):
                reset_s = _reset(headers.get(pattern.format(field="reset", kind=suffix), ""), now)
                window_s = _window_s(limit, remaining, reset_s)
            if window_s:
                found.append(SeenLimit(kind, limit, remaining, window_s))
    if _HAS_WINDOW.search(names):
        for suffix, kind, window_s in _WINDOWED:
            limit, remaining = _kept(headers, _LIMITS[0], suffix)
            if limit is not None:
                found.append(SeenLimit(kind, limit, remaining, window_s))
    return tuple(found)


def named_limits(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The limits that headers name, in their own words, whether or not `read_limits` can tell their window."""
    said = []
    for name, value in headers.items():
        limit = _number(value) if _IS_LIMIT.search(name) else None
        if limit is None or limit < 1:
            continue
        rest = [
            f"{field} {found}"
            for field in ("remaining", "reset")
            if (found := headers.get(field.join(name.rsplit("limit", 1))))
        ]
        said.append(f"{name}: {', '.join([value, *rest])}")
    return tuple(said)


def _kept(headers: Mapping[str, str], pattern: str, suffix: str) -> tuple[float | None, float | None]:
    """A limit and what remains of it; None where the headers do not say, or say nothing."""
    limit = _number(headers.get(pattern.format(field="limit", kind=suffix), ""))
    if limit is None or limit < 1:
        return None, None
    remaining = _number(headers.get(pattern.format(field="remaining", kind=suffix), ""))
    if remaining is not None and not 0 <= remaining <= limit:
        remaining = None
    return limit, remaining


def _window_s(limit: float, remaining: float | None, reset_s: float | None) -> float:
    """A minute, a day (Groq's and OpenAI's free requests), or 0 where it cannot be told yet.

    A limit that fills up evenly is full again after (limit - remaining) / limit of its window; one that slides or starts
    anew with the clock, within its window. Only a reset that may be a day's, evenly, is doubted: the next replies tell.
    A day that ends within the next 90 s is taken for a minute, which is too loose and holds nobody up.
    """
    if reset_s is None or remaining is None:
        return _MINUTE_S
    if reset_s > 1.5 * _MINUTE_S:
        return _DAY_S
    used = (limit - remaining) / limit
    if not used:
        return 0.0
    return 0.0 if 0.2 * _DAY_S < reset_s / used < 2 * _DAY_S else _MINUTE_S


def _spent(headers: Mapping[str, str]) -> list[str]:
    """The resets of the limits of which nothing remains; not of those that are not kept (see `read_limits`)."""
    found = []
    for pattern in _LIMITS:
        for kind in (*_KINDS, *(suffix for suffix, _, _ in _WINDOWED)):
            remaining = _number(headers.get(pattern.format(field="remaining", kind=kind), ""))
            limit = _number(headers.get(pattern.format(field="limit", kind=kind), ""))
            if remaining == 0 and (limit is None or limit >= 1):
                found.append(headers.get(pattern.format(field="reset", kind=kind), ""))
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text.strip())
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _milliseconds(text: str) -> float | None:
    value = _number(text)
    return None if value is None else value / 1000


def _retry_after(text: str, now: float) -> float | None:
    seconds = _number(text)
    if seconds is not None:
        return seconds
    date = _http_date(text)
    return None if date is None else date - now


def _reset(text: str, now: float) -> float | None:
    """`6m0s`, `12ms`, seconds, Unix seconds or milliseconds, or an RFC 3339 time."""
    value = _number(text)
    if value is not None:
        if value > 1e11:
            return value / 1000 - now
        return value - now if value > 1e9 else value
    if _DURATION.fullmatch(text.strip()):
        return sum(float(amount) * _UNITS_S[unit] for amount, unit in _PIECE.findall(text))
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
