"""A ModelRoute as the room uses it: frozen deployments, which of them a model's name means, who can be passed through.

Pure. A name a guest sends chooses among what the route's owner listed and nothing else: never a provider, an address,
a key or a fallback.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentk.api import errors
from agentk.llm import asking, providers

Strategy = Literal[
    "simple-shuffle",
    "least-busy",
    "usage-based-routing",
    "latency-based-routing",
    "cost-based-routing",
]
Way = Literal["scripted", "passthrough", "worker"]

# What pass-through does itself. A deployment with any other LiteLLM parameter needs LiteLLM to honour it.
_UNDERSTOOD = frozenset(
    {"model", "api_base", "base_url", "organization", "extra_headers", "rpm", "tpm", "weight"}
    | {"input_cost_per_token", "output_cost_per_token"}
    | {"cache_read_input_token_cost", "cache_creation_input_token_cost", "custom_llm_provider"}
)
NAMES_SHOWN = 10


@dataclass(frozen=True)
class SecretRef:
    """A key of a Secret of the route's namespace."""

    name: str
    key: str


@dataclass(frozen=True)
class Deployment:
    """One way to reach a model. `params` are LiteLLM's, snake_case, without anything secret."""

    id: str
    group: str  # the name guests use
    params: Mapping[str, Any]
    secrets: Mapping[str, SecretRef] = field(default_factory=dict)  # parameter → where its value is
    rpm: int = 0  # 0: not bounded
    tpm: int = 0
    weight: int = 1
    prices: Mapping[str, Any] = field(default_factory=dict)  # own prices of the route

    @property
    def provider(self) -> str:
        told = str(self.params.get("custom_llm_provider", ""))
        head, slash, _ = self.model.partition("/")
        return told or (head if slash else _of_bare_name(head))

    @property
    def model(self) -> str:
        return str(self.params["model"])

    @property
    def api_base(self) -> str:
        return str(self.params.get("api_base") or self.params.get("base_url") or "")

    @property
    def upstream_model(self) -> str:
        """The model's name without LiteLLM's prefix: what the provider itself calls it."""
        return self.model.removeprefix(f"{self.provider}/")

    def way(self, dialect: asking.Dialect) -> Way:
        """How a call of this dialect reaches it."""
        if self.provider == "scripted":
            return "scripted"
        provider = providers.PROVIDERS.get(self.provider)
        if provider is None or dialect not in provider.dialects or set(self.params) - _UNDERSTOOD:
            return "worker"
        return "passthrough" if self.api_base or provider.base else "worker"


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `first_byte` bounds only streamed answers: a whole one begins when the model has ended."""

    connect: float = 10.0
    first_byte: float = 120.0
    total: float = 600.0


@dataclass(frozen=True)
class Cooldown:
    """A deployment that failed `allowed_fails` times in a row is left alone for `seconds`."""

    allowed_fails: int = 3
    seconds: float = 30.0


@dataclass(frozen=True)
class Cache:
    """Answers kept in memory for the very same request to the very same route."""

    seconds: float
    max_bytes: int


@dataclass(frozen=True)
class Route:
    """A ModelRoute, read. `digest` changes with the spec."""

    namespace: str
    name: str
    deployments: tuple[Deployment, ...]
    digest: str = ""
    strategy: Strategy = "simple-shuffle"
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # group ("*": any) → groups
    retries: int = 2
    cooldown: Cooldown = Cooldown()
    timeouts: Timeouts = Timeouts()
    cache: Cache | None = None
    max_concurrent: int = 0  # 0: not bounded; the gate's turns act upon it
    rpm: int = 0
    tpm: int = 0
    max_tokens: int = 0  # written into a request without a bound of its own; 0: none
    scripted: Mapping[str, Any] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Names guests may use, in the order of the manifest; a pattern is no name."""
        return list(dict.fromkeys(d.group for d in self.deployments if "*" not in d.group))

    def default_name(self) -> str:
        """What a guest that names no model gets: the first name."""
        return next(iter(self.names()), "")

    def meant(self, model: str) -> tuple[Deployment, ...]:
        """The deployments a name means: its group, else the narrowest pattern that matches it. Else NotFound."""
        name = model or self.default_name()
        exact = tuple(d for d in self.deployments if d.group == name)
        if exact:
            return exact
        patterns = sorted({d.group for d in self.deployments if "*" in d.group}, key=_narrowest)
        for pattern in patterns:
            if fnmatch.fnmatchcase(name, _only_stars(pattern)):
                return tuple(_filled(d, pattern, name) for d in self.deployments if d.group == pattern)
        known = ", ".join(self.names()[:NAMES_SHOWN])
        raise errors.NotFound(
            f'ModelRoute "{self.name}" has no model "{name[:200]}"',
            hint=f"it has {known}" if known else "its modelList is empty",
            kind="models",
            name=name[:200],
        )

    def chain(self, model: str) -> tuple[tuple[Deployment, ...], ...]:
        """The deployments of a name, then those of each of its fallbacks, none twice."""
        first = self.meant(model)
        groups = [first]
        for name in self.fallbacks.get(first[0].group, self.fallbacks.get("*", ())):
            group = self.meant(name)
            if all(group[0].id != known[0].id for known in groups):
                groups.append(group)
        return tuple(groups)

    def reached(self, model: str) -> tuple[str, ...]:
        """Names of all models that a call for this one may reach, itself first: what a Policy judges."""
        name = model or self.default_name()
        group = self.meant(name)[0].group
        return tuple(dict.fromkeys((name, *self.fallbacks.get(group, self.fallbacks.get("*", ())))))


def _narrowest(pattern: str) -> tuple[int, str]:
    return -len(pattern), pattern


def _only_stars(pattern: str) -> str:
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _filled(deployment: Deployment, pattern: str, name: str) -> Deployment:
    """With the star of its model filled in from the name, as LiteLLM's wildcard groups work."""
    if "*" not in deployment.model:
        return deployment
    head, _, tail = pattern.partition("*")
    star = name[len(head) : len(name) - len(tail)]
    params = {**deployment.params, "model": deployment.model.replace("*", star, 1)}
    return Deployment(
        id=deployment.id,
        group=deployment.group,
        params=params,
        secrets=deployment.secrets,
        rpm=deployment.rpm,
        tpm=deployment.tpm,
        weight=deployment.weight,
        prices=deployment.prices,
    )


def _of_bare_name(name: str) -> str:
    """LiteLLM guesses a provider from a bare name; we know the two families that need no list."""
    if name.startswith("claude-"):
        return "anthropic"
    return "openai" if name.startswith(("gpt-", "o1", "o3", "o4", "text-embedding-", "chatgpt-")) else ""
