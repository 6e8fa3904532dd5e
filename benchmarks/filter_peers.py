"""What datatrove's filters cost and keep: run by `benchmarks/filters.py` with the interpreter of an environment that has them.

In: a JSON list of texts on stdin. Out: JSON on stdout: of each filter `[CPU seconds, texts kept]`, the least of three runs.
Written for datatrove 0.10 with spaCy and nltk. Each filter stands with its own defaults, which are for web pages.
"""

import json
import sys
import time


def main() -> None:
    from datatrove.data import Document
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    documents = [Document(text=text, id=str(i)) for i, text in enumerate(json.load(sys.stdin))]
    found: dict[str, tuple[float, int]] = {}
    for kind in (GopherQualityFilter, GopherRepetitionFilter, FineWebQualityFilter):
        judge = kind()
        judge.filter(documents[0])  # loads its tokeniser
        least, kept = float("inf"), 0
        for _ in range(3):
            start = time.process_time()
            said = [judge.filter(document) for document in documents]
            least = min(least, time.process_time() - start)
            kept = sum(answer is True for answer in said)
        found[kind.__name__] = least, kept
    print(json.dumps(found))


if __name__ == "__main__":
    main()
