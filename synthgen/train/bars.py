"""The bars transformers draws on stderr while it reads and writes weights."""

from huggingface_hub.utils.tqdm import enable_progress_bars
from transformers.utils import logging

__all__ = ["hide_weight_bars"]


def hide_weight_bars() -> None:
    """Draw none for files of this machine, for this process; downloads from the hub keep theirs, they can take hours."""
    logging.disable_progress_bar()
    enable_progress_bars()  # the line above takes the hub's away too
