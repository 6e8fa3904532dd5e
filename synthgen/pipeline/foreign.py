"""What policy says of data we did not generate: nothing, unless the user declares its use and its origin.

In: declared uses and an origin (`teacher@route`), or frames whose rows name theirs. Out: stamped frames, and card,
policy files and manifest entries of the refined dataset. Guarantee: with a declared use, no row of an origin that the
gate does not let pass is ever published; a declared origin never covers a row that names another one.
"""

from collections.abc import Mapping, Sequence
from datetime import date

import orjson
import polars as pl

from synthgen.assets import package_version
from synthgen.dataset import CardFilters, CardInfo, CardPolicy, dataset_card
from synthgen.errors import PolicyError, UsageError
from synthgen.pipeline.verdicts import Counts
from synthgen.policy import (
    Ask,
    GateResult,
    Part,
    gate,
    licence_expression,
    licence_texts,
    load_registry,
    notice_lines,
    parse_uses,
    policy_json,
    refusal,
)
from synthgen.recipe.model import Actor
from synthgen.refine import Chain
from synthgen.types import JSONValue

__all__ = ["ForeignPolicy"]

_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_ORIGIN = ("model", "route", "row_license")
_TEXTS = dict.fromkeys((*_ORIGIN, "policy_id"), pl.String)


class ForeignPolicy:
    """The gate over foreign rows: decides on every origin once, when its first row comes by."""

    def __init__(
        self, use: Sequence[str], origin: str | None, *, by_column: bool, row_license: str, today: date
    ) -> None:
        """Decide on the declared origin at once.

        Raises:
            PolicyError: it may not be used so.
            UsageError: a use is unknown, or none or a malformed origin is declared.
        """
        self.registry = load_registry()
        self.ask = Ask(parse_uses(use), Actor(), today=today) if use else None
        self.result: GateResult | None = None
        self._row_license = row_license
        self._origin: tuple[str | None, str | None] = (None, None)
        self._policy_ids: dict[Part, str] = {}
        if self.ask is None:
            return
        if origin is None and not by_column:
            raise UsageError(
                "--use needs --origin teacher@route (or --origin-column): policy decides on who wrote the answers, "
                "and where"
            )
        if origin is not None:
            teacher, at, route = origin.rpartition("@")
            if not (teacher and at and route):
                raise UsageError(f"--origin {origin}: write it as teacher@route")
            self._origin = (teacher, route)
            self._decide(teacher, route, row_license)

    def _decide(self, model: str, route: str, row_license: str) -> str:
        """The policy id of an origin."""
        assert self.ask is not None  # only asked where a use is declared
        part = Part(
            alias=model, provider="foreign", route=route, model=model, hf=None, row_license=row_license
        )
        if part not in self._policy_ids:
            self.result = gate(self.registry, [*self._policy_ids, part], self.ask)
            if not self.result.passed:
                raise PolicyError(refusal(self.result, self.ask.uses))
            self._policy_ids[part] = self.result.parts[-1].decision.policy_id
        return self._policy_ids[part]

    @property
    def outcome(self) -> str:
        """The decision, or `unevaluated`."""
        return self.result.outcome if self.result else "unevaluated"

    def stamp(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows with the declared origin where they name none of their own, and with what was decided on it.

        Raises:
            PolicyError: a row names an origin that may not be used so, or there is none for it.
        """
        if self.ask is None:
            return frame
        teacher, route = self._origin
        named = frame.with_columns(
            pl.col("teacher").fill_null(pl.lit(teacher, dtype=pl.String)),
            pl.col("route").fill_null(pl.lit(route, dtype=pl.String)),
            pl.col("row_license").fill_null(self._row_license),
        )
        model = pl.coalesce("served_model", "teacher").fill_null("unknown").alias("model")
        origins = named.select(model, pl.col("route").fill_null("unknown"), "row_license")
        decided = [
            (*origin, self._decide(*origin)) for origin in origins.unique(maintain_order=True).iter_rows()
        ]
        ids = pl.DataFrame(decided, schema=[*_ORIGIN, "policy_id"], orient="row", schema_overrides=_TEXTS)
        found = origins.join(ids, on=_ORIGIN, how="left", maintain_order="left")
        return named.with_columns(found["policy_id"])

    def manifest(self, chain: Chain, counts: Counts) -> dict[str, JSONValue]:
        """The manifest's own entries."""
        return {
            "synthgen": package_version(),
            "policy_registry": self.registry.version,
            "policy": self.outcome,
            "chain": chain.as_json(),
            "counts": {"planned": counts.planned, **counts.outcomes},
            "reasons": {"/".join(key): count for key, count in sorted(counts.reasons.items())},
        }

    def texts(self, name: str, rows: Mapping[str, int], chain: Chain, counts: Counts) -> dict[str, bytes]:
        """Card and policy files; `rows` are the rows of every shard."""
        card = CardInfo(
            name=name,
            version=package_version(),
            train_rows=_rows(rows, "data/train"),
            test_rows=_rows(rows, "data/test"),
            rejected_rows=_rows(rows, "rejected/"),
            counts={"planned": counts.planned, **counts.outcomes},
            license=licence_expression(self.registry, self.result) if self.result else None,
            filters=CardFilters(chain.name, str(chain.version), tuple(step.id for step in chain.steps)),
            policy=self._card_policy(),
            rejected_by={"/".join(key): count for key, count in sorted(counts.reasons.items())},
        )
        texts = {"README.md": dataset_card(card).encode()}
        if self.result and self.ask:
            policy = policy_json(self.registry, self.ask, self.result)
            texts["POLICY.json"] = orjson.dumps(policy, option=_PRETTY)
            texts["NOTICE"] = ("\n".join(notice_lines(self.registry, self.result)) + "\n").encode()
            for licence, text in licence_texts(self.registry, self.result).items():
                texts[f"LICENSES/{licence}"] = text.encode()
        return texts

    def _card_policy(self) -> CardPolicy | None:
        if not self.result or not self.ask:
            return None
        return CardPolicy(
            self.ask.uses,
            self.result.outcome,
            tuple(str(obligation) for obligation in self.result.obligations),
            self.registry.released.isoformat(),
        )


def _rows(rows: Mapping[str, int], prefix: str) -> int:
    return sum(count for path, count in rows.items() if path.startswith(prefix))
