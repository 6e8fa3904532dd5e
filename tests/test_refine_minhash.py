"""MinHash of columns: equal to datasketch bit for bit, equal with and without the kernel, whatever the chunks."""

import random
from typing import Literal

import numpy as np
import polars as pl
import pytest
import xxhash
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import UsageError
from synthgen.refine import minhash_kernel
from synthgen.refine.minhash import MinHasher
from synthgen.refine.minhash_kernel import KernelBackend
from synthgen.refine.minhash_rule import HashName, MinHashRule, permutations
from synthgen.refine.shingles import sign_corners
from synthgen.refine.text_hashes import xxh32

HASHES: tuple[HashName, ...] = ("fast", "sha1", "xxh32")
SCRIPTS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    "äöüßÄÖÜẞéèêıİŉǰΐΰſﬀﬃ",
    "абвгдеёжзийклмнАБВГД",
    "αβγδεζηθΑΒΓΔςσ",
    "日本語の文章はこのように書く。中文也是",
    "हिन्दी में लिखो",
    "ภาษาไทยไม่มีช่องว่าง",
    "אבגדהוזחט ؤئابتثج",
    "😀👩‍🔬🇩🇪☀️1️⃣ॅ ͏𝔘𝔫𝔦𝐜𝟎𝟏",
    " \t\n\u00a0\u2003\u3000\x1c\x85.,;:!?-_'\"()[]{}\u0000\u200b\u0301\ufeff",
)


def random_text(rng: random.Random) -> str:
    """Words of one or two scripts; some texts are empty, some have fewer words than a shingle."""
    alphabet = "".join(rng.sample(SCRIPTS, rng.choice((1, 1, 2)))) + SCRIPTS[0]
    words = [
        "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 9))) for _ in range(rng.randrange(24))
    ]
    return rng.choice((" ", "  ", ", ", "\n", "。")).join(words)


def independent_shingles(text: str, n: int = 5) -> set[bytes]:
    """The documented cut, one character at a time."""
    import unicodedata

    unspaced = [
        (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF),
        (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x323AF),
    ]  # fmt: skip
    tokens, word = [], ""
    for char in f"{text.casefold()}.":
        mark = unicodedata.category(char) in ("Mn", "Mc") and not 0xFE00 <= ord(char) <= 0xFE0F
        letter = char.isalnum() or char == "_"
        solo = (letter or mark) and any(low <= ord(char) <= high for low, high in unspaced)
        if (letter or mark) and not solo:
            word += char
            continue
        tokens += [word] * any(c.isalnum() or c == "_" for c in word) + [char] * solo
        word = ""
    if len(tokens) >= n:
        return {" ".join(tokens[i : i + n]).encode() for i in range(len(tokens) - n + 1)}
    letters = "".join(text.casefold().split())
    return {(letters + "\0" * n)[i : i + n].encode() for i in range(len(letters))}


TEXTS = pl.Series([random_text(random.Random(f"minhash {i}")) for i in range(10_000)])


@pytest.mark.parametrize("hash_name", ["sha1", "xxh32"])
def test_signatures_equal_datasketch_on_random_unicode(hash_name: Literal["sha1", "xxh32"]) -> None:
    hasher = MinHasher(MinHashRule(hash=hash_name, num_perm=32, seed=7))
    hashfunc = {} if hash_name == "sha1" else {"hashfunc": xxhash.xxh32_intdigest}

    signature = hasher.signatures(TEXTS)

    oracles = MinHash.generator(
        [list(independent_shingles(text)) for text in TEXTS], num_perm=32, seed=7, **hashfunc
    )
    expected = np.stack([oracle.hashvalues for oracle in oracles])
    assert np.array_equal(signature, expected)


@pytest.mark.parametrize("shingle", ["word:5", "word:1", "char:9", "char:3"])
@pytest.mark.parametrize("hash_name", HASHES)
def test_the_kernel_equals_numpy(hash_name: HashName, shingle: str) -> None:
    rule = MinHashRule(hash=hash_name, shingle=shingle)
    texts = TEXTS.head(300)
    kernel, plain = MinHasher(rule, kernel=True), MinHasher(rule, kernel=False)

    assert np.array_equal(kernel.signatures(texts), plain.signatures(texts))
    assert np.array_equal(kernel.band_keys(texts).key_BN, plain.band_keys(texts).key_BN)
    assert np.array_equal(kernel.band_keys(texts).total_N, plain.band_keys(texts).total_N)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_the_kernel_equals_numpy_on_any_text(texts: list[str]) -> None:
    series = pl.Series(texts, dtype=pl.String)
    both = [MinHasher(MinHashRule(num_perm=16), kernel=kernel) for kernel in (True, False)]

    first, second = (pairs.ravel() for pairs in np.indices((len(texts), len(texts))))

    kernel, plain = (hasher.signatures(series) for hasher in both)
    jaccard, plain_jaccard = (hasher.jaccards(series, first, second) for hasher in both)
    total, plain_total = (hasher.band_keys(series).total_N for hasher in both)

    assert np.array_equal(kernel, plain)
    assert np.array_equal(jaccard, plain_jaccard)
    assert np.array_equal(total, plain_total)


@pytest.mark.parametrize("kernel", [True, False])
def test_the_jaccard_of_a_pair_is_exact(kernel: bool) -> None:
    texts = TEXTS.head(400)
    hasher = MinHasher(MinHashRule(), kernel=kernel)
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 60, 500), rng.integers(0, 400, 500)
    shingles = [independent_shingles(text) for text in texts]

    found = hasher.jaccards(texts, first, second)

    for a, b, score in zip(first.tolist(), second.tolist(), found.tolist(), strict=True):
        union = shingles[a] | shingles[b]
        assert score == (len(shingles[a] & shingles[b]) / len(union) if union else 0.0)


def test_characters_met_on_the_way_change_nothing() -> None:
    texts = pl.Series([f"one two three four five six seven {chr(0x10000 + i)} eight" for i in range(40)])
    first, second = np.zeros(39, np.int64), np.arange(1, 40)
    minhash_kernel._alphabet.cache_clear()

    both = [MinHasher(MinHashRule(), kernel=kernel) for kernel in (True, False)]

    assert np.array_equal(*(hasher.jaccards(texts.reverse(), first, second) for hasher in both))
    assert np.array_equal(*(hasher.band_keys(texts).key_BN for hasher in both))


@pytest.mark.parametrize("size", [*range(6), 7, 8, 9, 15, 16, 17, 24, 25, 60])
def test_words_of_any_length_are_hashed_whole(size: int) -> None:
    text = " ".join("abcdefghij"[i % 10] * (size + i % 3) for i in range(23))
    texts = pl.Series([text, text.replace("j", "k"), f"{text} x"])

    kernel, plain = (MinHasher(MinHashRule(), kernel=kernel).signatures(texts) for kernel in (True, False))

    assert np.array_equal(kernel, plain)


@pytest.mark.parametrize("kernel", [True, False])
def test_chunks_and_threads_change_nothing(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = TEXTS.head(200)
    whole = MinHasher(MinHashRule(), kernel=kernel).band_keys(texts)
    monkeypatch.setattr(KernelBackend, "chunk_bytes", 300)

    cut = MinHasher(MinHashRule(), kernel=kernel, threads=3).band_keys(texts)

    assert np.array_equal(whole.key_BN, cut.key_BN)
    assert np.array_equal(whole.total_N, cut.total_N)


def test_null_is_an_empty_text_without_shingles() -> None:
    hasher = MinHasher(MinHashRule())

    keys = hasher.band_keys(pl.Series(["a b c d e", None, "", " \n"]))

    assert keys.total_N.astype(bool).tolist() == [True, False, False, False]


def test_no_texts_have_no_keys() -> None:
    assert MinHasher(MinHashRule()).band_keys(pl.Series([], dtype=pl.String)).key_BN.shape == (18, 0)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 15, 16, 17, 31, 32, 63, 64, 200])
def test_xxh32_equals_the_library(size: int) -> None:
    message = bytes(range(256))[:size]

    assert xxh32([message, message]).tolist() == [xxhash.xxh32_intdigest(message)] * 2


@pytest.mark.parametrize("size", [1, 13, 54, 55, 56, 63, 64, 118, 119, 120, 300])
def test_sha1_of_long_words_crosses_blocks_rightly(size: int) -> None:
    text = " ".join(["w" * size, "a", "b", "c", "d", "e" * (size // 2), "f"])

    signature = MinHasher(MinHashRule(hash="sha1", num_perm=16)).signatures(pl.Series([text]))

    oracle = MinHash(num_perm=16, seed=1)
    oracle.update_batch(list(independent_shingles(text)))
    assert signature[0].tolist() == oracle.hashvalues.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": 1.01},
        {"shingle": "word:0"},
        {"shingle": "line:3"},
        {"num_perm": 8},
        {"hash": "md5"},
        {"seed": -1},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        MinHashRule(**wrong)  # type: ignore[arg-type]  # what users write in options


@pytest.mark.parametrize("size", [12, 60, 400])
def test_places_of_the_fast_signature_agree_as_often_as_shingles(size: int) -> None:
    rng = np.random.default_rng(size)
    shared = size * 8 // 9  # of two sets of `size` with so many in common, the Jaccard is about 0.8
    pairs = 600
    hashes = rng.integers(0, 2**32, (pairs, 2 * size - shared), dtype=np.uint32)
    first_S, second_S = hashes[:, :size].ravel(), hashes[:, size - shared :].ravel()
    offset_N1 = np.arange(0, pairs * size + 1, size)

    first, second = (sign_corners(own, offset_N1, permutations(128, 1)) for own in (first_S, second_S))

    agreement = (first == second).mean(axis=1)
    jaccard = shared / (2 * size - shared)
    independent = np.sqrt(jaccard * (1 - jaccard) / 128)
    assert abs(agreement.mean() - jaccard) < 0.01
    assert agreement.std() < (1.1 * independent if size > 50 else 2 * independent)


@pytest.mark.parametrize("num_perm", [16, 100, 130, 300])
def test_the_kernel_equals_numpy_for_any_number_of_places(num_perm: int) -> None:
    rule = MinHashRule(num_perm=num_perm)
    texts = pl.Series(["one two three four five six seven", "", "a b c", " ".join(map(str, range(99)))])

    kernel, plain = (MinHasher(rule, kernel=kernel).signatures(texts) for kernel in (True, False))

    assert np.array_equal(kernel, plain)
