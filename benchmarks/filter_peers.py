"""What other tools' filters cost and keep: run by `benchmarks/filters.py` with the interpreter of an environment that has them.

In: the tool's name; a JSON list of texts on stdin. Out: JSON on stdout: of each filter `[CPU seconds, texts kept]`, the least
of three runs. Written for datatrove 0.10 with spaCy and nltk, and py-data-juicer 1.6. Each filter stands with its own
defaults, which are for web pages; data-juicer's are given the texts in batches of 1,000, as it does itself.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator

_BATCH = 1000
Judge = Callable[[], int]


def datatrove(texts: list[str]) -> Iterator[tuple[str, Judge]]:
    """Its filters for quality; each judges a document a call."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
    for kind in (GopherQualityFilter, GopherRepetitionFilter, FineWebQualityFilter):
        judge = kind()
        judge.filter(documents[0])  # loads its tokeniser
        yield kind.__name__, lambda judge=judge: sum(judge.filter(each) is True for each in documents)


def data_juicer(texts: list[str]) -> Iterator[tuple[str, Judge]]:
    """Its counterparts of the cheap chain."""
    from data_juicer.utils.constant import Fields

    for name in (
        "text_length",
        "words_num",
        "alphanumeric",
        "special_characters",
        "character_repetition",
        "word_repetition",
    ):
        kind = "".join(part.capitalize() for part in name.split("_")) + "Filter"
        judge = getattr(importlib.import_module(f"data_juicer.ops.filter.{name}_filter"), kind)()

        def run(judge: object = judge) -> int:
            kept = 0
            for at in range(0, len(texts), _BATCH):
                part = texts[at : at + _BATCH]
                batch = {"text": part, Fields.stats: [{} for _ in part], Fields.context: [{} for _ in part]}
                kept += sum(judge.process_batched(judge.compute_stats_batched(batch)))
            return kept

        yield kind, run


def main() -> None:
    """Measure and print."""
    texts: list[str] = json.load(sys.stdin)
    found: dict[str, tuple[float, int]] = {}
    for name, judge in {"datatrove": datatrove, "data_juicer": data_juicer}[sys.argv[1]](texts):
        least, kept = float("inf"), 0
        for _ in range(3):
            start = time.process_time()
            kept = judge()
            least = min(least, time.process_time() - start)
        found[name] = least, kept
    print(json.dumps(found))


if __name__ == "__main__":
    main()
