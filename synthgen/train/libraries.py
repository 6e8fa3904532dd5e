"""What the training libraries print on their own, kept off the terminal."""

from transformers.utils import logging

__all__ = ["without_bars"]


def without_bars() -> None:
    """No progress bars from now on: they would tear the lines that a command writes to stderr."""
    logging.disable_progress_bar()
