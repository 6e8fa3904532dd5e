"""Where a training is reported to while it runs: the packages a student's file names under `trackers`.

In: their names. Out: nothing, or the error a user can act on, before a model is loaded. transformers reports to them; what
they need (an API key, a server) they read from their own environment variables.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from synthgen.errors import UsageError

if TYPE_CHECKING:  # a student's file is read without transformers
    from transformers.integrations import TensorBoardCallback

__all__ = ["Tracker", "require_trackers", "tensorboard_callback"]

Tracker = Literal["mlflow", "tensorboard", "trackio", "wandb"]
_PACKAGES: dict[Tracker, tuple[str, ...]] = {
    "mlflow": ("mlflow",),
    "tensorboard": ("tensorboard", "tensorboardX"),  # either
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


def require_trackers(names: Sequence[Tracker]) -> None:
    """Check that each of them can be reported to.

    Raises:
        UsageError: a package is not installed.
    """
    for name in names:
        if not any(find_spec(package) is not None for package in _PACKAGES[name]):
            raise UsageError(
                f"trackers: {name} is not installed: pip install {name}, or take it out; metrics.jsonl and loss.svg are written anyway"
            )


def tensorboard_callback(name: str) -> "TensorBoardCallback":
    """Reports into `tensorboard/NAME` of the working folder, as the other trackers' own folders are there too.

    transformers would write into the training's folder, which is gone when the student is there. `TENSORBOARD_LOGGING_DIR`
    wins.
    """
    from transformers.integrations import TensorBoardCallback

    callback = TensorBoardCallback()
    if callback.logging_dir is None:
        callback.logging_dir = str(Path("tensorboard") / name)
    return callback
