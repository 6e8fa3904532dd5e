"""Settings of other launchers that come with the package: `synthgen train config NAME`.

In: a name. Out: the text of a file for `accelerate launch --config_file` (YAML) or for DeepSpeed (JSON). Guarantee: no number
that the student's file has as well; whatever it decides is `auto` there.
"""

from importlib.resources import files
from pathlib import Path

from synthgen.assets import suggest
from synthgen.errors import UsageError

__all__ = ["LAUNCH", "launch_path", "launch_text"]

# Name -> file, and what it is for.
LAUNCH = {
    "fsdp2": ("fsdp2.yaml", "accelerate: weights, gradients and optimiser sharded by FSDP2"),
    "ddp": ("ddp.yaml", "accelerate: a whole model on every device"),
    "zero2": ("zero2.json", "DeepSpeed: gradients and optimiser sharded"),
    "zero3": ("zero3.json", "DeepSpeed: weights sharded too"),
}


def launch_path(name: str) -> Path:
    """Where the file lies.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in LAUNCH:
        raise UsageError(
            f"train config: no settings named {name!r}; there are {', '.join(LAUNCH)}{suggest(name, list(LAUNCH))}"
        )
    return Path(str(files(__package__) / LAUNCH[name][0]))


def launch_text(name: str) -> str:
    """What it holds.

    Raises:
        UsageError: there is none of that name.
    """
    return launch_path(name).read_text(encoding="utf-8")
