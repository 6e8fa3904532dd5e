"""Text on its way to a terminal.

In: text of models, servers and files. Out: the same, unable to steer a terminal. Imports nothing: errors pass here too.
"""

__all__ = ["safe"]


def safe(text: str, limit: int | None = None) -> str:
    """Control characters but newline and tab become escapes, also those that change the writing direction."""
    shown = "".join(
        c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
    return shown if limit is None or len(shown) <= limit else f"{shown[:limit]} […]"
