"""Sends that may have been billed and brought no answer: how often one request is bought, and who is to blame.

In: sends that failed, and answers. Out: whether a request goes on, fails for good or stays pending, and when its teacher has to
stop. Guarantees: in one session a request is sent at most three times that may have been billed, whoever asks for it and
however its samples were grouped. It fails where others got answers since it was first sent: then it is its own trouble.
Where nobody did it stays pending, and the teacher stops when that happens to a fifth request, or when ten requests got
replies that nobody can read, without an answer between them: a server that answers nobody makes no failures, and costs
little. Fewer could be the bad rows that a source begins with. Replies compressed with what nobody reads are the server's
doing whoever else is answered, and stop its lane (`compression`).
Rejected: counting lost sends instead (a server that restarts under 1,000 requests loses them all at once, and outages last a
few minutes).
"""

from collections import Counter
from dataclasses import field

from synthgen.asking.attempt import Attempt
from synthgen.asking.compression import COMPRESSED
from synthgen.asking.outcome import Retry
from synthgen.asking.retry import RetryPolicy
from synthgen.dataclasses import dataclass

__all__ = ["Unanswered"]

_USED_UP, _UNREADABLE = 5, 10


@dataclass(slots=True)
class _Silence:
    """Since a teacher's last answer: keys in trouble, those that got unreadable replies, those whose sends are used up."""

    troubled: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    used_up: set[str] = field(default_factory=set)
    billed: int = 0  # sends

    @property
    def is_the_teachers(self) -> bool:
        return len(self.used_up) >= _USED_UP or len(self.unreadable) >= _UNREADABLE


class Unanswered:
    """What a session has seen.

    `spent` are keys that are not sent again in this session; `pending` says of each teacher's alias what became of them.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.spent: set[str] = set()
        self.pending: dict[str, str] = {}
        self._policy = policy
        self._billed: Counter[str] = Counter()  # key -> sends
        self._spent_by: Counter[str] = Counter()
        self._silence: dict[str, _Silence] = {}

    def answered(self, attempt: Attempt) -> None:
        """An answer came."""
        if self._silence:
            self._silence.pop(attempt.spec.alias, None)
        if self._billed:
            for key in attempt.keys:
                self._billed.pop(key, None)

    def failed(self, attempt: Attempt, outcome: Retry, *, billed: bool) -> str | None:
        """A send, perhaps `billed`, brought no answer: note in `attempt` what becomes of it.

        Why the teacher has to stop, in words, else None.
        """
        alias, key = attempt.spec.alias, attempt.keys[0]
        silence = self._silence.setdefault(alias, _Silence())
        silence.troubled.add(key)
        if not billed:
            return None
        silence.billed += 1
        if outcome.body is not None and outcome.reason != COMPRESSED:
            silence.unreadable.add(key)
        self._billed.update(attempt.keys)
        sends = max(self._billed[each] for each in attempt.keys)
        if self._policy.paid_enough(sends):
            silence.used_up.add(key)
            self._end(attempt, outcome, sends, silence)
        if not silence.is_the_teachers:
            return None
        requests = len(silence.used_up | silence.unreadable)
        return (
            f"{requests} requests brought no answer, and none came between them, though {silence.billed} sends may have "
            f"been billed; {_last(attempt, outcome)}"
        )

    def _end(self, attempt: Attempt, outcome: Retry, sends: int, silence: _Silence) -> None:
        alias, since = attempt.spec.alias, attempt.failing_from
        others_answered = since is not None and attempt.queue.last_success > since
        alone = attempt.queue.has_answered and silence.troubled == {attempt.keys[0]}
        for key in attempt.keys:
            del self._billed[key]
        its_own = outcome.reason != COMPRESSED and not silence.is_the_teachers
        if its_own and (others_answered or alone):
            attempt.end = "failed"
            return
        attempt.end = "pending"
        self.spent.update(attempt.keys)
        if outcome.reason == COMPRESSED:
            return  # its lane stops, and says why
        self._spent_by[alias] += len(attempt.keys)
        self.pending[alias] = (
            f"{self._spent_by[alias]} candidates stay pending: sent {sends} times without an answer, perhaps billed each "
            f"time, while nobody else got one; {_last(attempt, outcome)}"
        )


def _last(attempt: Attempt, outcome: Retry) -> str:
    return (
        f"the last: {outcome.reason}: {outcome.message}; {_advice(attempt, outcome)}, or see with `synthgen doctor` how the "
        "server answers; the same command tries again"
    )


def _advice(attempt: Attempt, outcome: Retry) -> str:
    if outcome.reason == "timeout":
        return f"raise `timeout_s` (now {attempt.spec.config.patience_s(attempt.request.sampling.max_tokens):g} s) or lower `max_tokens`"
    if outcome.body is not None:
        return "look at what came with `synthgen show RUN --unusable`"
    return "see whether a proxy before the server cuts long replies off"
