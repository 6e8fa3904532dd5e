"""One bill for several samples: each gets its share, and the shares add up to the bill.

In: the usage of a reply, and how much each of its samples wrote. Out: one usage a sample. Guarantee: every kind of
token sums to exactly what the server reported. The input was read once: the first sample carries it. The output is
divided by what was written, rounded by largest remainders.
"""

from collections.abc import Sequence

from synthgen.types import Usage

__all__ = ["share_usage"]


def share_usage(usage: Usage, written: Sequence[int]) -> list[Usage]:
    """Shares of `usage` for samples that wrote so many characters each (equal shares where none wrote any)."""
    outputs = _split(usage.output_tokens, written)
    # Of the tokens of a sample, so that a share never has more reasoning than output.
    reasonings = _split(usage.reasoning_tokens, outputs)
    return [
        Usage(
            input_tokens=usage.input_tokens if place == 0 else 0,
            cached_input_tokens=usage.cached_input_tokens if place == 0 else 0,
            output_tokens=output,
            reasoning_tokens=reasoning,
        )
        for place, (output, reasoning) in enumerate(zip(outputs, reasonings, strict=True))
    ]


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of `total` in proportion to `weights`; earlier ones first where remainders are equal."""
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: -(total * weights[place] % whole))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts
