"""What a Memory is, and an agent's own memory: limits and embedder, read from what people wrote. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentk.api import errors, quantities
from agentk.api.problems import Path, Problem

# What an agent says of its context, beside a Memory too.
OF_CONTEXT = frozenset({"context", "contextTokens", "paging"})
BUILTIN = "builtin/hashing-1"  # another number whenever its vectors become others
BUILTIN_DIMS = 384
_PAGES, _TOTAL_PAGES = 10_000, 100_000
_BYTES, _TOTAL_BYTES = "64Mi", "1Gi"
_MOST_BYTES = 2**40
_WEIGHTS = frozenset({"recency", "importance", "frequency", "similarity"})

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Embedder:
    """Of a ModelRoute, the daemon's sentence model, or, without either, agentk's own."""

    route: str = ""
    model: str = ""  # of the route; of a sentence model its name, which only the daemon knows
    dims: int = 0  # 0: what the model gives
    sentence: bool = False

    @property
    def builtin(self) -> bool:
        return not self.route and not self.sentence

    @property
    def name(self) -> str:
        """The same as long as its vectors can be compared."""
        if self.sentence:
            return f"sentence/{self.model}"
        if self.builtin:
            return f"{BUILTIN}/{self.dims}"
        return f"route/{self.route}/{self.model}" + (f"/{self.dims}" if self.dims else "")


@dataclass(frozen=True)
class Sharing:
    agents: tuple[str, ...] = ()  # globs
    namespace: bool = False
    read: bool = True
    write: bool = False


@dataclass(frozen=True)
class Bounds:
    pages: int
    bytes: int
    total_pages: int
    total_bytes: int


@dataclass(frozen=True)
class Settings:
    embedder: Embedder
    bounds: Bounds
    retention_seconds: float | None = None
    sharing: Sharing | None = None


def read(spec: Spec) -> Settings:
    """Of an admitted Memory's spec, or an agent's spec.memory without a ref. Raises Invalid."""
    limits, sharing = spec.get("limits") or {}, spec.get("sharing")
    retention = spec.get("retention")
    bounds = Bounds(
        int(limits.get("pages", _PAGES)),
        int(quantities.parse_quantity(limits.get("bytes", _BYTES))),
        int(limits.get("totalPages", _TOTAL_PAGES)),
        int(quantities.parse_quantity(limits.get("totalBytes", _TOTAL_BYTES))),
    )
    return Settings(
        embedder(spec),
        bounds,
        None if retention is None else quantities.parse_duration(str(retention)),
        None if sharing is None else _sharing(sharing),
    )


def embedder(spec: Spec) -> Embedder:
    given, dims = spec.get("embedder") or {}, int(spec.get("dimensions") or 0)
    if not given:
        return Embedder(dims=dims or BUILTIN_DIMS)
    if given.get("sentence"):
        return Embedder(sentence=True)
    return Embedder(str(given["modelRef"]["name"]), str(given["model"]), dims)


def _sharing(given: Spec) -> Sharing:
    agents = tuple(str(one) for one in given.get("agents") or ())
    reads, writes = bool(given.get("read", True)), bool(given.get("write", False))
    return Sharing(agents, bool(given.get("namespace", False)), reads, writes)


def of_memory(obj: Mapping[str, Any]) -> Iterator[Problem]:
    """What a schema cannot say of a Memory."""
    yield from _of_both(obj.get("spec") or {}, ("spec",))


def of_agent(spec: Spec) -> Iterator[Problem]:
    """The same of an Agent's spec.memory."""
    memory = spec.get("memory") or {}
    where: Path = ("spec", "memory")
    beside = sorted(set(memory) - {"ref"} - OF_CONTEXT)
    if "ref" in memory and beside:
        yield Problem((*where, beside[0]), "a Memory that is referred to says this itself")
    yield from _of_both(memory, where)


def _of_both(spec: Spec, where: Path) -> Iterator[Problem]:
    yield from _embedder(spec, where)
    yield from _weights(spec, where)
    yield from _amounts(spec, where)


def _embedder(spec: Spec, where: Path) -> Iterator[Problem]:
    given = spec.get("embedder") or {}
    if "sentence" not in given:
        return
    if "dimensions" in spec:
        yield Problem((*where, "dimensions"), "a sentence model has the dimensions that it has")
    beside = sorted({"model", "modelRef"} & set(given))
    if len(beside) == 1:  # of both the schema tells
        yield Problem((*where, "embedder", beside[0]), "cannot be given beside sentence")


def _weights(spec: Spec, where: Path) -> Iterator[Problem]:
    given = (spec.get("paging") or {}).get("weights") or {}
    if set(given) >= _WEIGHTS and not any(given.values()):
        yield Problem(
            (*where, "paging", "weights"), "are all 0, and nothing would tell which pages leave first"
        )


def _amounts(spec: Spec, where: Path) -> Iterator[Problem]:
    limits = spec.get("limits") or {}
    for field in ("bytes", "totalBytes"):
        if field in limits:
            try:
                amount = quantities.parse_quantity(limits[field])
            except errors.Invalid:  # the schema's check tells of it
                continue
            if not 0 <= amount <= _MOST_BYTES:
                yield Problem((*where, "limits", field), "expected 0 to 1Ti")
    if "retention" in spec:
        try:
            seconds = quantities.parse_duration(str(spec["retention"]))
        except errors.Invalid:
            return
        if seconds <= 0:
            yield Problem((*where, "retention"), "expected more than 0s")
