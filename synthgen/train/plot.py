"""The curve of a training as a picture: `loss.svg`.

In: the lines of `metrics.jsonl`. Out: an SVG of the loss of every step and of the validation share, the losses on a
logarithmic axis. Browsers, notebooks and model pages show it. Rejected: matplotlib, 60 MB for two lines.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue

__all__ = ["loss_svg"]

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 32, 40
_TICKS = 5
_LEAST = 1e-6  # a loss of 0 has no logarithm

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Curve:
    name: str
    colour: str
    points: Sequence[Point]


def loss_svg(lines: Iterable[Mapping[str, JSONValue]], *, title: str) -> str:
    """The picture; a run without a finite loss gives empty axes."""
    told = list(lines)
    curves = [
        _Curve("training", "#1f77b4", _points(told, "loss")),
        _Curve("validation", "#d62728", _points(told, "eval_loss")),
    ]
    curves = [curve for curve in curves if curve.points]
    points = [point for curve in curves for point in curve.points] or [(1.0, 1.0)]
    frame = _Frame(
        max(step for step, _ in points), min(loss for _, loss in points), max(loss for _, loss in points)
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{_escaped(title)}: loss by step</text>',
        *_axes(frame),
    ]
    for at, curve in enumerate(curves):
        drawn = " ".join(f"{frame.x(step):.1f},{frame.y(loss):.1f}" for step, loss in curve.points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{curve.colour}" stroke-width="1.5"/>')
        place = _WIDTH - _RIGHT - 90 * (at + 1)
        parts.append(f'<text x="{place}" y="20" fill="{curve.colour}">{curve.name}</text>')
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Frame:
    """From steps and losses to the places of the picture."""

    last_step: float
    least: float
    most: float

    def x(self, step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / max(self.last_step, 1)

    def y(self, loss: float) -> float:
        low, high = math.log(self.least), math.log(self.most)
        height = (math.log(loss) - low) / (high - low) if high > low else 0.5
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * height


def _points(lines: Sequence[Mapping[str, JSONValue]], name: str) -> list[Point]:
    found = []
    for line in lines:
        step, value = line.get("step"), line.get(name)
        if isinstance(step, int | float) and isinstance(value, int | float) and math.isfinite(value):
            found.append((float(step), max(float(value), _LEAST)))
    return found


def _axes(frame: _Frame) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    drawn = [f'<path d="M{_LEFT},{_TOP} V{bottom} H{right}" fill="none" stroke="black"/>']
    for at in range(_TICKS):
        share = at / (_TICKS - 1)
        loss = frame.least * (frame.most / frame.least) ** share
        y = frame.y(loss)
        drawn.append(f'<path d="M{_LEFT},{y:.1f} H{right}" stroke="#ddd"/>')
        drawn.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
    for step in sorted({round(frame.last_step * at / (_TICKS - 1)) for at in range(_TICKS)}):
        drawn.append(f'<text x="{frame.x(step):.1f}" y="{bottom + 18}" text-anchor="middle">{step}</text>')
    return drawn


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
