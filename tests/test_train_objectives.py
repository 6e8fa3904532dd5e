"""The objective the engine calls: what a position counts, and that batching changes nothing."""

from collections.abc import Mapping

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from synthgen.errors import UsageError
from synthgen.train.local_teacher import LocalTeacher
from synthgen.train.losses import cross_entropy, forward_kl, topk_kl
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.objective import Forward

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of a second

B, T, V, K = 3, 7, 31, 4


def model(seed: int, *, width: int = 16, layers: int = 2, vocabulary: int = V) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).double()


STUDENT, TEACHER = model(1), LocalTeacher(model(2, width=24, layers=4))


def batch(
    rows: slice = slice(None), *, padding: int = 0
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Inputs, labels and extras; the last row has fewer targets, and one position is without stored tokens."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, V, (B, T), generator=generator)
    labels = ids.clone()
    labels[:, :2] = -100
    labels[-1, :5] = -100
    top = torch.randn(B, T, V, generator=generator, dtype=torch.float64).log_softmax(-1).topk(K)
    kd_ids, kd_logprobs = top.indices.clone(), top.values
    kd_ids[0, 3] = -1
    mask = torch.ones_like(ids)

    def padded(x: Tensor, value: float) -> Tensor:
        tail = torch.full((B, padding, *x.shape[2:]), value, dtype=x.dtype)
        return torch.cat([x, tail], dim=1)[rows]

    inputs = {"input_ids": padded(ids, 0), "attention_mask": padded(mask, 0)}
    extras = {"kd_ids": padded(kd_ids, -1), "kd_logprobs": padded(kd_logprobs, 0.0)}
    return inputs, padded(labels, -100), extras


def forward(
    rows: slice = slice(None),
    *,
    padding: int = 0,
    targets: int | None = None,
    more: Mapping[str, Tensor] | None = None,
) -> Forward:
    inputs, labels, extras = batch(rows, padding=padding)
    out = STUDENT(**inputs, use_cache=False, output_hidden_states=True)
    count = int((labels[:, 1:] != -100).sum()) if targets is None else targets
    return Forward(out.logits, labels, count, inputs, {**extras, **(more or {})}, tuple(out.hidden_states))


ALL = {
    "kd": {"weight": 0.3, "k": K},
    "logits": {"weight": 0.3, "temperature": 2.0},
    "features": {"weight": 0.5, "layers": 2},
    "teacher": "x",
}


def objective(config: Mapping[str, object]) -> Distillation:
    torch.manual_seed(0)
    made = Distillation(LossConfig.model_validate(config), teacher=TEACHER, width=16, layers=2)
    if made.maps is not None:
        made.maps.double()
    return made


def test_labels_alone_are_the_models_own_loss() -> None:
    inputs, labels, _ = batch()

    loss = objective({})(forward())

    theirs = STUDENT(**inputs, labels=labels).loss.double()  # transformers computes it in float32
    torch.testing.assert_close(loss.value, theirs, rtol=1e-6, atol=0)


def test_a_position_counts_its_shares() -> None:
    inputs, labels, extras = batch()
    step = forward()
    mask = labels[:, 1:] != -100
    logits, y = step.logits_BTV[:, :-1][mask], labels[:, 1:][mask]
    ids, logprobs = (extras[name][:, 1:][mask] for name in ("kd_ids", "kd_logprobs"))
    ce, kl = cross_entropy(logits, y), topk_kl(logits, ids, logprobs)
    whole = forward_kl(logits, TEACHER(inputs).logits_BTV[:, :-1][mask], temperature=2.0)
    soft = 0.3 * (ids != -1).any(-1)
    expected = ((1 - soft - 0.3) * ce + soft * kl + 0.3 * whole).mean()

    loss = objective({name: ALL[name] for name in ("kd", "logits", "teacher")})(step)

    torch.testing.assert_close(loss.value, expected)
    assert int((soft == 0).sum()) == 1


def test_a_row_without_soft_labels_trains_on_its_labels() -> None:
    step = forward()
    bare = Forward(step.logits_BTV, step.labels_BT, step.targets, step.inputs)

    torch.testing.assert_close(objective({"kd": {}})(bare).value, objective({})(bare).value)


def test_padding_changes_nothing() -> None:
    made = objective(ALL)

    torch.testing.assert_close(made(forward(padding=5)).value, made(forward()).value)


def test_the_order_of_rows_changes_nothing() -> None:
    made = objective({**ALL, "relations": {}})
    step, order = forward(), [2, 0, 1]
    shuffled = Forward(
        step.logits_BTV[order],
        step.labels_BT[order],
        step.targets,
        {name: x[order] for name, x in step.inputs.items()},
        {name: x[order] for name, x in step.extras.items()},
        tuple(x[order] for x in step.hidden or ()),
    )

    torch.testing.assert_close(made(shuffled).value, made(step).value)


def test_accumulated_rows_are_one_batch() -> None:
    made, targets = objective(ALL), int(forward().targets)

    pieces = [made(forward(slice(n, n + 1), targets=targets)).value for n in range(B)]

    torch.testing.assert_close(torch.stack(pieces).sum(), made(forward()).value)


def test_chunks_change_nothing() -> None:
    torch.testing.assert_close(
        objective({**ALL, "positions": 2})(forward()).value, objective(ALL)(forward()).value
    )


def test_a_weight_multiplies_its_positions() -> None:
    twice = {"weights": torch.full((B, T), 2.0, dtype=torch.float64)}

    torch.testing.assert_close(objective(ALL)(forward(more=twice)).value, 2 * objective(ALL)(forward()).value)


def test_every_part_reaches_the_student() -> None:
    for parts in (("kd",), ("logits", "teacher"), ("features", "teacher"), ("relations", "teacher")):
        STUDENT.zero_grad()
        config = {name: {**ALL, "relations": {}}[name] for name in parts}

        loss = objective(config)(forward())
        loss.value.backward()

        assert parts[0] in loss.parts
        assert STUDENT.model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0


def test_projectors_are_trained_and_the_teacher_is_not() -> None:
    made = objective(ALL)

    made(forward()).value.backward()

    assert made.maps is not None
    assert all(parameter.grad is not None for parameter in made.maps.parameters())
    assert all(parameter.grad is None for parameter in TEACHER.model.parameters())


def test_a_teacher_with_padded_embeddings_is_compared_over_common_tokens() -> None:
    wide = LocalTeacher(model(2, vocabulary=V + 9))
    made = Distillation(LossConfig.model_validate({"logits": {}, "teacher": "x"}), teacher=wide)

    assert made(forward()).parts["logits"].isfinite()


def test_a_student_trained_on_its_teachers_logits_nears_it() -> None:
    inputs, labels, _ = batch()
    student = model(5)
    made = objective({"logits": {"weight": 1.0}, "teacher": "x"})
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        step = Forward(student(**inputs).logits, labels, 13, inputs)
        loss = made(step).value
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.1 * losses[0]


def test_relations_of_packed_rows_are_refused() -> None:
    step = forward()
    packed = Forward(
        step.logits_BTV,
        step.labels_BT,
        step.targets,
        {"input_ids": step.inputs["input_ids"], "position_ids": torch.arange(T).repeat(B, 1)},
        hidden=step.hidden,
    )

    with pytest.raises(UsageError, match=r"cannot be used with data\.packing"):
        objective({"relations": {}, "teacher": "x"})(packed)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"kd": {"temperature": 2.0}}, "temperature is not sound here"),
        ({"logits": {}}, "need `teacher`"),
        ({"teacher": "x"}, "nothing asks it"),
        ({"kd": {"weight": 0.7}, "logits": {"weight": 0.7}, "teacher": "x"}, "add up to 1.4, more than 1"),
    ],
)
def test_what_cannot_be_is_refused(config: Mapping[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LossConfig.model_validate(config)
