"""Packed rows train as they would alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import MambaConfig, MambaForCausalLM

from synthgen.errors import UsageError
from synthgen.train.batch import collate, collate_packed
from synthgen.train.examples import IGNORED, NO_TOKEN, Example, SoftLabels
from synthgen.train.packing import pack
from synthgen.train.probe import contamination, require_separation
from tests.tiny_models import VOCABULARY, example, examples, tiny_llama

LENGTHS = st.lists(st.integers(1, 50), max_size=60)


@given(lengths=LENGTHS)
def test_every_row_is_in_one_pack(lengths: list[int]) -> None:
    packs = pack(lengths, 50)

    assert sorted(index for group in packs for index in group) == list(range(len(lengths)))


@given(lengths=LENGTHS)
def test_no_pack_is_over_its_capacity(lengths: list[int]) -> None:
    assert all(sum(lengths[index] for index in group) <= 50 for group in pack(lengths, 50))


@given(lengths=LENGTHS)
def test_no_two_packs_could_be_one(lengths: list[int]) -> None:
    """Best fit opens a pack only where nothing else has room, so two halves cannot both stay half empty."""
    filled = sorted(sum(lengths[index] for index in group) for group in pack(lengths, 50))

    assert all(a + b > 50 for a, b in pairwise(filled))


def test_a_row_over_the_capacity_is_an_error() -> None:
    with pytest.raises(ValueError, match="51 tokens does not fit into 50"):
        pack([51], 50)


def losses(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Summed loss of every row."""
    flat = functional.cross_entropy(
        logits_BTV[:, :-1].transpose(1, 2), labels_BT[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    return flat.sum(1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_each_row_has_the_loss_it_has_alone(attention: str) -> None:
    model, rows = tiny_llama(attention=attention), examples(6)
    model.train()  # no dropout: training differs from evaluation only in the cache

    packed = collate_packed([rows], pad_id=2)
    labels = packed.pop("labels")
    logits = model(**packed, use_cache=False).logits
    start, together = 0, []
    for row in rows:
        here = slice(start, start + len(row))
        together.append(losses(logits[:, here], labels[:, here]))
        start += len(row)

    padded = collate(rows, pad_id=2)
    labels = padded.pop("labels")
    alone = losses(model(**padded, use_cache=False).logits, labels)
    torch.testing.assert_close(torch.cat(together), alone, rtol=1e-5, atol=1e-5)


def test_packed_rows_do_not_see_each_other() -> None:
    first, second = examples(2)

    assert contamination(tiny_llama(), first, second) < 1e-5


def test_with_a_cache_they_would() -> None:
    """The negative control: the measure sees contamination where there is some."""
    first, second = examples(2)

    assert contamination(tiny_llama(), first, second, use_cache=True) > 1e-2


def test_a_model_whose_packed_rows_see_each_other_is_refused() -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)

    with pytest.raises(UsageError, match="packed rows of MambaForCausalLM see each other"):
        require_separation(MambaForCausalLM(config), examples(3))


def test_a_transformer_passes() -> None:
    require_separation(tiny_llama(), examples(3))


# ---- batches


def test_padding_is_told_by_mask_and_labels() -> None:
    batch = collate([example(4, 2), example(6, 2)], pad_id=2)

    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert batch["labels"][0, 4:].tolist() == [IGNORED] * 2


def test_positions_restart_with_each_row() -> None:
    batch = collate_packed([[example(3, 1), example(2, 1)], [example(2, 1)]], pad_id=2)

    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]


def soft(targets: int, k: int) -> SoftLabels:
    return SoftLabels(
        np.arange(targets * k, dtype=np.int32).reshape(targets, k),
        np.full((targets, k), -1.0, dtype=np.float32),
    )


def softened(length: int, targets: int, k: int) -> Example:
    return example(length, targets).with_soft(soft(targets, k))


@pytest.mark.parametrize("packed", [False, True])
def test_soft_labels_stand_at_their_targets(packed: bool) -> None:
    rows = [softened(4, 2, 3), softened(6, 1, 2)]

    batch = collate_packed([rows], pad_id=2) if packed else collate(rows, pad_id=2)

    has_soft = (batch["kd_ids"] != NO_TOKEN).any(-1)
    assert torch.equal(has_soft, batch["labels"] != IGNORED)
    assert batch["kd_ids"][batch["labels"] != IGNORED].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, NO_TOKEN]]


def test_weights_are_there_where_one_differs() -> None:
    batch = collate([example(3, 1, weight=0.5), example(2, 1)], pad_id=2)

    assert batch["weights"].tolist() == [[0.5, 0.5, 0.5], [1, 1, 1]]
    assert "weights" not in collate([example(3, 1)], pad_id=2)
