"""A labelled corpus for near duplicates, over real text of your choice.

    python benchmarks/dedup_corpus.py TEXT.jsonl OUT --docs 50000 [--seed 11] [--column text]

In: JSONL or Parquet with a text column (model answers, say; a few MB at least). Out: `OUT/docs.parquet` (`id`, `text`) and
`OUT/pairs.parquet` (`a`, `b`, `kind`, `jaccard`). Documents are runs of sentences of the given text, 300 to 1500
characters long. A fifth are variants of another document: words replaced, an end cut off, case or punctuation
changed, an opener put in front, several of these, or nothing changed; one in twenty shares half of its sentences with
another and must stay. Labels are the exact Jaccard of word 5-grams by Python sets, `\\w+` of the lower-case text: an
implementation that shares no code with the package. Shares, edit rates and seed were fixed before anything was tuned.
"""

import argparse
import random
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl

VARIANTS, RELATED = 0.20, 0.05
SHORTEST, LONGEST = 300, 1500
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
WORD = re.compile(r"\w+")
OPENERS = ("Sure! Here is what you asked for.", "Of course.", "Certainly, let me explain.", "Great question!")


def jaccard(a: str, b: str) -> float:
    """Exact Jaccard of the sets of word 5-grams."""
    words_a, words_b = WORD.findall(a.lower()), WORD.findall(b.lower())
    grams_a = {" ".join(words_a[i : i + 5]) for i in range(len(words_a) - 4)}
    grams_b = {" ".join(words_b[i : i + 5]) for i in range(len(words_b) - 4)}
    union = len(grams_a | grams_b)
    return len(grams_a & grams_b) / union if union else 0.0


def replace_words(text: str, rng: random.Random, words: list[str]) -> str:
    """Up to one word in twenty becomes another."""
    parts = text.split(" ")
    for _ in range(max(1, int(len(parts) * rng.uniform(0, 0.05)))):
        parts[rng.randrange(len(parts))] = rng.choice(words)
    return " ".join(parts)


def cut_off(text: str, rng: random.Random, _: list[str]) -> str:
    """Up to three tenths of the end are missing."""
    return text[: int(len(text) * rng.uniform(0.7, 0.99))]


def change_case(text: str, rng: random.Random, _: list[str]) -> str:
    """Upper, lower or title case."""
    return rng.choice((text.upper(), text.lower(), text.title()))


def change_punctuation(text: str, _: random.Random, __: list[str]) -> str:
    """Commas go, full stops become semicolons, blanks double."""
    return text.replace(",", "").replace(".", ";").replace(" ", "  ")


def put_opener(text: str, rng: random.Random, _: list[str]) -> str:
    """A phrase in front."""
    return f"{rng.choice(OPENERS)} {text}"


def several(text: str, rng: random.Random, words: list[str]) -> str:
    """An opener, edits and punctuation."""
    return change_punctuation(put_opener(replace_words(text, rng, words), rng, words), rng, words)


Edit = Callable[[str, random.Random, list[str]], str]
EDITS: dict[str, Edit] = {
    "words": replace_words,
    "cut": cut_off,
    "case": change_case,
    "punctuation": change_punctuation,
    "opener": put_opener,
    "several": several,
    "exact": lambda text, _, __: text,
}
WEIGHTS = (8, 3, 1, 1, 2, 4, 1)


def make(texts: list[str], docs: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents and labelled pairs."""
    rng = random.Random(seed)
    sentences = [part for text in texts for part in SENTENCE.split(text) if 20 <= len(part) <= 400]
    words = [word for sentence in sentences[:20_000] for word in WORD.findall(sentence)]
    rng.shuffle(sentences)
    place = 0
    built: list[list[str]] = []
    pairs: list[tuple[int, int, str]] = []
    out: list[str] = []
    while len(out) < docs:
        draw = rng.random()
        if len(built) > 100 and draw < VARIANTS:
            of = rng.randrange(len(built))
            kind = rng.choices(list(EDITS), WEIGHTS)[0]
            pairs.append((of, len(out), kind))
            out.append(EDITS[kind](out[of], rng, words))
            built.append([])
            if not built[of]:  # variants of variants would be labelled against the wrong text
                pairs.pop()
            continue
        goal, parts = rng.randint(SHORTEST, LONGEST), []
        if len(built) > 100 and draw < VARIANTS + RELATED and built[of := rng.randrange(len(built))]:
            parts = built[of][: max(1, len(built[of]) * 6 // 10)]
            pairs.append((of, len(out), "related"))
        while sum(map(len, parts)) < goal:
            parts.append(sentences[place % len(sentences)])
            place += 1
        built.append(list(parts))
        out.append(" ".join(parts)[:LONGEST])
    labels = [(a, b, kind, jaccard(out[a], out[b])) for a, b, kind in pairs]
    order = list(range(docs))
    rng.shuffle(order)  # the first of a pair must not always come first
    at = {old: new for new, old in enumerate(order)}
    frame = pl.DataFrame({"id": [f"d{i:08d}" for i in range(docs)], "text": [out[i] for i in order]})
    rows = [(at[a], at[b], kind, score) for a, b, kind, score in labels]
    return frame, pl.DataFrame(rows, schema=["a", "b", "kind", "jaccard"], orient="row")


def read_texts(path: Path, column: str) -> list[str]:
    """A text column of a JSONL or Parquet file."""
    frame = pl.read_parquet(path, columns=[column]) if path.suffix == ".parquet" else pl.read_ndjson(path)
    texts: list[str] = frame[column].drop_nulls().to_list()
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--docs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--column", default="text")
    args = parser.parse_args()
    docs, pairs = make(read_texts(args.text, args.column), args.docs, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    docs.write_parquet(args.out / "docs.parquet")
    pairs.write_parquet(args.out / "pairs.parquet")
    print(
        f"{docs.height} documents, {docs['text'].str.len_chars().sum() / 1e6:.1f} M characters, {pairs.height} pairs, "
    )
    print(f"{(pairs['jaccard'] >= 0.8).sum()} with J >= 0.8")


if __name__ == "__main__":
    main()
