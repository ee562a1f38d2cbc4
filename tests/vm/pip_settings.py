"""The host's own pip configuration, carried into the guest while its disk is built.

Nothing here names an index: whatever `pip config list` says on the host is what the guest's pip uses.
"""

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Where packages come from and how to reach them; not where they go or how they are built.
WANTED = {
    "cert",
    "client-cert",
    "default-timeout",
    "extra-index-url",
    "find-links",
    "index-url",
    "no-index",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
}
CARRIED = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)


@dataclass(frozen=True)
class Settings:
    env: dict[str, str]
    paths: tuple[Path, ...]  # host files and folders those variables name


def read() -> Settings:
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    env = {name: os.environ[name] for key in CARRIED for name in (key, key.lower()) if name in os.environ}
    env |= variables(listed)
    paths = {path for value in env.values() for path in local_paths(value)}
    outermost = {path for path in paths if paths.isdisjoint(path.parents)}
    return Settings(env, tuple(sorted(outermost)))


def variables(listed: str) -> dict[str, str]:
    """`pip config list` as PIP_ variables; the later section wins, as it does in pip: file, command, environment."""
    rank = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in listed.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals and name in WANTED and section in rank and rank[section] >= found.get(name, (0, ""))[0]:
            found[name] = (rank[section], str(ast.literal_eval(value)))
    return {"PIP_" + name.upper().replace("-", "_"): value for name, (_, value) in found.items()}


def local_paths(value: str) -> set[Path]:
    """The host paths in a setting. An index's pages may link to its neighbours (../../files), so they come too."""
    paths: set[Path] = set()
    for word in value.split():
        if word.startswith("file://"):
            path = Path(unquote(urlsplit(word).path))
            paths |= {path, *(path.parent.iterdir() if path.parent.parent.name else ())}
        elif word.startswith("/"):
            paths.add(Path(word))
    return {path for path in paths if path.exists()}
