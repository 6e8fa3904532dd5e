"""How often a vendor refuses prompts for its content policy: above a rate the account is at risk, so asking stops.

In: refusals and answers of a lane. Out: why it has to stop, in words, else nothing. Counted are requests refused as a whole
(400 or 403 with a policy code), not answers in which a model declines. The window is the last 100 requests, also
where there were fewer: twenty flags are too many at a rate of 0.2, however short the run.
Source: research of the design (a lane stops above a set refusal rate, since vendors ban); the rate of 0.2 is ours: logs of
real users hold a few percent of such prompts.
"""

from collections import deque

__all__ = ["Refusals", "too_many"]

WINDOW = 100


class Refusals:
    """What this session has seen of its lanes, by name; a lane that was never refused costs nothing."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[bool]] = {}

    def answered(self, lane: str) -> None:
        """A request was not refused for what it says."""
        if self._recent and (recent := self._recent.get(lane)) is not None:
            recent.append(False)

    def refused(self, lane: str, rate: float, message: str) -> str | None:
        """A request was; why its lane has to stop, in words, once too many were."""
        recent = self._recent.setdefault(lane, deque(maxlen=WINDOW))
        recent.append(True)
        return too_many(sum(recent), len(recent), rate, message)


def too_many(refused: int, requests: int, rate: float, message: str) -> str | None:
    """Why `refused` of `requests` are too many, in words; None where they are not."""
    if refused < rate * max(requests, WINDOW):
        return None
    return (
        f"{refused} of the last {requests} requests were refused for the vendor's content policy, which can cost "
        f"the account; the last: {message}; leave out such rows, or raise the teacher's `stop_at_refusal_rate` ({rate:g})"
    )
