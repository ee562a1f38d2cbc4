"""The two boxes that make an environment, and what they tell. Pure but for reading their logs.

What a box tells is one JSON object a line on its stdout, which the launcher writes to its log. Names in it come from
an index, so they are checked before they become a line of a lock.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.control import prepared
from agentk.runtime import box as boxes
from agentk.runtime import logs

NAMESPACE, LEAF, UID_PREFIX = "agentk-environments", "build", "env-"
_REQUEST = "/request"
_FETCH, _INSTALL = 1, 2  # attempts
_LIMITS = boxes.Limits(memory_bytes=4 << 30, pids=256, open_files=1024)
_LOG = boxes.LogLimits(max_bytes=64 << 20, max_files=1, bytes_per_second=16 << 20)
_TMP_BYTES = 1 << 30
_TAIL_BYTES = 32 * 1024
_MESSAGES_MAX = 50_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Sources:
    """From where packages come: the owner's own configuration. Variables may hold credentials."""

    env: Mapping[str, str] = field(default_factory=dict)
    npmrc: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)  # of the host, that the others name → where it is


@dataclass(frozen=True)
class Lock:
    """What was fetched: the file to install from, and its lines for people."""

    files: Mapping[str, str]
    shown: Sequence[str]


@dataclass(frozen=True)
class Order:
    """One environment to be made."""

    name: str
    language: str
    wanted: Mapping[str, Any]
    interpreter: boxes.Interpreter
    prefix: str

    @property
    def uid(self) -> str:
        return UID_PREFIX + self.name

    @property
    def interpreter_text(self) -> str:
        """For people."""
        return f"{self.interpreter.version} {self.interpreter.machine}" if self.language == "python" else ""

    def fetching(self, host_uid: int, sources: Sources) -> boxes.Box:
        """The one with the host's network."""
        files = dict(_request_files(self))
        if self.language == "node":
            files["npmrc"] = sources.npmrc
        env = {**sources.env, "PIP_CONFIG_FILE": "/dev/null"}
        shown = [boxes.Mount("bind", path, source=real) for path, real in sources.paths.items()]
        return self._box("fetch", _FETCH, host_uid, files, env, shown)

    def installing(self, host_uid: int, lock: Lock) -> boxes.Box:
        """The one without any network, that writes the tree."""
        target = prepared.PYTHON if self.language == "python" else prepared.NODE
        tree = boxes.Mount("environment", target, source=self.name, read_only=False)
        return self._box("install", _INSTALL, host_uid, lock.files, {"PIP_CONFIG_FILE": "/dev/null"}, [tree])

    def _box(
        self,
        step: str,
        attempt: int,
        host_uid: int,
        files: Mapping[str, str],
        env: Mapping[str, str],
        mounts: Sequence[boxes.Mount],
    ) -> boxes.Box:
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
        return boxes.Box(
            id=f"{self.uid}-{attempt}",
            uid=self.uid,
            namespace=NAMESPACE,
            attempt=attempt,
            argv=(step, self.language),
            build=f"{step}-{self.language}",  # type: ignore[arg-type]
            leaf=LEAF,
            env=env,
            hostname="build",
            host_uid=host_uid,
            mounts=(boxes.Mount("files", _REQUEST, files=encoded), *mounts),
            limits=_LIMITS,
            log=_LOG,
            enforcement="BestEffort",  # a fixed program of ours
            prefix=self.prefix,
            tmp_bytes=_TMP_BYTES,
        )


def _request_files(order: Order) -> Mapping[str, str]:
    wanted = order.wanted
    if order.language == "python":
        if "lock" in wanted:
            return {"lock.txt": "".join(_pip_line(line) + "\n" for line in wanted["lock"])}
        return {"requirements.txt": "".join(line + "\n" for line in wanted["requirements"])}
    if "lock" in wanted:
        root = wanted["lock"]["packages"][""]
        return {"package.json": json.dumps(root), "package-lock.json": json.dumps(wanted["lock"])}
    pairs = (text.rpartition("@") for text in wanted["packages"])
    root = {
        "name": "environment",
        "version": "0.0.0",
        "dependencies": {name: version for name, _, version in pairs},
    }
    return {"package.json": json.dumps(root)}


def _pip_line(line: str) -> str:
    """A requirement and its hashes as pip reads them."""
    words = line.split(" ")
    first = next(at for at, word in enumerate(words) if re.match(r"sha(256|384|512):[0-9a-f]", word))
    return " ".join([*words[:first], *(f"--hash={word}" for word in words[first:])])


def lock_of(order: Order, told: Sequence[Mapping[str, Any]]) -> Lock:
    """What was fetched. Raises RuntimeRefused for what no index should answer."""
    if order.language == "node":
        texts = [line["lock"] for line in told if isinstance(line.get("lock"), str)]
        packages = [line["package"] for line in told if isinstance(line.get("package"), dict)]
        shown = [f"{one.get('name')}@{one.get('version')} {one.get('integrity')}"[:400] for one in packages]
        if not texts:
            raise errors.RuntimeRefused("npm told no lock")
        files = dict(_request_files(order))
        return Lock({**files, "package-lock.json": texts[-1]}, shown)
    lines = []
    for line in told:
        one = line.get("package")
        if not isinstance(one, dict):
            continue
        name, version, digest = (str(one.get(key)) for key in ("name", "version", "sha256"))
        if not (_NAME.fullmatch(name) and _VERSION.fullmatch(version) and _SHA256.fullmatch(digest)):
            raise errors.RuntimeRefused(
                f"the index answered with a package named {name[:100]!r} {version[:50]!r}"
            )
        lines.append(f"{name}=={version} --hash=sha256:{digest}")
    return Lock({"lock.txt": "".join(line + "\n" for line in lines)}, lines)


def told(log_path: str) -> list[dict[str, Any]]:
    """Everything the box said to us."""
    found: list[dict[str, Any]] = []
    for line in logs.read(Path(log_path)):
        if line.stream == "stdout" and len(found) < _MESSAGES_MAX and (message := _message(line.text)):
            found.append(message)
    return found


def last(log_path: str) -> dict[str, Any]:
    """The last thing it said of how far it is; {} for nothing yet."""
    try:
        with open(log_path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        words = line.split(b" ", 3)
        if len(words) == 4 and words[1:3] == [b"stdout", b"F"] and "stage" in (found := _message(words[3])):
            return found
    return {}


def _message(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check(seen: boxes.Seen, said: Sequence[Mapping[str, Any]]) -> None:
    """Raises RuntimeRefused with the box's last words when it did not end well."""
    if seen.exit is not None and seen.exit.code == 0 and any(line.get("ok") is True for line in said):
        return
    errors_ = [str(line["error"]) for line in said if line.get("error")]
    ended = seen.exit
    if errors_:
        raise errors.RuntimeRefused(errors_[-1])
    if ended is not None and ended.counters.oom_kills:
        raise errors.RuntimeRefused("its jail ran out of memory")
    how = "was lost" if ended is None or ended.code is None else f"ended with {ended.code}"
    words = ended.message if ended is not None and ended.message else _last_words(seen.log_path)
    raise errors.RuntimeRefused(f"its jail {how}: {words}")


def _last_words(log_path: str) -> str:
    lines = [line.text.decode(errors="replace") for line in logs.read(Path(log_path))]
    return re.sub(r"://[^/@\s]+@", "://****@", " ".join(" ".join(lines[-5:]).split()))[-500:]


def progress(line: Mapping[str, Any]) -> tuple[str, str]:
    """Stage and words of a line that tells one."""
    stage = str(line["stage"]) if line["stage"] in ("Resolving", "Fetching", "Installing") else "Resolving"
    done, of, what = line.get("done"), line.get("of"), str(line.get("what") or "")[:100]
    if stage == "Fetching":
        return stage, f"Fetching {done}/{of}" + (f": {what}" if what else "")
    if stage == "Installing":
        return stage, f"Installing {of} packages"
    return stage, "Resolving" + (f" {done}: {what}" if what else "")
