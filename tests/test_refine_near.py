"""Near duplicates of a whole set: what is found, who stays, and what cannot change it."""

import random

import numpy as np
import polars as pl
import pytest

from synthgen.errors import UsageError
from synthgen.refine import near
from synthgen.refine.clusters import SLACK, Duplicates
from synthgen.refine.minhash import MinHasher
from synthgen.refine.minhash_rule import MinHashRule
from synthgen.refine.near import near_duplicates
from synthgen.refine.survivors import Keep, collapse, parse_keep, survival_order

RULE = MinHashRule()


def window(start: int, words: int = 100) -> str:
    """Words of an endless text: windows of 100 words, 5 apart, have a Jaccard of (96 - 5) / (96 + 5) = 0.90."""
    return " ".join(f"word{i}" for i in range(start, start + words))


def edited(rng: random.Random, text: str, edits: int) -> str:
    words = text.split()
    for _ in range(edits):
        words[rng.randrange(len(words))] = f"edit{rng.randrange(10**9)}"
    return " ".join(words)


def corpus(seed: int, size: int) -> list[str]:
    """Texts of which many are edits, of edits too, or copies of earlier ones; some are empty or short."""
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(size):
        if texts and rng.random() < 0.6:
            of = rng.choice(texts)
            texts.append(edited(rng, of, rng.randrange(4)) if of else "")
        else:
            texts.append(" ".join(f"w{rng.randrange(500)}" for _ in range(rng.choice((0, 2, 40, 90)))))
    return texts


def grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(a: str, b: str) -> float:
    return len(grams(a) & grams(b)) / max(len(grams(a) | grams(b)), 1)


def found(texts: list[str], **options: object) -> Duplicates:
    return near_duplicates(pl.Series(texts, dtype=pl.String), RULE, **options)  # type: ignore[arg-type]


def test_an_edit_repeats_the_first_with_its_exact_jaccard() -> None:
    rng = random.Random(1)
    texts = ["something else entirely, and long enough to count", window(0), edited(rng, window(0), 2)]

    duplicates = found(texts)

    assert duplicates.of_N.tolist() == [-1, -1, 1]
    assert duplicates.jaccard_N[2] == pytest.approx(jaccard(texts[1], texts[2]), abs=1e-12)


def test_a_chain_splits_where_its_ends_are_not_alike() -> None:
    ends_apart = [window(0), window(9), window(18)]  # 0.83 between neighbours, 0.68 between the ends

    duplicates = found(ends_apart)

    assert jaccard(ends_apart[0], ends_apart[2]) < 0.8 - SLACK
    assert duplicates.of_N.tolist() == [-1, 0, -1]
    assert duplicates.cluster_N.tolist() == [0, 0, 2]


def test_two_edits_of_one_text_are_one_cluster_though_an_edit_comes_first() -> None:
    edits = [window(0, 93) + " " + window(900, 7), window(0), window(800, 7) + " " + window(7, 93)]

    duplicates = found(edits)

    assert 0.8 - SLACK <= jaccard(edits[0], edits[2]) < 0.8
    assert duplicates.cluster_N.tolist() == [0, 0, 0]
    assert duplicates.of_N.tolist() == [-1, 0, 1]  # the last names what it really repeats
    assert duplicates.jaccard_N[2] >= 0.8


def test_clusters_whose_rows_are_all_near_the_first_survivor_join_through_a_row_of_the_second() -> None:
    # Both survivors are like the third row, which is more like the second; they are 0.72 alike.
    texts = [window(0), window(16), window(9)]

    duplicates = found(texts)

    assert 0.8 - SLACK <= jaccard(texts[0], texts[1]) < 0.8
    assert jaccard(texts[0], texts[2]) < jaccard(texts[1], texts[2])
    assert duplicates.cluster_N.tolist() == [0, 0, 0]
    assert duplicates.of_N.tolist() == [-1, 2, 0]
    assert duplicates.jaccard_N[1] == pytest.approx(jaccard(texts[1], texts[2]), abs=1e-12)
    assert duplicates.jaccard_N[2] == pytest.approx(jaccard(texts[0], texts[2]), abs=1e-12)


def test_templated_rows_with_different_arguments_stay() -> None:
    # marin#6854: 859 089 of 859 092 such rows were removed by unverified character shingles and closure.
    rng = random.Random(3)
    system = " ".join(f"rule{i}" for i in range(60))
    calls = [
        f'{system} {{"name": "book", "city": "{rng.random()}", "day": {rng.randrange(10**6)}, '
        + ", ".join(f'"a{k}": "{rng.getrandbits(40):x}"' for k in range(6))
        for _ in range(2000)
    ]

    for shingle in ("word:5", "char:9"):
        duplicates = near_duplicates(pl.Series(calls), MinHashRule(shingle=shingle))

        assert (duplicates.of_N >= 0).sum() < 0.05 * len(calls)


@pytest.mark.parametrize("seed", range(6))
def test_every_cluster_has_one_survivor_and_every_named_pair_reaches_the_threshold(seed: int) -> None:
    texts = corpus(seed, 120)

    duplicates = found(texts)

    survives = duplicates.of_N < 0
    assert (duplicates.cluster_N[survives] == np.flatnonzero(survives)).all()
    assert survives[duplicates.cluster_N].all()
    for row in np.flatnonzero(~survives).tolist():
        other = int(duplicates.of_N[row])
        assert duplicates.jaccard_N[row] >= 0.8
        assert duplicates.cluster_N[other] == duplicates.cluster_N[row]
        if min(len(texts[row].split()), len(texts[other].split())) >= 5:
            assert duplicates.jaccard_N[row] == jaccard(texts[row], texts[other])
            assert jaccard(texts[row], texts[int(duplicates.cluster_N[row])]) >= 0.8 - SLACK - 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_the_rows_changes_nothing(seed: int) -> None:
    texts = corpus(seed, 120)
    names = [f"{i:04d}" for i in range(len(texts))]
    shuffled = random.Random(seed).sample(range(len(texts)), len(texts))

    def kept(rows: list[int], **options: object) -> dict[str, str]:
        order = np.argsort([names[i] for i in rows])
        duplicates = found([texts[i] for i in rows], order_N=order, **options)
        return {names[i]: names[rows[j]] for i, j in zip(rows, duplicates.cluster_N.tolist(), strict=True)}

    plain = kept(list(range(len(texts))))

    assert kept(shuffled) == plain
    assert kept(shuffled, threads=3) == plain
    assert kept(shuffled, kernel=False) == plain


def test_hot_buckets_and_small_blocks_change_no_order_dependence(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = corpus(9, 150)
    whole = found(texts)
    monkeypatch.setattr(near, "BLOCK_PAIRS", 7)

    assert found(texts).cluster_N.tolist() == whole.cluster_N.tolist()


def test_many_copies_of_one_text_are_one_cluster() -> None:
    duplicates = found([window(0)] * 500 + ["", "", " "])

    assert (duplicates.cluster_N[:500] == 0).all()
    assert (duplicates.jaccard_N[1:500] == 1.0).all()
    assert duplicates.of_N[500:].tolist() == [-1, -1, -1]  # without text nothing is repeated


def test_pairs_above_the_threshold_are_found() -> None:
    rng = random.Random(11)
    pairs = [(text, edited(rng, text, 2)) for text in (window(1000 * i, 120) for i in range(400))]
    similar = [i for i, pair in enumerate(pairs) if jaccard(*pair) >= 0.8]

    duplicates = found([text for pair in pairs for text in pair])

    hits = sum(duplicates.of_N[2 * i + 1] == 2 * i for i in similar)
    assert len(similar) > 300
    assert hits >= 0.985 * len(similar)


def test_references_stay_and_take_only_what_is_really_near() -> None:
    texts = pl.Series([window(0), window(0), window(5), window(14)])
    hasher = MinHasher(RULE)
    keys = near.KeysInMemory(hasher.band_keys(texts))
    order = np.arange(4)
    candidates = near.candidates(keys, order, references=2)
    jaccards = near.Jaccards(order, texts.gather, hasher)

    duplicates = near.settle(
        jaccards.verified(candidates.pair_E),
        candidates.copy_N,
        order,
        jaccards.of,
        threshold=0.8,
        references=2,
    )

    assert duplicates.of_N.tolist() == [-1, -1, 0, -1]


# --- who stays ------------------------------------------------------------------------------------------------


ROWS = pl.DataFrame(
    {"id": ["b", "a", "c"], "digest": [1, 2, 3], "chars": [5, 9, 9], "score": [0.5, None, 0.9]},
    schema_overrides={"digest": pl.UInt64},
)


@pytest.mark.parametrize(
    ("keep", "expected"), [("first", [1, 0, 2]), ("longest", [1, 2, 0]), ("best:score", [2, 0, 1])]
)
def test_the_policy_orders_the_rows(keep: str, expected: list[int]) -> None:
    assert survival_order(ROWS, parse_keep(keep)).tolist() == expected


def test_a_random_order_depends_on_the_seed_and_on_the_rows_alone() -> None:
    rows = pl.DataFrame({"digest": pl.Series(range(50), dtype=pl.UInt64)})
    backwards = rows.reverse()

    order = survival_order(rows, Keep("random", seed=4))

    assert rows["digest"].gather(order).to_list() == (
        backwards["digest"].gather(survival_order(backwards, Keep("random", seed=4))).to_list()
    )
    assert order.tolist() != survival_order(rows, Keep("random", seed=5)).tolist()


@pytest.mark.parametrize("wrong", ["last", "best", "best:", "random:x", "first:1", ""])
def test_an_unknown_policy_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="keep"):
        parse_keep(wrong)


def test_a_cluster_of_a_twentieth_and_a_thousand_rows_is_called_out() -> None:
    source = pl.Series([0] * 1001 + [1] * 5000)
    cluster = np.arange(6001)
    cluster[:1000] = 0

    assert collapse(cluster, np.arange(6001), source, ["a", "b"]) == [
        "a loses 999 of its 1001 rows, in clusters of up to 1000"
    ]
    cluster[:1001] = 0
    assert collapse(cluster, np.arange(6001), source, ["a", "b"])[0] == "one cluster holds 1001 of 6001 rows"


def test_a_source_that_loses_half_of_its_rows_is_not_called_out() -> None:
    cluster = np.arange(100)
    cluster[:51] = 0

    assert collapse(cluster, np.arange(100), pl.Series([0] * 100), ["a"]) == []
