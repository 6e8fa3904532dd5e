"""How many alternatives with their log-probabilities come with a token, found by bisection; and whether token ids do.

In: a `Caller`. Out: one `Finding` whose value is `{k_max, k_refused, token_ids}`. Guarantees: `k_max` was delivered, and
passed the checks a run makes of its captures (no placeholders, no sums above 1); `k_refused` was asked for and was not
(None: nothing was refused); between them nothing is claimed. 0 means the token's own log-probability and no other. At
most `LOGPROBS.sends` questions of two tokens each.
"""

from synthgen.asking.doctor.caller import Caller
from synthgen.asking.doctor.findings import Finding
from synthgen.asking.doctor.questions import LOGPROBS
from synthgen.types import Completion, Logprobs

__all__ = ["K_LIMIT", "next_k", "probe_logprobs"]

# More than 128 nobody wants. 20 is the most OpenAI allows and vLLM's default; 5 and 1 are what others stop at.
K_LIMIT = 128
_USUAL = (20, 5, 1)
_NONE_YET = -1


def next_k(works: int, refused: int | None) -> int | None:
    """The number to try next when `works` was delivered (-1: none yet) and `refused` was not; None when it is known."""
    if refused is None:
        if works >= K_LIMIT:
            return None
        return 20 if works == _NONE_YET else works + 1 if works == 20 else K_LIMIT
    if works + 1 >= refused:
        return None
    if works in _USUAL:  # the limit is most likely one of the usual numbers itself
        return works + 1
    usual = (k for k in _USUAL if works < k < refused)
    return next(usual, (works + refused) // 2)


async def probe_logprobs(caller: Caller) -> Finding:
    """The largest k that is delivered."""
    works, refused, why = _NONE_YET, None, ""
    captured: Logprobs | None = None
    for _ in range(LOGPROBS.sends):
        k = next_k(works, refused)
        if k is None:
            break
        heard = await caller.ask(LOGPROBS, top_logprobs=k)
        completion = heard.completion
        if completion is None:
            finding = heard.refusal("logprobs")
            if finding.verdict != "no":
                return finding
            refused, why = k, why or finding.evidence
        elif completion.logprobs is None:
            if not (completion.text or completion.reasoning):
                return Finding("logprobs", "unknown", "the answer was empty, and so nothing came with it")
            refused, why = k, why or f"asked for {k}: {_why_not(completion)}"
        else:
            delivered = min(len(top) for top in completion.logprobs.top_logprobs)
            if delivered < k:
                refused, why = delivered + 1, why or f"asked for {k}, brought {delivered}"
            if delivered > works or captured is None:
                works, captured = min(k, delivered), completion.logprobs
    if captured is None:
        return Finding("logprobs", "no", why, {"k_max": None, "k_refused": 0, "token_ids": False})
    ids = captured.ids_complete
    said = f"up to {works} a token" if works else "of the token itself, none beside it"
    said += (f" ({why})" if why else "") + ("; with token ids" if ids else "; no token ids")
    return Finding("logprobs", "yes", said, {"k_max": works, "k_refused": refused, "token_ids": ids})


def _why_not(completion: Completion) -> str:
    """What a run would flag the answer with."""
    flags = [flag for flag in completion.flags if flag.startswith("logprobs")]
    return ", ".join(flags) or "none came"
