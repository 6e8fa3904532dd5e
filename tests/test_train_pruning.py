"""Weights set to zero before an export."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from synthgen.errors import UsageError
from synthgen.train.export.pruning import pruned
from tests.runs import cli
from tests.tiny_models import tiny_llama


def test_the_smallest_weights_of_linear_layers_go_and_nothing_else() -> None:
    model, before = tiny_llama(seed=1), tiny_llama(seed=1).state_dict()

    share = pruned(model, 0.4)

    after = model.state_dict()
    linear = {f"{name}.weight" for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    linear.discard("lm_head.weight")
    gone = torch.cat([before[name][after[name] == 0].abs() for name in linear])
    kept = torch.cat([before[name][after[name] != 0].abs() for name in linear])
    assert share == pytest.approx(0.4, abs=0.001)
    assert gone.max() <= kept.min()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in set(before) - linear)


def test_from_the_command_line(tmp_path: Path) -> None:
    tiny_llama(seed=2).save_pretrained(tmp_path / "base")
    (tmp_path / "base/student.json").write_text("{}")

    done = cli("train", "prune", tmp_path / "base", "-o", tmp_path / "out", "--share", 0.25, "--json")

    assert done.code == 0, done.err
    assert done.json["zeroed"] == pytest.approx(0.25, abs=0.001)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (model.model.layers[0].mlp.up_proj.weight == 0).any()
    assert not (tmp_path / "out/student.json").exists()


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    refused = cli("train", "prune", "gone", "-o", tmp_path / "out")

    assert (refused.code, "there is no folder gone" in refused.err) == (2, True)


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="no share"):
        pruned(tiny_llama(), share)
