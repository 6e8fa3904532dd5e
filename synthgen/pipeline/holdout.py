"""The test split as a reference set of its own: what asks the same as a test row must not be trained on.

In: all accepted rows of a `Staging`, its split known. Out: train rows that repeat the prompt of a test row are withdrawn
into `rejected/`, by the rules of decontamination and with its reasons; what was searched for, for the manifest. Guarantees:
it depends on the rows and their order alone; test rows stay; what many train rows ask alike (the template of a prompt, one
question for all) withdraws nobody; memory is that of the test prompts and 16 bytes a row.

    whole prompt   equal but for case and white space: always, unless so many train rows ask it that it is no leak
    parts of it    runs, near copies, short items: see `refine.decontaminate`; shingles of many train prompts do not count

Rejected: deciding wave by wave (a test row may come after the train rows that repeat it, and then the test row would have
to go: the test split would be what is easily told apart from train).
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

from synthgen.dataset import Staging
from synthgen.pipeline.decontamination import Decontamination
from synthgen.pipeline.verdicts import HOLDOUT, Counts
from synthgen.pipeline.withdrawing import withdraw
from synthgen.refine import view_of
from synthgen.refine.decontaminate import FOUND
from synthgen.refine.reference import Frequencies, common_limit
from synthgen.types import JSONValue

__all__ = ["withhold_leaks"]

# A question of more than a tenth of the train rows is what the set is about; the same share as for templates.
_COMMON_SHARE = 0.1
_SPAN_CHARS = 240


def withhold_leaks(staging: Staging, counts: Counts) -> list[JSONValue]:
    """Withdraw the train rows that repeat a test prompt, and count them as rejected; what was searched for.

    Raises:
        SynthgenError: the search does not find what is planted in it.
    """
    tested = [view.filter("in_test") for view in _views(staging)]
    prompts = pl.concat(tested)["prompt"] if tested else pl.Series([], dtype=pl.String)
    if not len(prompts):
        return []
    asked = _Asked(staging, prompts)
    if asked.train == 0:
        return []
    against = Decontamination.of_texts(
        HOLDOUT, asked.items, common=asked.frequencies(staging).above(common_limit(asked.train))
    )
    found = [asked.repeats(view, against) for view in _train(staging)]
    leaked = pl.concat(found)
    withdraw(staging, counts, leaked, same_split=True)
    said = against.said()[0]
    assert isinstance(said, dict)  # as `said` made it
    return [{**said, "split": "test", "asked_by_many": asked.by_many}]


class _Asked:
    """The test prompts, and how often train rows ask each."""

    def __init__(self, staging: Staging, prompts: pl.Series) -> None:
        """`items`: the prompts, empty where too many train rows ask the same; `by_many`: how many those are."""
        items = pl.DataFrame({"prompt": prompts, "key": _key(prompts)}).with_row_index("item")
        times = pl.DataFrame(schema={"key": pl.String, "times": pl.UInt32})
        self.train = 0
        for view in _train(staging):
            self.train += view.height
            asked = _key(view["prompt"]).alias("key").value_counts(name="times")
            known = asked.join(items, on="key", how="semi")
            times = pl.concat([times, known]).group_by("key").agg(pl.col("times").sum())
        most = max(2, int(self.train * _COMMON_SHARE))
        items = items.join(times, on="key", how="left", maintain_order="left")
        many = (items["times"].fill_null(0) > most).alias("many")
        self.by_many = int(many.sum())
        self.items = items.select(pl.when(~many).then("prompt").otherwise(pl.lit("")))["prompt"].to_list()
        own = items.filter(~many & (pl.col("key") != "")).select("key", "item")
        self._item_of = own.unique("key", keep="first", maintain_order=True)

    def frequencies(self, staging: Staging) -> Frequencies:
        """In how many train texts each shingle of the items stands; equal prompts count once, items themselves not."""
        found = Frequencies([item for item in self.items if item])
        seen = np.empty(0, np.uint64)
        for view in _train(staging):
            keyed = view.with_columns(_key(view["prompt"]).alias("key"))
            keyed = keyed.unique("key", keep="first", maintain_order=True).join(
                self._item_of, on="key", how="anti", maintain_order="left"
            )
            # Within one process and never stored, so a hash that changes between versions will do.
            hashes = keyed["key"].hash(1).to_numpy()
            new = ~np.isin(hashes, seen)
            seen = np.concatenate([seen, hashes[new]])
            found.add(keyed.filter(pl.Series(new))["prompt"])
        return found

    def repeats(self, view: pl.DataFrame, against: Decontamination) -> pl.DataFrame:
        """Verdicts of the train rows that repeat an item."""
        keyed = view.with_columns(_key(view["prompt"]).alias("key"))
        same = keyed.join(self._item_of, on="key", how="inner", maintain_order="left").select(
            "id",
            stage=pl.lit(f"decontaminate:{HOLDOUT}"),
            reason=pl.lit("exact_match"),
            score=pl.lit(1.0),
            threshold=pl.lit(1.0),
            detail=pl.format(
                "item {}, prompt, {} words: {}",
                "item",
                pl.col("key").str.split(" ").list.len(),
                pl.col("key").str.slice(0, _SPAN_CHARS),
            ),
        )
        rest = view.join(same, on="id", how="anti", maintain_order="left")
        return pl.concat([same.cast(FOUND), against.verdicts(rest)])


def _train(staging: Staging) -> Iterator[pl.DataFrame]:
    return (view.filter(~pl.col("in_test")) for view in _views(staging))


def _views(staging: Staging) -> Iterator[pl.DataFrame]:
    """What the users say, and the last answer, of all accepted rows; `in_test` says on which side they are."""
    turn = pl.element().struct
    users = pl.col("messages").list.eval(
        turn.field("content").filter(turn.field("role") == "user").fill_null("")
    )
    answers = pl.col("messages").list.eval(
        turn.field("content").filter(turn.field("role") == "assistant").fill_null("")
    )
    for frame in staging.accepted():
        texts = frame.select(
            "id",
            prompt=users.list.join("\n\n"),
            completion=answers.list.last().fill_null(""),
        )
        yield view_of(texts).with_columns(staging.in_test(frame).alias("in_test"))


def _key(prompts: pl.Series) -> pl.Series:
    """What is the same in two prompts that ask the same."""
    return prompts.str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
