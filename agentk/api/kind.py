"""What a kind is: its names, where it lives in the API, and what a listing shows of it. `kinds` has all there are."""

from dataclasses import dataclass
from typing import Literal

GROUP = "agentk.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Column:
    """One column of a listing. `json_path` is dotted (`.status.phase`), of a condition with
    its type (`.status.conditions.Ready`); a `date` is printed as an age."""

    name: str
    type: Literal["string", "integer", "boolean", "date"]
    json_path: str
    wide: bool = False
    description: str = ""


@dataclass(frozen=True)
class Kind:
    group: str  # "" is the core group
    version: str
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    schema_file: str  # in schemas/
    has_status: bool
    columns: tuple[Column, ...]
    verbs: tuple[str, ...] = ALL_VERBS

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """URL path of the collection or the object; namespaced kinds without a namespace mean all of them."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


NAME = Column("Name", "string", ".metadata.name", description="Name of the object.")
AGE = Column("Age", "date", ".metadata.creationTimestamp", description="Time since the object was made.")
