"""Forward KL to a teacher of whom only some tokens of each position were stored.

In: the student's logits, and ids and log probabilities of K tokens a position. Out: the KL between the two
distributions over K + 1 outcomes, the stored tokens and *any other*. Guarantees: never above the KL over the whole
vocabulary (lumping outcomes together loses information), equal to it when one token or none is left over, and never
lower for more stored tokens. It holds for any set of tokens, so a drawn token that stands in for the K-th likeliest does
no harm.
Rejected: `log(1 - sum of the stored)` for the student's rest. In float32 it is noise where the student is sure, and
minus infinity where it is surer; here the rest is summed from its own logits.
Rejected: a temperature. The stored tokens could be softened, what lies in the rest could not: how its mass grows
depends on how it is spread, and that was never stored.
"""

import torch
from torch import Tensor

from synthgen.train.examples import NO_TOKEN
from synthgen.train.losses.precision import widened

__all__ = ["topk_kl"]


def topk_kl(logits_NV: Tensor, ids_NK: Tensor, logprobs_NK: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) over the stored tokens and the rest as one; 0 where nothing is stored.

    ids_NK: int64, no id twice in a position; `NO_TOKEN` is left out.
    logprobs_NK: the teacher's natural logarithms, anything where the id is `NO_TOKEN`.
    Probabilities that add up to more than 1 (by rounding) leave nothing for the rest.

    Raises:
        ValueError: a temperature other than 1, which no stored top-k supports.
    """
    if temperature != 1.0:
        raise ValueError(
            f"temperature {temperature}: stored top-k targets train at 1 alone, because the mass of the tokens that were "
            "not stored would change by an unknown amount; use logits of a local teacher for other temperatures"
        )
    logits = widened(logits_NV)
    given_NK = ids_NK != NO_TOKEN
    log_p_NK = logprobs_NK.to(logits.dtype).masked_fill(~given_NK, -torch.inf)
    p_NK = log_p_NK.exp()
    log_q_NK = logits.gather(-1, ids_NK.clamp(min=0)) - logits.logsumexp(-1, keepdim=True)
    stored_N = (torch.xlogy(p_NK, p_NK) - p_NK * log_q_NK).sum(-1)
    rest_N = (1 - p_NK.sum(-1)).clamp(min=0)
    loss_N = stored_N + _rest(logits, ids_NK, given_NK, rest_N)
    return loss_N.masked_fill(~given_NK.any(-1), 0.0)


def _rest(logits_NV: Tensor, ids_NK: Tensor, given_NK: Tensor, p_N: Tensor) -> Tensor:
    """The rest's share of the divergence; p_N: its mass at the teacher."""
    width = logits_NV.shape[-1]
    # One column more, for the ids that are none: as column 0 they would undo the mark of a real token 0.
    marks = torch.zeros(*logits_NV.shape[:-1], width + 1, dtype=torch.bool, device=logits_NV.device)
    stored_NV = marks.scatter(-1, ids_NK.masked_fill(~given_NK, width), True)[..., :width]
    counts_N = (p_N > 0) & ~stored_NV.all(-1)
    # Where the rest does not count, its logarithm may be that of 0, and 0 * inf would poison the gradient.
    hidden_NV = stored_NV & counts_N.unsqueeze(-1)
    log_q_N = logits_NV.masked_fill(hidden_NV, -torch.inf).logsumexp(-1) - logits_NV.logsumexp(-1)
    return torch.where(counts_N, torch.xlogy(p_N, p_N) - p_N * log_q_N, 0.0)
