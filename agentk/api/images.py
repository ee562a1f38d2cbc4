"""Names of images, as everybody writes them. Pure.

One name means one thing, wherever it is read: without a registry it is docker.io's, as in Kubernetes, and without a tag
and a digest it is :latest. `localhost/…`, without a port, names what was made on this machine: no registry has it.
"""

import ipaddress
import re
from dataclasses import dataclass

from agentk.api import errors

LOCAL = "localhost"
POLICIES = ("Always", "IfNotPresent", "Never")
_NAME_MAX = 255
_HUB, _HUB_ALIASES = "docker.io", ("index.docker.io", "registry-1.docker.io")
_LATEST = "latest"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_REGISTRY = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{64}")
_HINT = "for example python:3.12, ghcr.io/me/agent:1.4 or name@sha256:…"


@dataclass(frozen=True)
class Reference:
    """Where an image is, with nothing left to be guessed."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""  # what is named is this, whatever the tag means by now

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{self.registry}/{self.path}"

    @property
    def asked(self) -> str:
        """What to ask a registry for: it knows a tag or a digest, not both."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    @property
    def is_local(self) -> bool:
        """Made on this machine, and to be had nowhere else."""
        return self.registry == LOCAL

    @property
    def is_loopback(self) -> bool:
        """Of a registry on this machine, which is spoken to without TLS too."""
        host = self.registry.rpartition(":")[0] or self.registry
        if host == LOCAL:
            return ":" in self.registry
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Raises Invalid."""
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _bad(text, "after '@' it needs sha256: and 64 hexadecimal digits")
    head, slash, tail = rest.partition("/")
    registry, path = _HUB, rest
    if slash and (head == LOCAL or "." in head or ":" in head):
        registry, path = head.lower(), tail
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _bad(
            text, "its tag has other characters than letters, digits, '_', '.' and '-', or is too long"
        )
    if not _REGISTRY.fullmatch(registry):
        raise _bad(text, f"{registry!r} is no registry")
    if path != path.lower():
        raise _bad(text, "it must be in lower case")
    if not _PATH.fullmatch(path) or len(registry) + len(path) > _NAME_MAX or _ID.fullmatch(path):
        raise _bad(text, "it is not a name, or too long")
    if registry in _HUB_ALIASES:
        registry = _HUB
    if registry == _HUB and "/" not in path:
        path = f"library/{path}"
    return Reference(registry, path, tag or ("" if digest else _LATEST), digest)


def is_registry(text: str) -> bool:
    """Whether it is a host, with a port or without."""
    return _REGISTRY.fullmatch(text.lower()) is not None


def policy(reference: Reference, asked: str = "") -> str:
    """When to look at the registry: as asked, else as Kubernetes has it, which knows no images made here."""
    if reference.is_local:
        return "Never"
    if asked:
        return asked
    return "Always" if not reference.digest and reference.tag == _LATEST else "IfNotPresent"


def _bad(text: str, why: str) -> errors.Invalid:
    return errors.Invalid(f"{text[:_NAME_MAX]!r} is not the name of an image: {why}", hint=_HINT)
