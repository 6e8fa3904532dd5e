"""Agreement of a judge with people: values known from elsewhere, intervals that hold, cases that have no number."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.refine.agreement import auc, best_cut, cuts, kappa, needed_for, spearman, within_groups
from synthgen.refine.pairwise import bradley_terry, position_bias, settled, win_scores
from synthgen.refine.shares import binomial_p, wilson


def ratings(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """Two raters whose confusion is this table."""
    pairs = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [i for i, _ in pairs], [j for _, j in pairs]


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ([[20, 5], [10, 15]], 0.4),
        ([[45, 15], [25, 15]], 0.1304347826),
        ([[25, 35], [5, 35]], 0.2592592593),
        ([[10, 0], [0, 10]], 1.0),
        ([[0, 10], [10, 0]], -1.0),
    ],
)
def test_kappa_of_known_tables(table: list[list[int]], value: float) -> None:
    found = kappa(*ratings(table))

    assert found is not None
    assert found.value == pytest.approx(value)
    assert found.low <= found.value <= found.high


# What scikit-learn 1.9.1 says of this table with `cohen_kappa_score`.
ORDINAL = [[11, 3, 1, 0], [2, 9, 4, 1], [0, 3, 12, 2], [0, 1, 2, 9]]


@pytest.mark.parametrize(
    ("weights", "value"), [("none", 0.5749440716), ("linear", 0.6889726673), ("quadratic", 0.7910447761)]
)
def test_weighted_kappa_equals_that_of_scikit_learn(weights: str, value: float) -> None:
    found = kappa(*ratings(ORDINAL), weights=weights)  # type: ignore[arg-type]  # one of three literals

    assert found is not None
    assert found.value == pytest.approx(value, abs=1e-9)


def test_the_interval_of_kappa_covers_the_truth_about_as_often_as_it_says() -> None:
    """200 samples of 100 from a population whose kappa is 0.4."""
    draw = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        counts = draw.multinomial(100, [0.4, 0.1, 0.2, 0.3]).reshape(2, 2)
        found = kappa(*ratings(counts.tolist()))
        assert found is not None
        covered += found.low <= 0.4 <= found.high

    assert 0.90 <= covered / 200 <= 0.99


def test_the_same_ratings_have_the_same_interval() -> None:
    assert kappa(*ratings(ORDINAL)) == kappa(*ratings(ORDINAL))


@pytest.mark.parametrize("both", [[], [5, 5, 5]])
def test_two_raters_who_only_say_one_thing_have_no_kappa(both: list[int]) -> None:
    assert kappa(both, both) is None


def test_a_rater_who_always_says_the_same_has_kappa_zero() -> None:
    found = kappa([5, 5, 5, 5], [1, 5, 1, 5])

    assert found is not None
    assert found.value == 0.0


def test_auc_of_known_scores() -> None:
    found = auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])

    assert found is not None
    assert found.value == pytest.approx(0.75)


def test_ties_count_half_in_auc() -> None:
    found = auc([5, 5, 5, 5], [0, 1, 0, 1])

    assert found is not None
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("good", [[1, 1], [0, 0], []])
def test_one_class_has_no_auc(good: list[int]) -> None:
    assert auc([1.0, 2.0][: len(good)], good) is None


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[int, bool]]) -> None:
    good = [score for score, label in rows if label]
    bad = [score for score, label in rows if not label]

    found = auc([score for score, _ in rows], [label for _, label in rows])

    if good and bad:
        won = sum((one > other) + (one == other) / 2 for one in good for other in bad)
        assert found is not None
        assert found.value == pytest.approx(won / len(good) / len(bad))
    else:
        assert found is None


def test_spearman_of_the_textbook_example() -> None:
    """IQ and hours of television, rho = -29/165."""
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]

    found = spearman(iq, hours)

    assert found is not None
    assert found.value == pytest.approx(-29 / 165)
    assert found.low < 0 < found.high


@pytest.mark.parametrize(("xs", "ys"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([], [])])
def test_too_few_or_constant_values_have_no_correlation(xs: list[int], ys: list[int]) -> None:
    assert spearman(xs, ys) is None


def test_a_correlation_that_the_groups_explain_vanishes_within_them() -> None:
    """Good answers are longer and score higher; among the good and among the bad, length does nothing."""
    draw = np.random.default_rng(5)
    good = np.repeat([0, 1], 300)
    length = 100 + 100 * good + draw.normal(0, 20, 600)
    score = 2 + 2 * good + draw.normal(0, 0.5, 600)

    overall, inside = spearman(length, score), within_groups(length, score, good)

    assert overall is not None
    assert overall.low > 0.5
    assert inside is not None
    assert inside.low < 0 < inside.high


def test_a_bias_that_is_the_same_in_every_group_is_found() -> None:
    draw = np.random.default_rng(5)
    good = np.repeat([0, 1], 300)
    length = draw.normal(100, 20, 600)
    score = 2 * good + length / 100 + draw.normal(0, 0.2, 600)

    inside = within_groups(length, score, good)

    assert inside is not None
    assert inside.low > 0.3


def test_wilson_of_known_shares() -> None:
    nine, none = wilson(9, 10), wilson(0, 20)

    assert nine is not None
    assert (nine.low, nine.high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))
    assert none is not None
    assert (none.low, none.high) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert wilson(0, 0) is None


@pytest.mark.parametrize(("hits", "of", "p"), [(0, 5, 0.0625), (5, 5, 0.0625), (2, 4, 1.0), (0, 0, 1.0)])
def test_sign_test(hits: int, of: int, p: float) -> None:
    assert binomial_p(hits, of) == pytest.approx(p)


SCORES = [1, 2, 3, 3, 4, 4, 5, 5, 5, 5]
GOOD = [0, 0, 0, 1, 0, 1, 1, 1, 1, 0]


def test_a_cut_is_a_confusion_with_precision_and_recall() -> None:
    (cut,) = cuts(SCORES, GOOD, [4])

    assert (cut.kept_good, cut.kept_bad, cut.dropped_good, cut.dropped_bad) == (4, 2, 1, 3)
    assert cut.precision is not None
    assert cut.precision.value == pytest.approx(4 / 6)
    assert cut.recall is not None
    assert cut.recall.value == pytest.approx(4 / 5)


def test_good_ones_without_a_score_are_lost_to_recall() -> None:
    (cut,) = cuts(SCORES, GOOD, [4], unscored_good=5)

    assert cut.recall is not None
    assert cut.recall.value == pytest.approx(4 / 10)


@pytest.mark.parametrize(("precision", "threshold"), [(0.5, 3.0), (0.66, 4.0), (0.75, 5.0)])
def test_the_best_cut_keeps_most_at_the_wanted_precision(precision: float, threshold: float) -> None:
    cut = best_cut(SCORES, GOOD, precision)

    assert cut is not None
    assert cut.threshold == threshold


def test_a_picked_threshold_can_be_written_in_a_few_digits() -> None:
    found = best_cut([14 / 3, 14 / 3, 2.0], [True, True, False], 0.9)

    assert found is not None
    assert (found.threshold, found.kept_good) == (4.6666, 2)


def test_a_score_of_minus_infinity_is_never_kept() -> None:
    found = best_cut([5.0, 4.0, -math.inf], [True, True, True], 0.9)

    assert found is not None
    assert (found.threshold, found.kept_good, found.dropped_good) == (4.0, 2, 1)


def test_a_precision_that_no_cut_reaches_has_none() -> None:
    assert best_cut(SCORES, GOOD, 0.9) is None


def test_how_many_kept_records_would_show_a_precision() -> None:
    needed = needed_for(0.9, 0.95)

    assert needed is not None
    shown, short = wilson(round(0.95 * needed), needed), wilson(round(0.95 * needed / 2), needed // 2)
    assert shown is not None
    assert shown.low >= 0.9
    assert short is not None
    assert short.low < 0.9
    assert needed_for(0.9, 0.9) is None


# --- comparisons


@pytest.mark.parametrize(
    ("orders", "point"),
    [
        (("A", "B"), 1.0),
        (("B", "A"), 0.0),
        (("A", "A"), 0.5),
        (("B", "B"), 0.5),
        (("tie", "tie"), 0.5),
        (("A", "tie"), 0.5),
        (("A", None), None),
        ((None, None), None),
    ],
)
def test_only_a_judge_of_one_mind_in_both_orders_names_a_winner(
    orders: tuple[str | None, str | None], point: float | None
) -> None:
    assert settled(*orders) == point


def test_win_scores_are_mean_points_over_decided_comparisons() -> None:
    assert win_scores(4, {(0, 1): 1.0, (0, 2): 0.5, (1, 2): None, (2, 3): None}) == [0.75, 0.0, 0.5, None]


def test_bradley_terry_finds_the_strengths_behind_many_games() -> None:
    true = {"a": 1.8, "b": 0.9, "c": 0.3}
    draw = np.random.default_rng(1)
    games = [
        (one, other, float(draw.random() < true[one] / (true[one] + true[other])))
        for one, other in [("a", "b"), ("b", "c"), ("c", "a")] * 2000
    ]

    found = bradley_terry(games)

    assert found == {name: pytest.approx(strength, rel=0.1) for name, strength in true.items()}


def test_a_player_who_never_lost_has_a_finite_strength() -> None:
    found = bradley_terry([("a", "b", 1.0)] * 3)

    assert 1.0 < found["a"] < 2.0
    assert found["a"] + found["b"] == pytest.approx(2.0)


def test_nobody_is_ranked_without_games() -> None:
    assert bradley_terry([]) == {}


def test_a_judge_that_prefers_what_stands_first_is_found() -> None:
    found = position_bias([("A", "A")] * 9 + [("B", "B")] + [("A", "B")] * 10 + [("A", None)])

    assert (found.pairs, found.undecided) == (21, 1)
    assert found.consistent is not None
    assert found.consistent.value == pytest.approx(0.5)
    assert found.first is not None
    assert found.first.value == pytest.approx(0.9)
    assert found.p == pytest.approx(22 / 1024)
