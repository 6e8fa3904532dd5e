"""The distillation losses against a reference over the whole vocabulary, against TRL's, and against themselves."""

import math
import warnings
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from synthgen.train.examples import NO_TOKEN
from synthgen.train.losses import (
    chunked,
    cross_entropy,
    feature_distance,
    forward_kl,
    jensen_shannon,
    layer_pairs,
    projector,
    relational_distance,
    reverse_kl,
    topk_kl,
)

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of seconds

POSITIONS, VOCABULARY = 16, 50


def logits(seed: int, *, scale: float = 3.0, positions: int = POSITIONS, width: int = VOCABULARY) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(positions, width, generator=generator, dtype=torch.float64)


def stored(teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What a capture of the `k` likeliest tokens would keep."""
    top = teacher.log_softmax(-1).topk(k)
    return top.indices, top.values


STUDENT, TEACHER = logits(1), logits(2)


# --- top-k with a bucket for the rest


def test_topk_gradient_is_the_numeric_one() -> None:
    ids, logprobs = stored(TEACHER[:3], 5)
    student = STUDENT[:3].clone().requires_grad_()

    assert torch.autograd.gradcheck(lambda x: topk_kl(x, ids, logprobs), (student,))


@pytest.mark.parametrize("k", [1, 2, 5, 20, 49])
def test_topk_is_never_above_the_whole_divergence(k: int) -> None:
    exact = forward_kl(STUDENT, TEACHER)

    lumped = topk_kl(STUDENT, *stored(TEACHER, k))

    assert bool((lumped <= exact + 1e-12).all())


def test_topk_never_falls_with_more_stored_tokens() -> None:
    by_k = [topk_kl(STUDENT, *stored(TEACHER, k)) for k in range(1, VOCABULARY + 1)]

    assert all(bool((more >= fewer - 1e-12).all()) for fewer, more in pairwise(by_k))


@pytest.mark.parametrize("k", [VOCABULARY - 1, VOCABULARY])
def test_topk_is_exact_where_at_most_one_token_is_left(k: int) -> None:
    torch.testing.assert_close(topk_kl(STUDENT, *stored(TEACHER, k)), forward_kl(STUDENT, TEACHER))


def test_topk_gradient_is_finite_where_nothing_is_left() -> None:
    student = STUDENT.float().requires_grad_()
    ids, logprobs = stored(TEACHER.float(), VOCABULARY)

    topk_kl(student, ids, logprobs + 1e-6).sum().backward()

    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


def test_topk_is_zero_for_a_student_that_equals_its_teacher() -> None:
    torch.testing.assert_close(
        topk_kl(TEACHER, *stored(TEACHER, 7)), torch.zeros(POSITIONS, dtype=torch.float64)
    )


def test_topk_holds_for_any_set_of_tokens() -> None:
    ids = torch.stack(
        [torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(n))[:6] for n in range(16)]
    )
    logprobs = TEACHER.log_softmax(-1).gather(-1, ids)

    lumped = topk_kl(STUDENT, ids, logprobs)

    inside = torch.zeros(POSITIONS, VOCABULARY, dtype=torch.bool).scatter(-1, ids, True)
    p, q = TEACHER.softmax(-1), STUDENT.softmax(-1)
    p_rest, q_rest = (p * ~inside).sum(-1), (q * ~inside).sum(-1)
    by_hand = (p * (p / q).log() * inside).sum(-1) + p_rest * (p_rest / q_rest).log()
    torch.testing.assert_close(lumped, by_hand)


def test_topk_does_not_depend_on_the_order_of_stored_tokens() -> None:
    ids, logprobs = stored(TEACHER, 8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))

    torch.testing.assert_close(
        topk_kl(STUDENT, ids[:, order], logprobs[:, order]), topk_kl(STUDENT, ids, logprobs)
    )


def test_topk_does_not_depend_on_padding_of_stored_tokens() -> None:
    teacher = TEACHER.clone()
    teacher[:, 0] = 9.0  # token 0, the one padding is clamped to, is among those stored
    ids, logprobs = stored(teacher, 4)
    none = torch.full((POSITIONS, 3), NO_TOKEN)
    padded = (
        torch.cat([none, ids], dim=-1),
        torch.cat([torch.full((POSITIONS, 3), math.nan), logprobs], dim=-1),
    )

    torch.testing.assert_close(topk_kl(STUDENT, *padded), topk_kl(STUDENT, ids, logprobs))


def test_topk_of_a_position_does_not_depend_on_the_others() -> None:
    ids, logprobs = stored(TEACHER, 4)
    order = torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(4))

    shuffled = topk_kl(STUDENT[order], ids[order], logprobs[order])

    torch.testing.assert_close(shuffled, topk_kl(STUDENT, ids, logprobs)[order], rtol=0, atol=0)


def test_topk_is_zero_without_stored_tokens() -> None:
    student = STUDENT.clone().requires_grad_()
    nothing = torch.full((POSITIONS, 2), NO_TOKEN), torch.zeros(POSITIONS, 2, dtype=torch.float64)

    loss = topk_kl(student, *nothing)
    loss.sum().backward()

    assert bool((loss == 0).all())
    assert student.grad is not None
    assert bool((student.grad == 0).all())


def test_topk_refuses_a_temperature() -> None:
    with pytest.raises(ValueError, match="stored top-k targets train at 1 alone"):
        topk_kl(STUDENT, *stored(TEACHER, 4), temperature=2.0)


def test_topk_learns_from_a_single_stored_token() -> None:
    student = STUDENT.clone().requires_grad_()

    topk_kl(student, *stored(TEACHER, 1)).sum().backward()

    assert student.grad is not None
    assert bool((student.grad.norm(dim=-1) > 1e-3).all())


def test_topk_of_a_sure_student_is_right_in_single_precision() -> None:
    """A rest of 1e-12 at the student: `1 - sum` is 0 in float32, and its logarithm minus infinity."""
    student = torch.zeros(1, VOCABULARY, dtype=torch.float64)
    student[0, 0] = 32.0
    teacher = torch.zeros(1, VOCABULARY, dtype=torch.float64)
    teacher[0, 0] = 5.0
    ids, logprobs = stored(teacher, 1)

    single = topk_kl(student.float(), ids, logprobs.float())

    torch.testing.assert_close(single.double(), topk_kl(student, ids, logprobs), rtol=1e-5, atol=0)


@pytest.mark.parametrize("k", [5, 20])
def test_topk_gradient_points_nearer_to_the_whole_ones_than_a_renormalised_top(k: int) -> None:
    teacher = logits(6, positions=64, width=1000)
    student = teacher + logits(5, scale=1.5, positions=64, width=1000)
    ids, logprobs = stored(teacher, k)

    whole = gradient(student, lambda x: forward_kl(x, teacher))
    ours = gradient(student, lambda x: topk_kl(x, ids, logprobs))
    renormalised = gradient(student, lambda x: forward_kl(x.gather(-1, ids), logprobs))

    assert cosine(ours, whole) > 0.9
    assert 1 - cosine(ours, whole) < 0.5 * (1 - cosine(renormalised, whole))


def gradient(student: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    x = student.clone().requires_grad_()
    loss(x).sum().backward()
    assert x.grad is not None
    return x.grad


def cosine(one: Tensor, other: Tensor) -> float:
    return torch.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


def test_half_precision_logits_are_computed_in_single() -> None:
    """The only error left is that of the logits themselves, which bfloat16 rounds to 2**-8 of their value."""
    ids, logprobs = stored(TEACHER, 8)
    half = STUDENT.bfloat16()

    loss = topk_kl(half, ids, logprobs)

    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, topk_kl(half.float(), ids, logprobs), rtol=0, atol=0)
    torch.testing.assert_close(loss.double(), topk_kl(STUDENT, ids, logprobs), rtol=2e-2, atol=2e-2)


def test_cross_entropy_is_the_divergence_to_a_sure_teacher() -> None:
    labels = TEACHER.argmax(-1)

    kl = topk_kl(STUDENT, labels.unsqueeze(-1), torch.zeros(POSITIONS, 1, dtype=torch.float64))

    torch.testing.assert_close(kl, cross_entropy(STUDENT, labels))


# --- whole distributions


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jensen_shannon])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_gradients_are_the_numeric_ones(
    divergence: Callable[..., Tensor], temperature: float
) -> None:
    student, teacher = STUDENT[:3].clone().requires_grad_(), TEACHER[:3].clone().requires_grad_()

    assert torch.autograd.gradcheck(
        lambda s, t: divergence(s, t, temperature=temperature), (student, teacher)
    )


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jensen_shannon])
def test_divergences_are_positive_and_zero_at_equality(divergence: Callable[..., Tensor]) -> None:
    assert bool((divergence(STUDENT, TEACHER) > 0).all())
    torch.testing.assert_close(
        divergence(TEACHER, TEACHER + 5.0), torch.zeros(POSITIONS, dtype=torch.float64)
    )


def test_reverse_is_forward_with_the_sides_changed() -> None:
    torch.testing.assert_close(reverse_kl(STUDENT, TEACHER), forward_kl(TEACHER, STUDENT))


def test_jensen_shannon_is_bounded() -> None:
    far = jensen_shannon(STUDENT * 1000, TEACHER * 1000)

    assert bool((far <= math.log(2) + 1e-12).all())


def test_jensen_shannon_nears_both_divergences() -> None:
    student, teacher = 0.3 * STUDENT, 0.3 * TEACHER  # no ratio of probabilities comes near 1 / beta

    near_forward = jensen_shannon(student, teacher, beta=1e-7) / 1e-7
    near_reverse = jensen_shannon(student, teacher, beta=1 - 1e-7) / 1e-7

    torch.testing.assert_close(near_forward, forward_kl(student, teacher), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(near_reverse, reverse_kl(student, teacher), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5])
def test_jensen_shannon_refuses_its_ends(beta: float) -> None:
    with pytest.raises(ValueError, match="at its ends use"):
        jensen_shannon(STUDENT, TEACHER, beta=beta)


def test_temperature_keeps_the_size_of_small_gradients() -> None:
    """For logits near each other the softened gradient is t**2 smaller; the factor puts it back (Hinton et al. 2015)."""
    base = torch.zeros(1, VOCABULARY, dtype=torch.float64)
    teacher = base + 0.01 * TEACHER[:1]
    norms = []
    for temperature in (1.0, 4.0):
        student = base.clone().requires_grad_()
        forward_kl(student, teacher, temperature=temperature).sum().backward()
        assert student.grad is not None
        norms.append(student.grad.norm().item())

    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_different_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        forward_kl(STUDENT, TEACHER[:, :-1])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="is not above 0"):
        forward_kl(STUDENT, TEACHER, temperature=temperature)


# --- TRL as an independent oracle


@pytest.fixture(scope="module")
def trl() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is experimental
        return import_module("trl.experimental.server_distillation.server_distillation_trainer")


@pytest.mark.parametrize("k", [1, 5, 20])
def test_topk_equals_trls_divergence_with_a_tail(trl: ModuleType, k: int) -> None:
    ids, logprobs = stored(TEACHER, k)
    valid = torch.ones_like(ids, dtype=torch.bool)
    theirs_teacher, support = trl._add_tail_bucket(logprobs, valid)
    theirs_student, _ = trl._add_tail_bucket(STUDENT.log_softmax(-1).gather(-1, ids), valid)

    theirs = trl._jsd_divergence(theirs_student, theirs_teacher, 0, support).sum(-1)

    torch.testing.assert_close(topk_kl(STUDENT, ids, logprobs), theirs)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_whole_divergences_equal_trls(trl: ModuleType, beta: float) -> None:
    theirs = trl._jsd_divergence(STUDENT.log_softmax(-1), TEACHER.log_softmax(-1), beta).sum(-1)

    ours = {0.0: forward_kl, 1.0: reverse_kl}.get(beta, lambda s, t: jensen_shannon(s, t, beta=beta))

    torch.testing.assert_close(ours(STUDENT, TEACHER), theirs)


# --- in chunks


@pytest.mark.parametrize("positions", [1, 5, 16, 100])
def test_chunks_give_the_same_loss_and_gradient(positions: int) -> None:
    ids, logprobs = stored(TEACHER, 8)
    at_once, by_chunks = STUDENT.clone().requires_grad_(), STUDENT.clone().requires_grad_()

    whole = topk_kl(at_once, ids, logprobs)
    pieces = chunked(topk_kl, by_chunks, ids, logprobs, positions=positions)
    whole.sum().backward()
    pieces.sum().backward()

    torch.testing.assert_close(pieces, whole, rtol=0, atol=0)
    torch.testing.assert_close(by_chunks.grad, at_once.grad, rtol=0, atol=0)


def test_chunks_reach_an_output_head_that_the_loss_closes_over() -> None:
    head = nn.Linear(6, VOCABULARY, dtype=torch.float64)
    hidden, labels = logits(7, width=6), TEACHER.argmax(-1)
    cross_entropy(head(hidden), labels).sum().backward()
    expected = head.weight.grad
    head.weight.grad = None

    chunked(lambda h, y: cross_entropy(head(h), y), hidden, labels, positions=3).sum().backward()

    torch.testing.assert_close(head.weight.grad, expected)


def test_chunks_keep_no_wide_tensor_for_the_backward_pass() -> None:
    """What autograd saves is the logits as they came (views of one storage), not their softmax in float32."""
    half, labels = STUDENT.bfloat16().requires_grad_(), TEACHER.argmax(-1)
    wide: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float32 and tensor.numel() >= VOCABULARY:
            wide.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        chunked(cross_entropy, half, labels, positions=4)
        in_chunks = len(wide)
        cross_entropy(half, labels)

    assert in_chunks == 0
    assert len(wide) > 0


def test_chunks_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="need at least 1"):
        chunked(cross_entropy, STUDENT, TEACHER.argmax(-1), positions=0)


# --- hidden states and relations


def test_feature_gradient_is_the_numeric_one() -> None:
    student, teacher = logits(8, positions=4, width=6).requires_grad_(), logits(9, positions=4, width=6)

    assert torch.autograd.gradcheck(lambda x: feature_distance(x, teacher), (student,))


def test_feature_distance_ignores_the_size_of_states() -> None:
    student, teacher = logits(8), logits(9)

    torch.testing.assert_close(
        feature_distance(student * 1000, teacher), feature_distance(student, teacher * 0.01)
    )


def test_feature_distance_runs_from_0_to_4() -> None:
    x = logits(8)

    torch.testing.assert_close(feature_distance(x, 2 * x), torch.zeros(POSITIONS, dtype=torch.float64))
    torch.testing.assert_close(feature_distance(x, -x), torch.full((POSITIONS,), 4.0, dtype=torch.float64))


def test_a_projector_learns_its_teachers_states() -> None:
    torch.manual_seed(0)
    hidden = logits(10, scale=1.0, positions=64, width=8).float()
    teacher = hidden @ torch.randn(8, 12)  # what a linear map can reach
    maps = projector(8, 12, pairs=1)
    optimizer = torch.optim.Adam(maps.parameters(), lr=0.05)
    before = feature_distance(maps[0](hidden), teacher).mean().item()

    for _ in range(200):
        optimizer.zero_grad()
        loss = feature_distance(maps[0](hidden), teacher).mean()
        loss.backward()
        optimizer.step()

    assert before > 1
    assert loss.item() < 0.01


def test_equal_widths_need_no_projector() -> None:
    assert list(projector(8, 8, pairs=2).parameters()) == []


def test_layers_are_paired_evenly_up_to_the_last() -> None:
    assert layer_pairs(6, 12, 3) == [(2, 4), (4, 8), (6, 12)]
    assert layer_pairs(5, 30, 1) == [(5, 30)]
    assert layer_pairs(6, 2, 6) == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2)]


@pytest.mark.parametrize("pairs", [0, 7])
def test_more_pairs_than_layers_are_refused(pairs: int) -> None:
    with pytest.raises(ValueError, match="the student has 6"):
        layer_pairs(6, 12, pairs)


def test_relational_gradient_is_the_numeric_one() -> None:
    student, teacher = logits(11, positions=5, width=4).requires_grad_(), logits(12, positions=5, width=7)

    assert torch.autograd.gradcheck(lambda x: relational_distance(x, teacher), (student,))


def test_relations_survive_a_rotation_and_a_scaling() -> None:
    x = logits(11, width=6)
    rotation, _ = torch.linalg.qr(logits(12, positions=6, width=6))

    assert relational_distance(x, 3 * x @ rotation).item() == pytest.approx(0, abs=1e-20)


def test_relations_do_not_depend_on_the_order_of_a_batch() -> None:
    student, teacher = logits(11, width=6), logits(12, width=9)
    order = torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(
        relational_distance(student[order], teacher[order]), relational_distance(student, teacher)
    )


def test_one_vector_has_no_relations() -> None:
    student = logits(11, positions=1).requires_grad_()

    relational_distance(student, logits(12, positions=1)).backward()

    assert student.grad is not None
    assert bool((student.grad == 0).all())
