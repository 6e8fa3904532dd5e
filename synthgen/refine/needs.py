"""Filters that compare an answer with something, and can say nothing of a row that lacks it.

In: a chain's steps, as parameters. Out: what they look for. Guarantee: such a filter gives every row that it checks a score, so that
whoever runs it can say how many those were, and that they were none. Loads no data frames.
Rejected: rejecting rows without a reference (a set may be mixed), and keeping them without a word: a check that found nothing
to check looks like one that all rows passed.
"""

from typing import ClassVar

from synthgen.recipe.model import Strict

__all__ = ["NeedsField"]


class NeedsField(Strict):
    """Parameters of such a filter. `needs`: the parameter that names the row's field."""

    needs: ClassVar[str]

    @property
    def field(self) -> str | None:
        """The field it looks for; None: none is named, and what the filter needs comes with a run."""
        name = getattr(self, self.needs)
        return name if isinstance(name, str) else None
