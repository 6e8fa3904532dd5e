"""How often a vendor refuses prompts for its content policy: above a rate the account is at risk, so asking stops.

In: refusals and answers of a lane. Out: why it has to stop, in words, else nothing. Counted are requests refused as a whole
(400 or 403 with a policy code), not answers in which a model declines. The window is the last 100 requests, also
where there were fewer: twenty flags are too many at a rate of 0.2, however short the run. It goes on where the session
before left it, as far as the journal's last MiB tells: a run that is started again and again after it stopped pays one
refusal each time, not twenty. A lane stops with a refusal, never because of earlier ones alone: who has left out the
prompts goes on.
Source: research of the design (a lane stops above a set refusal rate, since vendors ban); the rate of 0.2 is ours: logs of
real users hold a few percent of such prompts.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from synthgen.journal import Entry

__all__ = ["REFUSED", "Refusals", "too_many"]

WINDOW = 100
REFUSED = "policy"  # the reason of a failure


class Refusals:
    """What was seen of lanes, by name; a lane that was never refused costs nothing."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[bool]] = {}

    def recall(self, entries: Iterable[Entry], lanes: Mapping[tuple[str, str], str]) -> None:
        """Go on behind these entries of earlier sessions; `lanes`: their names, by teacher and endpoint."""
        answer: object = None
        for entry in entries:
            reason = str(entry.get("reason") or "")
            if entry["t"] not in ("R", "F") or reason.startswith("gave_up:"):
                continue
            lane = lanes.get((str(entry["teacher"]), str(entry["endpoint"])))
            if lane is None:
                continue
            if reason == REFUSED:
                self._recent.setdefault(lane, deque(maxlen=WINDOW)).append(True)
                continue
            last, answer = answer, (lane, entry["sent_at"], entry.get("reply_id"))
            if answer != last:  # samples of one request stand together
                self.answered(lane)

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
