"""The person's own podman, as a program. Its storage is the one from which that person's agents get their images.

Nothing here asks the daemon. Words of podman's are passed on as it said them: people know them.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentk.api import errors

_INSTALL = "apt-get install --no-install-recommends podman runc netavark uidmap slirp4netns  # or the like"
_LAST_LINES = 12  # of a command that failed
_LINE_MAX = 500
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{6,64}")
Told = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    id: str
    names: Sequence[str]
    digest: str
    size_bytes: int
    created: int  # seconds since 1970
    labels: Mapping[str, str] = field(default_factory=dict)


class Podman:
    def __init__(self, env: Mapping[str, str]) -> None:
        """Raises Unavailable when there is none."""
        found = shutil.which("podman", path=env.get("PATH"))
        if found is None:
            raise errors.Unavailable("there is no podman on this machine", hint=_INSTALL)
        self._program, self._env = found, dict(env)

    def images(self) -> list[Image]:
        """All that have a name, newest first."""
        told = json.loads(self._ask("images", "--format", "json") or "[]")
        found = {
            image.id: image for image in map(_image, told) if image.names
        }  # it repeats one for each name
        return sorted(found.values(), key=lambda one: (-one.created, one.names))

    def find(self, name: str, *, or_id: str = "") -> tuple[str, Image]:
        """By name, else by what may be its id; and which of both it was. Raises NotFound."""
        known = name if self.has(name) else or_id if _ID.fullmatch(or_id) and self.has(or_id) else ""
        if not known:
            hint = "agentk image list  # shows those there are"
            raise errors.NotFound(f"there is no image {name}", hint=hint)
        told = json.loads(self._ask("image", "inspect", "--", known))[0]
        return known, _image({**told, "Names": told.get("RepoTags"), "Created": 0})

    def remove(self, name: str, *, force: bool) -> None:
        """Its name, and the image when that was its last."""
        self._ask("rmi", *(["--force"] if force else []), "--", name)

    def forget_nameless(self, id_: str) -> None:
        """What a newer one of the same name has replaced, unless something still uses it. Never fails."""
        with contextlib.suppress(errors.AgentkError):
            if id_ and self.has(id_) and not self.find(id_)[1].names:
                self.remove(id_, force=False)

    def pull(self, name: str, told: Told) -> None:
        """Raises Unavailable with podman's own reason."""
        self.run(["pull", "--", name], told)

    def has(self, name: str) -> bool:
        done = subprocess.run(
            [self._program, "image", "exists", "--", name], env=self._env, capture_output=True, check=False
        )
        return done.returncode == 0

    def build(self, file: Path, folder: Path, tag: str, options: Sequence[str], told: Told) -> None:
        """`told` hears every line that podman prints."""
        self.run(["build", "--file", str(file), "--tag", tag, *options, "--", str(folder)], told)

    def import_tree(self, archive: Path, tag: str, changes: Sequence[str]) -> None:
        """A tar of a root file system becomes an image. `changes`: instructions of a Containerfile."""
        words = [word for change in changes for word in ("--change", change)]
        self._ask("import", "--quiet", *words, "--", str(archive), tag)

    def run(self, words: Sequence[str], told: Told) -> None:
        """Line by line. Raises Unavailable with the last of them."""
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with subprocess.Popen(
            [self._program, *words],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as ran:
            for line in _lines(ran):
                last.append(line)
                told(line)
        if ran.returncode:
            raise errors.Unavailable(f"podman {words[0]} failed: {reason(last)}", hint=_hint("\n".join(last)))

    def _ask(self, *words: str) -> str:
        done = subprocess.run(
            [self._program, *words], env=self._env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").splitlines()
            kind = errors.Conflict if " in use " in " ".join(said) else errors.Unavailable
            raise kind(f"podman {words[0]} failed: {reason(said)}", hint=_hint("\n".join(said)))
        return done.stdout.decode(errors="replace")


def reason(lines: Sequence[str] | deque[str]) -> str:
    """What a command that failed said last, with its own "Error:" when there is one."""
    said = [line for line in lines if line.strip()]
    errors_said = [line for line in said if line.lower().startswith("error")]
    return (errors_said or said or ["it said nothing"])[-1].removeprefix("Error: ").strip()


def owner_of(run: Path) -> int | None:
    """The uid that a daemon with this directory of sockets belongs to; None when there is none."""
    try:
        return os.stat(run).st_uid
    except OSError:
        return None


def _lines(ran: "subprocess.Popen[bytes]") -> Iterator[str]:
    assert ran.stdout is not None
    for line in ran.stdout:
        yield line.decode(errors="replace").rstrip()[:_LINE_MAX]


def _hint(said: str) -> str:
    if "newuidmap" in said or "subuid" in said:
        return (
            "apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
        )
    if "registries" in said and "short-name" in said:
        return "name its registry: docker.io/library/NAME"
    return ""


def _image(told: Mapping[str, Any]) -> Image:
    return Image(
        id=str(told.get("Id", "")).removeprefix("sha256:"),
        names=[str(name) for name in told.get("Names") or ()],
        digest=str(told.get("Digest") or ""),
        size_bytes=int(told.get("Size") or 0),
        created=int(told.get("Created") or 0),
        labels={str(key): str(value) for key, value in (told.get("Labels") or {}).items()},
    )
