"""How many alternatives with their log-probabilities come with a token, found by bisection; and whether token ids do.

In: a `Caller`. Out: one `Finding` whose value is `{k_max, k_refused, token_ids}`. Guarantees: `k_max` was delivered,
`k_refused` was asked for and was not (None: nothing was refused, or it was never tried); between them nothing is
claimed. Filling with sentinels (-9999, as some servers do) does not count as delivery. At most `LOGPROBS.sends`
questions of two tokens each.
"""

import math

from synthgen.asking.doctor.caller import Caller, Heard
from synthgen.asking.doctor.findings import Finding
from synthgen.asking.doctor.questions import LOGPROBS, TOKEN_IDS
from synthgen.asking.wire.loose import as_list, as_object, as_text
from synthgen.types import JSONValue

__all__ = ["K_LIMIT", "next_k", "probe_logprobs"]

# 20 is the most OpenAI allows and vLLM's default; 5 and 1 are what others stop at; more than 128 nobody wants.
K_LIMIT = 128
_USUAL = (20, 5, 1)
# Below this a log-probability is a filler: e^-1000 is beyond what any softmax gives.
_SENTINEL = -1000.0


def next_k(works: int, refused: int | None) -> int | None:
    """The number to try next when `works` was delivered (0: none yet) and `refused` was not; None when it is known."""
    if refused is None:
        if works >= K_LIMIT:
            return None
        return 20 if works == 0 else works + 1 if works == 20 else K_LIMIT
    if works + 1 >= refused:
        return None
    if works in _USUAL:  # the limit is most likely one of the usual numbers itself
        return works + 1
    usual = (k for k in _USUAL if works < k < refused)
    return next(usual, (works + refused) // 2)


async def probe_logprobs(caller: Caller) -> Finding:
    """The largest k that is delivered."""
    works, refused, why = 0, None, ""
    for _ in range(LOGPROBS.sends):
        k = next_k(works, refused)
        if k is None:
            break
        heard = await caller.ask(LOGPROBS, {"logprobs": True, "top_logprobs": k})
        if heard.completion is None:
            finding = heard.refusal("logprobs")
            if finding.verdict != "no":
                return finding
            refused, why = k, why or finding.evidence
            continue
        delivered = _delivered(heard)
        if delivered is None:
            return _without_tokens(heard)
        if delivered < k:
            works, refused = max(works, delivered), min(refused or k, delivered + 1)
            why = why or f"accepted {k}, brought {delivered or 'none'}"
        else:
            works = max(works, k)
    if works == 0:
        return Finding("logprobs", "no", why, {"k_max": 0, "k_refused": 1, "token_ids": False})
    ids = await _token_ids(caller)
    said = f"up to {works} a token" + (f" ({why})" if why else "") + ("; with token ids" if ids else "")
    return Finding("logprobs", "yes", said, {"k_max": works, "k_refused": refused, "token_ids": ids})


def _delivered(heard: Heard) -> int | None:
    """Real alternatives at the position that has fewest; 0 without any log-probability, None without any token.

    The drawn token may come besides the top k (vLLM): more than asked for is as good.
    """
    choice = heard.choices[0] if heard.choices else {}
    positions = [as_object(item) for item in as_list(as_object(choice.get("logprobs")).get("content"))]
    if positions:
        return min(sum(map(_is_real, as_list(position.get("top_logprobs")))) for position in positions)
    return 0 if as_text(as_object(choice.get("message")).get("content")) else None


def _is_real(alternative: JSONValue) -> bool:
    value = as_object(alternative).get("logprob")
    return isinstance(value, int | float) and math.isfinite(value) and value > _SENTINEL


def _without_tokens(heard: Heard) -> Finding:
    used = heard.completion.usage if heard.completion else None
    thought = used.reasoning_tokens if used else 0
    said = (
        f"the answer was empty ({thought} tokens went into reasoning)" if thought else "the answer was empty"
    )
    return Finding("logprobs", "unknown", said)


async def _token_ids(caller: Caller) -> bool | None:
    """Whether vLLM names tokens by their ids; None where the dialect has no field for it."""
    if caller.spec.config.provider != "vllm":
        return None
    fields: dict[str, JSONValue] = {
        "logprobs": True,
        "top_logprobs": 1,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }
    heard = await caller.ask(TOKEN_IDS, fields)
    choice = heard.choices[0] if heard.choices else {}
    positions = as_list(as_object(choice.get("logprobs")).get("content"))
    named = [as_text(as_object(position).get("token")) for position in positions]
    return bool(as_list(choice.get("token_ids"))) or any(token.startswith("token_id:") for token in named)
