"""Other tools for near duplicates, each from a series of texts to its clusters, as its own documentation does it.

In: texts, a threshold. Out: `Clusters`. Versions they were written for: datasketch 2.0, rensa 0.5, text-dedup 0.4, datatrove
0.10 (with xxhash below 4 and spaCy). All but datatrove, which has fixed bands, get the threshold and 128 permutations, words
in fives. `benchmarks/dedup.py` measures them.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

WORD = re.compile(r"\w+")
Numbers = Sequence[int] | NDArray[np.int64]
Clusters = tuple[Numbers, Numbers]  # for each document the cluster it is in, and the one it repeats or -1


def shingles(text: str) -> list[str]:
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + 5]) for i in range(len(words) - 4)] or [" ".join(words)]


def joined(count: int, edges: list[tuple[int, int]]) -> Clusters:
    """Transitive closure, as users of the index write it: the smallest of a component stays."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in edges:
        a, b = sorted((root(a), root(b)))
        parent[b] = a
    roots = [root(i) for i in range(count)]
    return roots, [found if found != i else -1 for i, found in enumerate(roots)]


def datasketch(texts: pl.Series, threshold: float) -> Clusters:
    from datasketch import MinHash, MinHashLSH

    sets = [{shingle.encode() for shingle in shingles(text)} for text in texts]
    lsh = MinHashLSH(threshold=threshold, num_perm=128)
    sketches = MinHash.bulk(sets, num_perm=128)
    for i, sketch in enumerate(sketches):
        lsh.insert(i, sketch, check_duplication=False)
    edges = [(j, i) for i, sketch in enumerate(sketches) for j in lsh.query(sketch) if j < i]
    return joined(len(texts), edges)


def rensa(texts: pl.Series, threshold: float) -> Clusters:
    """Its quickest path: a digest matrix and one-shot flags; flags know no clusters."""
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets([shingles(text) for text in texts], 128, 42)
    flags = RMinHashLSH(threshold, 128, 16).query_duplicate_flags_matrix_one_shot(matrix)
    return [0] * len(texts), [0 if flag else -1 for flag in flags]


def text_dedup(texts: pl.Series, threshold: float) -> Clusters:
    """The steps of its `minhash` command, without the data sets that it reads and writes between them."""
    from text_dedup.minhash import NON_ALPHA, RNG, embed_func, sha1_hash
    from text_dedup.utils import UnionFind, optimal_param

    bands, rows = optimal_param(threshold, 128, false_positive_weight=0.5, false_negative_weight=0.5)
    prime = np.uint64((1 << 61) - 1)
    permutations = (
        RNG.randint(1, prime, size=(128,), dtype=np.uint64),
        RNG.randint(0, prime, size=(128,), dtype=np.uint64),
    )
    tables: list[defaultdict[bytes, set[int]]] = [defaultdict(set) for _ in range(bands)]
    found = UnionFind()
    for i, text in enumerate(texts):
        if len(NON_ALPHA.split(text.lower())) < 5:
            continue
        embedded = embed_func(
            text,
            i,
            num_perm=128,
            ngram_size=5,
            min_length=5,
            hashranges=[(band * rows, (band + 1) * rows) for band in range(bands)],
            permutations=permutations,
            hash_func=lambda token: sha1_hash(token, d=32),
            dtype=np.uint64,
            max_hash=np.uint32((1 << 32) - 1),
            modulo_prime=prime,
        )
        for table, key in zip(tables, embedded["__signatures__"], strict=True):
            table[key].add(i)
    for table in tables:
        for members in table.values():
            for member in members if len(members) > 1 else ():
                found.union(member, min(members))
    roots = [found.find(i) for i in range(len(texts))]
    return roots, [root if root != i else -1 for i, root in enumerate(roots)]


def datatrove(texts: pl.Series, threshold: float) -> Clusters:
    """Its three stages on one local task, with its own fixed bands (14 of 8), and English words by spaCy."""
    from datatrove.data import Document
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.logging import logger

    logger.remove()
    config = MinhashConfig()
    documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        signatures, buckets, clusters = (f"{folder}/{name}" for name in ("signatures", "buckets", "clusters"))
        stages = (
            ([documents, MinhashDedupSignature(output_folder=signatures, config=config)], 1),
            (
                [MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)],
                config.num_buckets,
            ),
            ([MinhashDedupCluster(buckets, clusters, config=config, save_cluster_id=True)], 1),
        )
        for number, (pipeline, tasks) in enumerate(stages):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{folder}/log{number}").run()
        member_of = (
            np.fromfile(f"{clusters}/000000.clusters", "<u4").reshape(-1, 2)
            if texts.len()
            else np.empty((0, 2))
        )
        removed = set(np.fromfile(f"{clusters}/000000.remove", "<u4").tolist())
    stays = {cluster: row for row, cluster in member_of.tolist() if row not in removed}
    of = {row: stays[cluster] for row, cluster in member_of.tolist()}
    rows = range(len(texts))
    return [of.get(i, i) for i in rows], [of[i] if i in removed else -1 for i in rows]
