"""What one sees of a training: its curve, trackers, and no bars."""

import math
from xml.etree import ElementTree

import pytest

from synthgen.errors import RecipeError, UsageError
from synthgen.train.config import load_student
from synthgen.train.plot import loss_svg
from synthgen.train.trackers import require_trackers
from synthgen.types import JSONValue

SVG = "{http://www.w3.org/2000/svg}"


def curves(lines: list[dict[str, JSONValue]]) -> list[list[tuple[float, float]]]:
    drawn = ElementTree.fromstring(loss_svg(lines, title="a <b>")).iter(f"{SVG}polyline")
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.attrib["points"].split())]
        for line in drawn
    ]


def test_a_falling_loss_falls_in_the_picture() -> None:
    [points] = curves([{"step": step, "loss": 4.0 / step} for step in (1, 2, 3)])

    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert [y for _, y in points] == sorted({y for _, y in points})  # SVG counts downwards


def test_the_validation_loss_is_a_curve_of_its_own() -> None:
    training, validation = curves([{"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 3.0}])

    assert validation[0][1] < training[0][1]


@pytest.mark.parametrize("loss", [math.nan, math.inf, None])
def test_a_loss_that_is_no_number_is_left_out(loss: float | None) -> None:
    [points] = curves([{"step": 1, "loss": loss}, {"step": 2, "loss": 1.0}])

    assert len(points) == 1


@pytest.mark.parametrize("lines", [[], [{"step": 1, "loss": 0.0}, {"step": 2, "loss": 0.0}]])
def test_a_picture_without_a_curve_to_speak_of_is_still_one(lines: list[dict[str, JSONValue]]) -> None:
    assert ElementTree.fromstring(loss_svg(lines, title="none")).tag == f"{SVG}svg"


def test_an_unknown_tracker_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"trackers.*wandb"):
        load_student({"name": "tiny", "base": "x", "trackers": ["wanddb"]})


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthgen.train.trackers.find_spec", lambda package: None)

    with pytest.raises(UsageError, match="pip install trackio"):
        require_trackers(["trackio"])


def test_one_of_the_packages_tensorboard_comes_in_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "synthgen.train.trackers.find_spec", lambda package: object() if package == "tensorboardX" else None
    )

    require_trackers(["tensorboard"])
