"""The doctor's measures see the faults they are for, and its report says what happened."""

from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest
import torch
from torch import Tensor, nn

from synthgen.errors import UsageError
from synthgen.train.doctor import adapters, numerics, story
from synthgen.train.doctor.adapters import adapters_learning
from synthgen.train.doctor.checks import Check, Measured, Skip, examined
from synthgen.train.doctor.model import fused_error, packing_error, random_model, separation_error
from synthgen.train.doctor.story import all_checks, run_doctor
from synthgen.train.doctor.training import accumulation_error, resume_error
from synthgen.train.losses import topk_kl
from tests.runs import cli

torch.set_num_threads(1)

KS = (1, 3, 9, 19)


def logits(seed: int) -> Tensor:
    return 3 * torch.randn(8, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = logits(1), logits(2)


def renormalised(student: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """What other trainers do: the stored tokens alone, scaled up to 1."""
    theirs, ours = logprobs.log_softmax(-1), student.gather(-1, ids).log_softmax(-1)
    return (theirs.exp() * (theirs - ours)).sum(-1)


def dropped(student: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """The tail left out."""
    return (logprobs.exp() * (logprobs - student.log_softmax(-1).gather(-1, ids))).sum(-1)


# ---- numbers


def test_a_right_gradient_measures_next_to_nothing() -> None:
    ids, logprobs = numerics.stored(TEACHER, 3)

    assert numerics.gradient_error(lambda x: topk_kl(x, ids, logprobs), STUDENT) < 1e-7


def test_a_wrong_gradient_is_seen() -> None:
    assert numerics.gradient_error(lambda x: x**2 - x.detach() ** 2 / 2, STUDENT) > 0.1


def test_our_loss_stays_below_rises_and_ends_exact() -> None:
    assert numerics.above_exact(STUDENT, TEACHER, KS) < 1e-12
    assert numerics.monotony_error(STUDENT, TEACHER, KS) < 1e-12
    assert numerics.exactness_error(STUDENT, TEACHER) < 1e-12


def test_a_loss_without_a_tail_is_seen() -> None:
    assert numerics.above_exact(STUDENT, TEACHER, KS, dropped) > 1e-3


def test_a_renormalised_loss_is_seen() -> None:
    assert numerics.exactness_error(STUDENT, TEACHER, renormalised) > 1e-6


def test_a_loss_that_falls_with_more_tokens_is_seen() -> None:
    assert numerics.monotony_error(STUDENT, TEACHER, KS, lambda *a: -topk_kl(*a)) > 1e-3


def test_what_is_no_number_is_infinitely_wrong() -> None:
    broken = lambda s, i, p: topk_kl(s, i, p) * float("nan")  # noqa: E731

    assert numerics.exactness_error(STUDENT, TEACHER, broken) == float("inf")


def test_chunks_change_nothing() -> None:
    assert numerics.chunk_error(STUDENT.float(), TEACHER.float(), k=3, positions=3) == 0


# ---- models and trainings


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_rows_keep_their_losses(attention: str) -> None:
    assert packing_error(attention, device="cpu") < 1e-5


class Seeing(nn.Module):
    """A model that loses the positions, so that packed rows see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = random_model(device="cpu")

    def forward(self, position_ids: object = None, **batch: object) -> object:
        return self.inner(**batch)


def test_packed_rows_that_see_each_other_are_seen() -> None:
    assert separation_error(Seeing()) > 1e-2


def test_an_optimiser_in_one_kernel_is_the_plain_one() -> None:
    assert fused_error(device="cpu") < 1e-3


def test_accumulation_is_measured_against_an_update() -> None:
    assert accumulation_error(device="cpu") < 1e-3


def test_a_resumed_training_is_bit_equal() -> None:
    found = resume_error(device="cpu")

    assert (found.value, found.bound) == (0, 0)


def test_adapters_learn_and_say_from_where() -> None:
    found = adapters_learning("lora", device="cpu")

    assert found.value < 0.9
    assert found.details["last_loss"] < found.details["first_loss"]


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="it is installed")
def test_four_bits_without_their_package_are_skipped_by_name() -> None:
    for device in ("cpu", "cuda"):
        with pytest.raises(Skip, match="bitsandbytes is not installed"):
            adapters_learning("qlora", device=device)


def test_what_needs_a_gpu_is_not_run_on_a_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "is_installed", lambda _: True)
    needing = {"packing.flash_attention_2", "compile", "training.liger", "training.qlora", "devices.nccl"}

    results = [examined(check) for check in all_checks("cpu") if check.name in needing]

    assert {result.name for result in results} == needing
    for result in results:
        assert (result.status, result.measured) == ("skip", None)
        assert result.reason.startswith("not run on a CPU")


# ---- results


def skipped() -> float:
    raise Skip("no such kernel")


def broken() -> float:
    raise RuntimeError("CUDA error: invalid device function")


CHECKS = [
    Check("good", "x", 1.0, lambda: Measured(0.5, details={"tokens_per_s": 10.0})),
    Check("absent", "x", 1.0, skipped),
    Check("bad", "x", 1.0, lambda: 2.0),
    Check("broken", "x", 1.0, broken),
    Check("no number", "x", 1.0, lambda: float("nan")),
]


def test_each_check_says_what_happened() -> None:
    told = {result.name: (result.status, result.reason) for result in map(examined, CHECKS)}

    assert told == {
        "good": ("pass", ""),
        "absent": ("skip", "no such kernel"),
        "bad": ("fail", "2 is above 1"),
        "broken": ("fail", "RuntimeError: CUDA error: invalid device function"),
        "no number": ("fail", "nan is above 1"),
    }


def test_skipped_checks_fail_nothing() -> None:
    assert run_doctor("cpu", checks=CHECKS[:2]).passed
    assert not run_doctor("cpu", checks=CHECKS[:3]).passed


def test_names_of_checks_are_used_once() -> None:
    names = [check.name for check in all_checks("cpu")]

    assert len(names) == len(set(names)) >= 14


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="cuda or cpu"):
        run_doctor("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(UsageError, match="torch sees none"):
        run_doctor("cuda")


def test_the_report_is_a_file_and_failures_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "all_checks", lambda device: CHECKS[:3])

    done = cli("train", "doctor", "--device", "cpu", "-o", tmp_path / "report.json")

    report = orjson.loads((tmp_path / "report.json").read_bytes())
    assert done.code == 7
    assert "failed on this machine: bad" in done.err
    assert "skip absent: no such kernel" in done.out
    assert "not run: absent; nothing is known of them" in done.out
    assert "this was a CPU" in done.out
    assert (report["version"], report["passed"], report["device"]["type"]) == (1, False, "cpu")
    assert report["versions"]["torch"] == torch.__version__
    assert [check["status"] for check in report["checks"]] == ["pass", "skip", "fail"]


def test_the_report_on_stdout_is_the_one_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "all_checks", lambda device: CHECKS[:1])

    done = cli("train", "doctor", "--device", "cpu", "--json")

    assert done.code == 0
    assert orjson.loads(done.out)["checks"][0]["details"] == {"tokens_per_s": 10.0}


@pytest.mark.slow
def test_this_machine_passes() -> None:
    report = run_doctor("cpu")

    assert report.passed, [check for check in report.checks if check.status == "fail"]
