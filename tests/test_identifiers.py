"""What programs are full of is no secret: Yelp/detect-secrets#693."""

import random
import uuid

import polars as pl

from synthgen.plugins import load_plugin
from synthgen.refine import Verdicts, view_of

WORDS = [
    "key",
    "token",
    "secret",
    "api",
    "auth",
    "user",
    "skip",
    "task",
    "gitlab",
    "slack",
    "github",
    "google",
    "order",
    "page",
    "cache",
    "stripe",
    "index",
    "npm",
    "hash",
    "sk",
    "ghp",
]


def identifiers(count: int, seed: int) -> list[str]:
    """Names in every style, with digits here and there, hashes, UUIDs, versions, paths, long constants."""
    draw = random.Random(seed)

    def one(style: int) -> str:
        parts = [draw.choice(WORDS) + draw.choice(["", "", "2", "64"]) for _ in range(draw.randint(2, 7))]
        return [
            lambda: parts[0] + "".join(map(str.title, parts[1:])),
            lambda: "_".join(parts),
            lambda: "-".join(parts),
            lambda: "_".join(parts).upper(),
            lambda: f"com.{'.'.join(parts)}.{parts[0].title()}Factory",
            lambda: f"{draw.getrandbits(160):040x}",
            lambda: str(uuid.UUID(int=draw.getrandbits(128))),
            lambda: f"{parts[0]}-{draw.randint(0, 99)}.{draw.randint(0, 99)}.{draw.randint(0, 99)}-rc1+{draw.getrandbits(32):08x}",
            lambda: f"/{'/'.join(parts)}/{parts[0]}_{draw.randint(0, 10**9)}.py",
            lambda: f'{parts[0]}_token = os.environ["{"_".join(parts).upper()}"]',
        ][style]()  # fmt: skip

    return [one(place % 10) for place in range(count)]


def test_ten_thousand_identifiers_hold_no_secret() -> None:
    names = identifiers(10_000, seed=693)
    plugin = load_plugin("filter", "secrets")
    frame = view_of(pl.DataFrame({"id": [str(n) for n in range(len(names))], "completion": names}))

    verdicts = plugin.run(frame, plugin.params())

    assert isinstance(verdicts, Verdicts)
    assert verdicts.reason.drop_nulls().to_list() == []
