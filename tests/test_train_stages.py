"""Chains of students: what refers to what, and going on where it stopped."""

import re
from pathlib import Path

import pytest
import yaml

from synthgen.errors import UsageError
from synthgen.train.config import load_student
from synthgen.train.stages import ChainConfig, Stage, plan_chain, run_chain

OUT = Path("out")
CHAIN = """\
student: {base: small, loss: {logits: {weight: 0.5}}}
stages:
  - {name: middle, set: {base: middle-sized, loss.teacher: large}}
  - {name: small, set: {loss.teacher: "stage:middle"}}
  - {name: again, rounds: 3, set: {loss.teacher: "stage:small", steps: {epochs: 1}}}
  - {name: last, set: {loss.teacher: "stage:again"}}
"""


def chain(text: str = CHAIN) -> ChainConfig:
    return ChainConfig.model_validate(yaml.safe_load(text))


def test_stages_refer_to_earlier_students() -> None:
    stages = plan_chain(chain(), OUT)

    assert [(stage.name, stage.student["base"], stage.student["loss"]["teacher"]) for stage in stages] == [  # type: ignore[index,call-overload]
        ("middle", "middle-sized", "large"),
        ("small", "small", "out/middle"),
        ("again-1", "small", "out/small"),
        ("again-2", "small", "out/again-1"),
        ("again-3", "small", "out/again-2"),
        ("last", "small", "out/again-3"),
    ]


def test_every_stage_is_a_students_file() -> None:
    loaded = [load_student(stage.student).config for stage in plan_chain(chain(), OUT)]

    assert [(config.name, config.steps.epochs) for config in loaded][-2:] == [("again-3", 1), ("last", 3)]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            '[{name: a, set: {base: "stage:b"}}, {name: b}]',
            "'stage:b', which is no earlier stage (earlier: none)",
        ),
        ("[{name: a}, {name: a}]", "'a' is there twice"),
        ("[{name: a, rounds: 2, set: {loss.teacher: x}}, {name: a-2}]", "'a-2' is there twice"),
        ("[{name: a, rounds: 2}]", "has rounds but no `loss.teacher`"),
        ("[{name: a, set: {base.x: 1}}]", "'base' is no mapping"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(stages: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_chain(chain(f"student: {{base: small}}\nstages: {stages}"), OUT)

    assert said in str(caught.value)


def test_a_finished_stage_is_not_trained_again() -> None:
    trained: list[str] = []

    def train(stage: Stage) -> None:
        trained.append(stage.name)

    done = list(run_chain(plan_chain(chain(), OUT), train, lambda stage: stage.name in ("middle", "small")))

    assert trained == ["again-1", "again-2", "again-3", "last"]
    assert [now for _, now in done] == [False, False, True, True, True, True]


def test_the_chain_of_the_docs_is_one() -> None:
    docs = (Path(__file__).parent.parent / "docs" / "distillation.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(student: .*?)^```$", docs, re.DOTALL | re.MULTILINE)

    stages = plan_chain(chain(shown), OUT)

    assert [stage.name for stage in stages] == ["middle", "small", "again-1", "again-2", "again-3"]
    assert all(load_student(stage.student).config.loss.teacher for stage in stages)
