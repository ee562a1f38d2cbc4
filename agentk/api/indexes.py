"""From where packages are fetched: what of a person's pip and npm configuration says so. Pure.

Only settings that name an index, or how to reach it, are taken; none that says where to install or how to build.
Values may hold credentials: they are never put into an object, an event or a log.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from configparser import Error as ConfigError
from configparser import RawConfigParser
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from agentk.api import errors

PIP = frozenset(
    {
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
)
# How to reach a network at all; pip, npm and what they are made of read these by themselves.
CARRIED = frozenset(
    {
        *(
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
        ),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    }
)
_NPM = re.compile(
    r"(?:@[^:=\s]+:)?registry|//[^=\s]+:(?:_authToken|_auth|username|_password|certfile|keyfile)"
    r"|ca|cafile|cert|key|proxy|https-proxy|noproxy|strict-ssl|maxsockets|fetch-(?:retries|timeout)"
)
_PIP_VARIABLE = re.compile(r"PIP_[A-Z_]{1,40}")
_VARIABLE = re.compile(r"\$\{([^}]+)\}")
_VALUE_MAX = 64 * 1024
_PATHS_MAX = 32
_ALONE = ("/", "/home", "/root", "/tmp", "/var", "/opt", "/srv", "/mnt", "/usr", "/etc")


@dataclass(frozen=True)
class Indexes:
    """`env` goes to the box that fetches, as does `npmrc`; `paths` are what of the host they name, and where each
    really is."""

    env: Mapping[str, str] = field(default_factory=dict)
    npmrc: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"env": dict(self.env), "npmrc": self.npmrc, "paths": dict(self.paths)}


def parse(told: Mapping[str, Any]) -> Indexes:
    """From the wire or a file. Raises BadRequest for anything that is not a setting of an index."""
    env, npmrc, paths = told.get("env", {}), told.get("npmrc", ""), told.get("paths", {})
    if set(told) - {"env", "npmrc", "paths"} or not isinstance(env, dict) or not isinstance(npmrc, str):
        raise errors.BadRequest("indexes are env, npmrc and paths")
    if not isinstance(paths, dict) or len(paths) > _PATHS_MAX:
        raise errors.BadRequest(f"paths must be at most {_PATHS_MAX}, each with where it is")
    allowed = {f"PIP_{name.upper().replace('-', '_')}" for name in PIP} | CARRIED
    for name, value in env.items():
        if name not in allowed or not isinstance(value, str) or len(value) > _VALUE_MAX or "\0" in value:
            raise errors.BadRequest(f"{str(name)[:60]} is no setting of an index")
    for path in (*paths, *paths.values()):
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
            raise errors.BadRequest("paths are absolute, without '..'")
    if len(npmrc) > _VALUE_MAX:
        raise errors.BadRequest("npmrc is too long")
    return Indexes(dict(env), "".join(f"{line}\n" for line in _npm_lines(npmrc, {})), dict(paths))


def pip(files: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """PIP_ variables from the texts of pip's configuration files, the most general first, and the environment.

    As pip has it: later files win, the section of a command wins over [global], and the environment over all.
    """
    found: dict[str, tuple[tuple[int, int], str]] = {}
    for rank, text in enumerate(files):
        parser = RawConfigParser(strict=False)
        try:
            parser.read_string(text)
        except ConfigError:
            continue  # pip refuses to run with it; whoever uses pip mends it
        for section, weight in (("global", 0), ("download", 1), ("install", 1)):
            for key, value in parser.items(section) if parser.has_section(section) else ():
                name = key.lower().replace("_", "-")
                if name in PIP and (weight, rank) >= found.get(name, ((-1, -1), ""))[0]:
                    found[name] = ((weight, rank), " ".join(value.split()))
    made = {f"PIP_{name.upper().replace('-', '_')}": value for name, (_, value) in found.items()}
    for name, value in env.items():
        if _PIP_VARIABLE.fullmatch(name) and name[4:].lower().replace("_", "-") in PIP and value:
            made[name] = " ".join(value.split())
    return made


def npm(files: Sequence[str], env: Mapping[str, str]) -> str:
    """The lines of npmrc texts that name registries, the most general first; the environment's last, so they win."""
    lines: dict[str, str] = {}
    for text in files:
        for line in _npm_lines(text, env):
            lines[line.split("=", 1)[0]] = line
    for name, value in env.items():
        key = name.lower().removeprefix("npm_config_").replace("_", "-")
        if name.lower().startswith("npm_config_") and _NPM.fullmatch(key) and "\n" not in value:
            lines[key] = f"{key}={value}"
    return "".join(f"{line}\n" for line in lines.values())


def _npm_lines(text: str, env: Mapping[str, str]) -> Iterator[str]:
    for raw in text.splitlines():
        key, equals, value = raw.partition("=")
        name = key.strip().removesuffix("[]").strip()
        if equals and _NPM.fullmatch(name):
            plain = value.strip().strip("\"'")
            yield f"{name}={_VARIABLE.sub(lambda found: env.get(found[1], found[0]), plain)}"


def local_paths(values: Sequence[str]) -> list[str]:
    """What of the host these settings name. Of an index also its neighbours, for its pages may link to them."""
    paths: set[str] = set()
    for word in (word for value in values for word in value.split()):
        if word.startswith("file:"):
            path = unquote(urlsplit(word).path).rstrip("/")
            parent = path.rpartition("/")[0]
            paths.add(parent if parent and parent not in _ALONE and parent.count("/") > 1 else path)
        elif word.startswith("/"):
            paths.add(word.rstrip("/"))
    shown = ("/usr/", "/etc/ssl/certs", "/etc/pki/tls/certs")  # every box sees these
    wanted = {path for path in paths if path and path not in _ALONE and not path.startswith(shown)}
    return sorted(path for path in wanted if not any(path.startswith(f"{other}/") for other in wanted))
