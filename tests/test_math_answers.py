"""What counts as the same final answer: mathematics, letters of a choice, words; and what math-verify 0.9 takes for equal."""

import pytest

pytest.importorskip("math_verify")

from synthgen.refine.filters.math_answer import MathAnswerParams
from synthgen.refine.math_worker import compare

# Math-Verify#14, #41, #60 and their like: `verify` says True of each pair.
UNEQUAL = [
    (r"\frac{1}{2004!}", r"$\frac{1}{2006!}$"),
    (r"\frac{1}{2^{99}}", r"$\frac{1}{2^{98}}$"),
    ("n=2, 3, 4", "$n=1, 2, 3$"),
    ("D = (0, 1)", "$D = (0, 1.5)$"),
    pytest.param(r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"$F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}$", marks=pytest.mark.slow),
    (r"19, 46, \text{ and } 82", "$21, 36, and 82$"),
    (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"$\frac{1}{3 \cdot 2^{2006}}$"),
    (r"1 - \frac{1}{\mathrm{e}}", r"$1 + \frac{1}{\mathrm{e}}$"),
    (r"\pm 2021", "$2021$"),
    ("12:00", "$1:00$"),
    (r"1, 2, \ldots, n", r"$1, 3, 5, \ldots, 2n-1$"),
    (r"1:2:3:\ldots", r"$1:4:9:\ldots$"),
    ("4", r"$4\sqrt(2)$"),
    ("3*x-1*y+13=0", "3x + 4y + 14=0"),
    ("3*x-1*y+13=0", "$3x + 4y + 14=0$"),
    ("x>=1", "$x>1$"),
    ("x>1", r"$x \geq 1$"),
    (r"[1,\infty)", r"\boxed{(1,\infty)}"),
]  # fmt: skip
EQUAL = [
    ("x>=1", r"\boxed{[1,\infty)}"),
    (r"x\ge 1", r"$x \geq 1$"),
    ("1/3", "0.333333"),
    ("10%", "0.1"),
    ("50", "50%"),
    ("12", r"\boxed{12 \text{ cm}^2}"),
    ("72", "$48 + 24 = 72$"),
    ("0.0012344", "$0.001234$"),
    (r"\frac{1}{2004!}", r"$\frac{1}{2004!}$"),
    (r"1, 2, \ldots, n", r"$1, 2, \ldots, n$"),
]


@pytest.mark.parametrize(("reference", "answer"), UNEQUAL)
def test_unequal_answers_never_pass(reference: str, answer: str) -> None:
    assert compare(reference, answer) in ("wrong", "unparsed")


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal_answers_pass(reference: str, answer: str) -> None:
    assert compare(reference, answer) == "right"


CHOICES = [
    "The answer is (B).", "The answer is B.", "B", "(B)", "B.", "**B**", r"\boxed{B}", r"\boxed{\text{B}}", r"\boxed{(B)}",
    r"\boxed{\textbf{(B)}\ 5}", "So 5 remain.\n#### B", "Answer: B", "The correct option is **B**.", "Let me see.\nB) 12 apples",
    "A is too small, so the answer is B: 12 apples.", "The answer would be option B.",
]  # fmt: skip


@pytest.mark.parametrize("answer", CHOICES)
@pytest.mark.parametrize("reference", ["B", "(B)", r"\text{B}"])
def test_the_letter_of_a_choice_is_read_as_people_write_it(reference: str, answer: str) -> None:
    assert compare(reference, answer) == "right"
    assert compare(reference.replace("B", "C"), answer) == "wrong"


@pytest.mark.parametrize(
    "answer", ["I think so. A number of things.", "The answer is a good question.", "It is 5."]
)
def test_no_letter_is_no_choice(answer: str) -> None:
    assert compare("A", answer) == "unparsed"


@pytest.mark.parametrize(
    ("reference", "answer", "said"),
    [
        ("It grows without bound", "3", "unparsed"),
        ("The capital is Paris.", r"\boxed{7}", "unparsed"),
        ("infinitely many", r"\boxed{\text{Infinitely many}}", "right"),
        (r"\text{Evelyn}", "It is\n#### Evelyn", "right"),
        (r"\arctan(x)", r"$\arctan(x)$", "right"),
        ("12 apples", "#### 12", "right"),
    ],
)
def test_words_are_right_where_they_are_the_same_and_else_unparsed(
    reference: str, answer: str, said: str
) -> None:
    assert compare(reference, answer) == said


def test_a_comparison_has_two_seconds() -> None:
    assert MathAnswerParams().cpu_s == 2.0
