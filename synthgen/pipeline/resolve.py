"""From a loaded recipe to everything a run needs, before a socket is opened or a file written.

In: a `LoadedRecipe`. Out: `Resolved`: teachers with identity and price, prompts, the tree, the judge, the filter chain,
the record shape, the parts policy decides on. Errors name file and line of the recipe's key.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from synthgen.asking import TeacherSpec, find_price
from synthgen.assets import Kind, find_asset
from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError, UsageError
from synthgen.pipeline.contest import Contest
from synthgen.pipeline.judged import Judging
from synthgen.pipeline.judging import Panel
from synthgen.pipeline.privacy import Privacy, hosted_teachers
from synthgen.pipeline.resolve_judges import resolve_judging
from synthgen.pipeline.resolve_parts import capture_of, prompt_at, sampling_of
from synthgen.pipeline.resolve_select import check_select
from synthgen.pipeline.tools import check_choice, inline_tools, read_tools
from synthgen.pipeline.tree import Step, Tree
from synthgen.policy import Part, Registry, default_route, load_registry, rule_folders
from synthgen.recipe.load import LoadedRecipe
from synthgen.recipe.model import Recipe, StepConfig, TeacherConfig
from synthgen.refine import Chain, load_chain
from synthgen.shape import RecordShape
from synthgen.templates import compile_record, compile_template
from synthgen.types import TeacherIdentity, digest

__all__ = ["FilesAt", "Resolved", "resolve"]


@dataclass(frozen=True, slots=True)
class FilesAt:
    """Where the prompts and chains a recipe names lie: bundled, beside the recipe, or as copies in a run folder."""

    base: Path
    copies: Path | None = None

    def find(self, kind: Kind, name: str) -> Path:
        """The file of a prompt or chain.

        Raises:
            UsageError: there is none.
        """
        if self.copies and (copy := self.copies / self.copy_name(kind, name)).is_file():
            return copy
        return find_asset(kind, name, beside=self.base)

    def find_tools(self, name: str) -> Path:
        """A file of tools.

        Raises:
            UsageError: there is none.
        """
        copy = self.copies / self.copy_name("tools", name) if self.copies else None
        path = copy if copy and copy.is_file() else self.base / name
        if not path.is_file():
            raise UsageError(f"tools file not found: {path}")
        return path

    def find_reference(self, name: str) -> Path:
        """A reference set to stay clear of: one file.

        Raises:
            UsageError: there is none.
        """
        copy = self.copies / self.reference_name(name) if self.copies else None
        path = copy if copy and copy.is_file() else self.base / Path(name).expanduser()
        if not path.is_file():
            raise UsageError(f"reference set not found: {path}; name one file")
        return path

    @staticmethod
    def reference_name(name: str) -> str:
        """The name of a copy of a reference set, whose ending says how to read it."""
        return f"reference-{digest(['reference', name])[:12]}{''.join(Path(name).suffixes[-2:])}"

    @staticmethod
    def copy_name(kind: Kind | Literal["tools"], name: str) -> str:
        """The name of a copy in a run folder."""
        return f"{kind}-{digest([kind, name])[:12]}.yaml"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe ready to be planned, asked and refined."""

    loaded: LoadedRecipe
    files: FilesAt
    specs: Mapping[str, TeacherSpec]
    tree: Tree
    judging: Judging
    chain: Chain
    shape: RecordShape
    registry: Registry
    parts: tuple[Part, ...]

    def named_files(self) -> dict[str, Path]:
        """Name of its copy in a run folder -> file, for every file the recipe names but its sources."""
        recipe = self.loaded.recipe
        prompts = [step.prompt for step in recipe.steps]
        prompts += recipe.refine.judge.prompts() if recipe.refine.judge else []
        prompts += [recipe.refine.best_of.prompt] if recipe.refine.best_of else []
        chains = [] if recipe.refine.chain == "none" else [recipe.refine.chain]
        kinds: tuple[tuple[Kind, list[str]], ...] = (("prompts", prompts), ("filters", chains))
        found = {
            self.files.copy_name(kind, name): self.files.find(kind, name)
            for kind, names in kinds
            for name in names
        }
        tools = {step.tools for step in recipe.steps if isinstance(step.tools, str)}
        found |= {self.files.copy_name("tools", name): self.files.find_tools(name) for name in tools}
        found |= {file.copy_name: file.path for file in self.chain.files}
        paths = [reference.path for reference in recipe.refine.references()]
        return found | {self.files.reference_name(path): self.files.find_reference(path) for path in paths}

    @property
    def panel(self) -> Panel | None:
        """The judges that score."""
        return self.judging.panel

    @property
    def contest(self) -> Contest | None:
        """Who finds the best of several samples."""
        return self.judging.contest

    @property
    def captures(self) -> bool:
        """Whether replies are asked to hold logprobs."""
        return any(step.capture for step in self.tree.steps)

    @property
    def leaves_per_row(self) -> int:
        """Candidates of a row as far as they are known before asking: samples multiply, lists are not counted."""
        total = 1
        for step in self.tree.steps:
            total *= step.samples
        return total


def resolve(loaded: LoadedRecipe, *, cap_usd: float | None = None, copies: Path | None = None) -> Resolved:
    """Resolve and cross-check a recipe; `cap_usd` makes prices and `max_tokens` mandatory.

    Raises:
        RecipeError: a prompt, chain, route or price is missing or inconsistent.
    """
    recipe = loaded.recipe
    files = FilesAt(loaded.base, copies)
    registry = load_registry(own=rule_folders(loaded.base))
    specs = {alias: _spec(loaded, registry, alias, config) for alias, config in recipe.teachers.items()}
    steps = tuple(
        _step(loaded, files, index, step, specs, cap_usd) for index, step in enumerate(recipe.steps)
    )
    record = compile_record(recipe.output.record, where=loaded.where("output", "record"))
    privacy = Privacy(recipe.privacy, _hosted(recipe, specs), recipe.output.redact)
    shape = RecordShape(reasoning=steps[-1].reasoning, tools=steps[-1].tools is not None)
    judging = resolve_judging(loaded, files.find, specs, steps[-1], cap_usd, privacy)
    chain = _chain(loaded, files, recipe.refine.chain)
    check_select(loaded, chain, judging, shape)
    return Resolved(
        loaded=loaded,
        files=files,
        specs=specs,
        tree=Tree(steps, specs, record, recipe.seed, privacy),
        judging=judging,
        chain=chain,
        shape=shape,
        registry=registry,
        parts=tuple(dict.fromkeys(_parts(loaded, specs))),
    )


def _spec(loaded: LoadedRecipe, registry: Registry, alias: str, config: TeacherConfig) -> TeacherSpec:
    base_url = _base_url(config)
    hosts = config.each_host()
    route = config.route or _common_route(registry, hosts)
    if route is None:
        where = loaded.where("teachers", alias)
        raise RecipeError(
            f"{where}.route: is required where base_url is not the vendor's own: whose terms hold there? "
            "(`self-hosted` for your own server, else the id of the host, see `synthgen list teachers`)"
        )
    revision = config.hf.partition("@")[2] if config.hf else ""
    identity = TeacherIdentity(
        config.provider, route, config.pool or base_url, config.model, revision or None
    )
    price = find_price(config, urlsplit(base_url).hostname if base_url else None)
    pool = [
        TeacherSpec(f"{alias}@{_endpoint(host)}", identity, host, price, _endpoint(host)) for host in hosts
    ]
    if len(pool) == 1:
        return replace(pool[0], alias=alias)
    return TeacherSpec(alias, identity, config, price, config.pool or "", tuple(pool))


def _hosted(recipe: Recipe, specs: Mapping[str, TeacherSpec]) -> frozenset[str]:
    """The hosted ones among the teachers that are asked at all."""
    asked = {alias for step in recipe.steps for alias in step.weights()}
    for judge in (recipe.refine.judge, recipe.refine.best_of):
        asked.update(judge.teachers() if judge else ())
    return hosted_teachers(specs) & asked


def _base_url(config: TeacherConfig) -> str:
    return str(getattr(config, "base_url", "") or "")  # a provider in this process has none


def _endpoint(config: TeacherConfig) -> str:
    return urlsplit(_base_url(config)).netloc.rpartition("@")[2] or "in-process"


def _common_route(registry: Registry, hosts: Sequence[TeacherConfig]) -> str | None:
    """The route that the vendor's own hosts have without being told, if it is the same for all."""
    routes = {host.cloud_route or default_route(registry, host.provider, _base_url(host)) for host in hosts}
    return routes.pop() if len(routes) == 1 else None


def _step(
    loaded: LoadedRecipe,
    files: FilesAt,
    index: int,
    step: StepConfig,
    specs: Mapping[str, TeacherSpec],
    cap_usd: float | None,
) -> Step:
    prompt = prompt_at(loaded, files.find, ("steps", index, "prompt"), step.prompt)
    weights = step.weights()
    shares = list(accumulate(weight / sum(weights.values()) for weight in weights.values()))
    shares[-1] = 2.0  # above every draw, whatever the rounding
    rename = {
        name: compile_template(text, where=loaded.where("steps", index, "with", name))
        for name, text in step.with_.items()
    }
    sampling = {
        alias: sampling_of(loaded, ("steps", index), step.sampling, specs[alias], cap_usd)
        for alias in weights
    }
    if step.structured and prompt.reply.schema is None:
        where = loaded.where("steps", index, "structured")
        raise RecipeError(f"{where}: the prompt {prompt.name!r} asks for no JSON")
    if step.structured and any("response_format" in one.extra for one in sampling.values()):
        where = loaded.where("steps", index, "structured")
        raise RecipeError(f"{where}: sends a `response_format` of its own; take it out of `sampling.extra`")
    tools = _tools(loaded, files, index, step, specs)
    return Step(
        name=step.name,
        prompt=prompt,
        choices=tuple(zip(weights, shares, strict=True)),
        samples=step.samples,
        rename=rename,
        sampling=sampling,
        reasoning=step.capture.reasoning,
        capture=capture_of(
            loaded, ("steps", index, "capture", "logprobs"), step.capture.logprobs, weights, specs
        ),
        response_schema=prompt.reply.schema if step.structured else None,
        tools=tools,
        tool_choice=step.tool_choice,
        on_unreadable=step.on_unreadable,
    )


def _tools(
    loaded: LoadedRecipe, files: FilesAt, index: int, step: StepConfig, specs: Mapping[str, TeacherSpec]
) -> str | None:
    """The tools of a step as JSON text."""
    where = loaded.where("steps", index, "tools")
    if step.tools is None:
        tools = None
    elif isinstance(step.tools, list):
        tools = inline_tools(loaded.document, index, step)
    else:
        try:
            path = files.find_tools(step.tools)
            tools = read_tools(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{where}: {step.tools}: cannot be read: {error}") from error
        except UsageError as error:
            if isinstance(error, RecipeError):
                raise
            raise RecipeError(f"{where}: {error}") from error
    try:
        check_choice(step.tool_choice, tools)
    except UsageError as error:
        raise RecipeError(f"{loaded.where('steps', index, 'tool_choice')}: {error}") from error
    without = [alias for alias in step.weights() if not specs[alias].config.takes_tools()]
    if tools is not None and without:
        provider = specs[without[0]].config.provider
        raise RecipeError(
            f"{where}: teacher {without[0]!r} (provider {provider}) takes no tools; use another for this step"
        )
    return tools


def _chain(loaded: LoadedRecipe, files: FilesAt, name: str) -> Chain:
    try:
        path = None if name == "none" else files.find("filters", name)
    except UsageError as error:
        raise RecipeError(f"{loaded.where('refine', 'chain')}: {error}") from error
    return load_chain(name if path is None else str(path), copies=files.copies)


def _parts(loaded: LoadedRecipe, specs: Mapping[str, TeacherSpec]) -> Iterator[Part]:
    """Every teacher in every role it has in the recipe."""
    recipe = loaded.recipe
    for alias in sorted({alias for step in recipe.steps for alias in step.weights()}):
        yield _part(loaded, specs[alias], "teacher")
    for judge in (recipe.refine.judge, recipe.refine.best_of):
        for alias in judge.teachers() if judge else ():
            yield _part(
                loaded, specs[alias], "judge-shipped" if judge and judge.ship_score else "judge-filter"
            )


def _part(loaded: LoadedRecipe, spec: TeacherSpec, role: str) -> Part:
    source = loaded.recipe.source
    return Part(
        alias=spec.alias,
        provider=spec.config.provider,
        route=spec.identity.route,
        model=spec.config.maker_model,
        hf=spec.config.hf,
        role=role,  # type: ignore[arg-type]  # one of two literals, above
        row_license=source.license,
        seed_relation=source.relation,
        upstream=tuple(getattr(spec.config, "upstream", ())),  # hosts behind OpenRouter
    )
