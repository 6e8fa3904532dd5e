"""Whether a calibration still speaks of the judges at hand: `calibration.json` of a run, beside what the recipe says now.

In: a run folder and its panel. Out: the id of the calibration, or what has changed since. Guarantee: another model,
prompt text or version, rubric weight, sampling, or way to combine judges makes a calibration stale; another threshold,
alias, price or endpoint inside a named pool does not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import orjson

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.pipeline.judging import OVERALL, Panel, Rule
from synthgen.types import JSONValue

__all__ = ["CALIBRATION", "Standing", "cut_warnings", "read_calibration", "stale_calibration", "standing"]

CALIBRATION = "calibration.json"
_AGAIN = "calibrate it again with `synthgen judge calibrate`"


@dataclass(frozen=True, slots=True)
class Standing:
    """A stored calibration beside the panel at hand. `changed`: what makes it stale, nothing if it holds.

    `rule` is the one it picked for the overall score, None where none reached the wanted precision.
    """

    stored: str
    changed: tuple[str, ...]
    precision: float
    rule: Rule | None

    @property
    def id(self) -> str | None:
        """Its id, if it holds."""
        return None if self.changed else self.stored

    def said(self) -> str:
        """For people."""
        if self.changed:
            return f"calibration {self.stored[:12]} is stale ({'; '.join(self.changed)}): {_AGAIN}"
        picked = (
            f"no threshold reached precision {self.precision:g}"
            if self.rule is None
            else f'precision {self.precision:g} takes `keep: "{self.rule[0]} {self.rule[1]:g}"`'
        )
        return f"calibrated as {self.stored[:12]}; {picked}"


def read_calibration(run: Path) -> Mapping[str, JSONValue] | None:
    """What was stored for a run, None where nothing was.

    Raises:
        UsageError: the file is not one of ours.
    """
    path = run / CALIBRATION
    if not path.is_file():
        return None
    try:
        stored = orjson.loads(path.read_bytes())
        if not isinstance(stored, dict) or stored["format"] != 1:
            raise ValueError(f"format {stored.get('format')!r}")
        cast(str, stored["id"]), stored["judge"]["judges"]  # what every reader leans on
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a calibration this version reads ({error}); {_AGAIN}") from error
    return cast(Mapping[str, JSONValue], stored)


def standing(run: Path, panel: Panel | None) -> Standing | None:
    """How the run's calibration stands to these judges; None where there is no calibration or no judge.

    Raises:
        UsageError: the file is not one of ours.
    """
    stored = read_calibration(run) if panel is not None else None
    if panel is None or stored is None:
        return None
    picked = cast(Mapping[str, JSONValue] | None, stored.get("picked"))
    rule: Rule | None = None
    if picked is not None:
        rule = cast(str, picked["rule"]).split()[0], cast(float, picked["threshold"])
    earlier = cast(Mapping[str, JSONValue], stored["judge"])
    changed = tuple(_changes(earlier, panel.identity()))
    return Standing(cast(str, stored["id"]), changed, cast(float, stored["precision"]), rule)


def _changes(earlier: Mapping[str, JSONValue], now: Mapping[str, JSONValue]) -> list[str]:
    """What is different, in words."""
    before, after = (cast(list[Mapping[str, JSONValue]], side["judges"]) for side in (earlier, now))
    if len(before) != len(after):
        return [f"{len(before)} judges then, {len(after)} now"]
    found = []
    for number, (old, new) in enumerate(zip(before, after, strict=True), start=1):
        judge = f"judge {number}: " if len(after) > 1 else ""
        for part in sorted(old.keys() | new.keys()):
            if old.get(part) != new.get(part):
                found.append(f"{judge}{part} was {_brief(part, old)}, is {_brief(part, new)}")
    for key in ("combine", "min_judges"):
        if earlier.get(key) != now.get(key):
            found.append(f"{key} was {earlier.get(key)}, is {now.get(key)}")
    return found


def _brief(part: str, judge: Mapping[str, JSONValue]) -> str:
    value = judge.get(part)
    if part == "teacher" and isinstance(value, dict):
        names = (value.get("model"), value.get("revision"), value.get("route"), value.get("pool"))
        return " ".join(str(name) for name in names if name)
    if part == "prompt" and isinstance(value, dict):
        return f"{value.get('name')} version {value.get('version')} ({str(value.get('digest'))[:8]})"
    return orjson.dumps(value).decode()


def stale_calibration(stands: Standing | None) -> tuple[str, ...]:
    """The warning of a run whose judges are no longer those that were calibrated."""
    return (f"judge: {stands.said()}",) if stands is not None and stands.changed else ()


def cut_warnings(run: Path, panel: Panel | None) -> tuple[str, ...]:
    """What to say when scores are cut: the calibration is stale, or the rule is laxer than the one it picked."""
    stands = standing(run, panel)
    if panel is None or stands is None:
        return ()
    own = panel.rules.get(OVERALL)
    if not stands.changed and stands.rule is not None and own is not None and _is_laxer(own, stands.rule):
        side = "above" if panel.lower_is_better else "below"
        return (
            f"judge: keep {own[0]} {own[1]:g} is {side} {stands.rule[1]:g}, the threshold that calibration "
            f"{stands.stored[:12]} found for precision {stands.precision:g}",
        )
    return stale_calibration(stands)


def _is_laxer(own: Rule, picked: Rule) -> bool:
    """Whether a rule of the same direction keeps more."""
    if own[0][0] != picked[0][0]:
        return False
    return own[1] < picked[1] if picked[0] == ">=" else own[1] > picked[1]
