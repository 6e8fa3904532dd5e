"""A request on its way: what of it is known between one send and the next.

In: requests that nobody has asked. Out: `Attempt`, which the queue, the lane and the journal are told about.
"""

from collections.abc import Sequence
from typing import Literal

from synthgen.asking.lanes import Lane, Queue, Turn
from synthgen.asking.spec import TeacherSpec
from synthgen.dataclasses import dataclass
from synthgen.journal import Circumstances
from synthgen.types import Request

__all__ = ["Attempt"]


@dataclass(slots=True)
class Attempt:
    """One request on its way; several `requests` are samples of one question, sent as one.

    `tries` are sends that count against it, `backoffs` those after which it had to wait: `wait_s`, the last time,
    `with_lane` where nobody named that time: it need not wait longer than the lane does.
    """

    requests: Sequence[Request]
    keys: Sequence[str]
    step: str
    spec: TeacherSpec
    queue: Queue
    lane: Lane | None = None  # that of the last send
    endpoint: str = ""
    turn: Turn = "new"
    tries: int = 0
    backoffs: int = 0
    wait_s: float = 0.0
    waited_s: float = 0.0  # between the last two sends, in the queue included
    with_lane: bool = False
    failing_since: float | None = None
    failing_from: float | None = None  # when the first send that failed was sent
    end: Literal["failed", "pending"] | None = None  # what becomes of it where its sends are used up
    sent_at: float = 0.0
    latency_s: float = 0.0

    @property
    def request(self) -> Request:
        """What is sent."""
        return self.requests[0]

    def circumstances(self) -> Circumstances:
        """Of the last send."""
        sent_at, latency_s = round(self.sent_at, 3), round(self.latency_s, 4)
        return Circumstances(self.step, self.spec.alias, self.endpoint, self.tries, sent_at, latency_s)
