"""Images, asked of Podman's service: found, pulled, and held for the boxes that are made of them.

What an image says of itself was written by whoever made it: it is bounded here, and what could be something else than
a variable or a directory is left out. A login is in the memory of this process and of the service, and nowhere else.

A box is made of an image's mounted files and is no container of it, so Podman would let the image be removed below
the box. A container that is never started holds it instead: `podman rmi` then says by whom the image is used.
"""

import json
import posixpath
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from podman.api import encode_auth_header
from podman.api.client import APIClient

from agentk.runtime.podman.service import Refused

LABEL_HOLDS = "dev.agentk.holds"  # an instance: whose holder it is
LABEL_IMAGE = "dev.agentk.image-id"
MISSING, FAILED = 404, 502
PULL_SECONDS = 3600.0
_LOCAL_HOSTS = re.compile(r"(localhost:\d+|127(\.\d+){3}(:\d+)?|\[::1\](:\d+)?)/")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
_ENV_MAX, _ENV_MAX_BYTES = 256, 64 * 1024
_CWD_MAX = 1000
_WORDS_MAX = 600
_LINE_MAX = 64 * 1024
_CONNECT_SECONDS = 10.0
Message = dict[str, Any]
Told = Callable[[str], None]


class Ask(Protocol):
    """One question to the service. Raises Refused."""

    def __call__(self, method: str, path: str, body: Any = None, **params: Any) -> Any: ...


def get(ask: Ask, client: Callable[[], APIClient], wanted: Mapping[str, Any], told: Told) -> Message:
    """The image of a full name, pulled when the policy says so. Raises Refused: MISSING, or FAILED with why."""
    reference, policy = wanted["reference"], wanted["policy"]
    found = None if policy == "Always" else find(ask, reference)
    if found is not None:
        return found
    if policy == "Never":
        raise Refused(MISSING, f"{reference} is not on this machine")
    pull(client(), reference, wanted.get("login"), told, wanted.get("seconds", PULL_SECONDS))
    found = find(ask, reference)
    if found is None:
        raise Refused(FAILED, f"{reference} was pulled, and is gone again")
    return {**found, "pulled": True}


def find(ask: Ask, reference: str) -> Message | None:
    """What is on this machine under that name."""
    try:
        told = ask("get", f"/images/{quote(reference, safe='')}/json")
    except Refused as refused:
        if refused.status == MISSING:
            return None
        raise
    return described(told, reference)


def described(told: Mapping[str, Any], reference: str) -> Message:
    """As box.Image, from `image inspect`. Pure."""
    config = told.get("Config") or {}
    name = reference.partition("@")[0]
    name = name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]
    digests = [str(one) for one in told.get("RepoDigests") or ()]
    own = [one.partition("@")[2] for one in digests if one.partition("@")[0] == name]
    pinned = reference.partition("@")[2]
    digest = pinned or (str(told.get("Digest")) if told.get("Digest") in own else next(iter(own), ""))
    cwd = str(config.get("WorkingDir") or "")
    plain = posixpath.normpath(cwd) if cwd.startswith("/") and "\0" not in cwd else "/"
    return {
        "id": str(told["Id"]).removeprefix("sha256:"),
        "digest": digest or str(told.get("Digest") or ""),
        "env": _environment(config.get("Env") or ()),
        "cwd": plain if plain.strip("/") and len(plain) <= _CWD_MAX else "",
    }


def _environment(lines: Collection[Any]) -> dict[str, str]:
    made: dict[str, str] = {}
    size = 0
    for line in list(lines)[:_ENV_MAX]:
        name, _, value = str(line).partition("=")
        size += len(name) + len(value)
        if size > _ENV_MAX_BYTES:
            break
        if _ENV_NAME.fullmatch(name) and "\0" not in value:
            made[name] = value
    return made


def pull(client: APIClient, reference: str, login: Message | None, told: Told, seconds: float) -> None:
    """Raises Refused with the registry's words. Given up after `seconds`: Podman stops when we hang up."""
    params = {"reference": reference, "quiet": False, "policy": "always"}
    if _LOCAL_HOSTS.match(reference):
        params["tlsVerify"] = False  # of this machine: TLS when it speaks it, else none
    headers = {"X-Registry-Auth": str(encode_auth_header(_header(login)), "ascii")} if login else {}
    began = time.monotonic()
    try:
        _pull(client, params, headers, seconds, told)
    except (OSError, AttributeError):  # the latter of an answer that was closed while it was read
        late = time.monotonic() - began >= seconds
        why = f"no end came within {seconds:.0f} s" if late else "podman's service ended meanwhile"
        raise Refused(FAILED, f"pulling {reference} was given up: {why}") from None


def _pull(
    client: APIClient, params: Mapping[str, Any], headers: dict[str, str], seconds: float, told: Told
) -> None:
    limits = (_CONNECT_SECONDS, seconds)
    answer = client.post("/images/pull", params=params, headers=headers, stream=True, timeout=limits)
    watch = threading.Timer(seconds, answer.close)
    watch.daemon = True
    watch.start()
    try:
        _read(answer.iter_lines(chunk_size=_LINE_MAX), answer.status_code, told)
    finally:
        watch.cancel()
        answer.close()


def _read(lines: Iterator[bytes], status: int, told: Told) -> None:
    layers: set[str] = set()
    done = False
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if status >= 400 or said.get("error"):
            raise Refused(FAILED, _words(said.get("error") or said.get("message") or said.get("cause")))
        done = done or bool(said.get("id"))
        words = str(said.get("stream") or "")
        if words.startswith("Copying blob"):
            layers.add(words)
            told(f"layer {len(layers)}")
        elif words.startswith("Copying config"):
            told("its configuration")
    if not done:
        raise ConnectionError


def _header(login: Message) -> dict[str, str]:
    """As one login, which the service keeps in memory: of several it would make a file."""
    if login.get("token"):
        return {"identitytoken": str(login["token"])}
    return {"username": str(login.get("username", "")), "password": str(login.get("password", ""))}


def _words(said: Any) -> str:
    text = " ".join(str(said or "it said nothing").split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_WORDS_MAX]


# holding


def hold(ask: Ask, image: str, instance: str) -> str:
    """Where the files of the image `image` are mounted, in the namespace of the service. Repeatable."""
    name = _holder(image, instance)
    try:
        return str(ask("post", f"/containers/{name}/mount"))
    except Refused as refused:
        if refused.status != MISSING:
            raise
    ask(
        "post",
        "/containers/create",
        {
            "name": name,
            "image": image,
            "entrypoint": ["/never-started"],
            "command": [],
            "labels": {LABEL_HOLDS: instance, LABEL_IMAGE: image},
            "netns": {"nsmode": "none"},
            "image_volume_mode": "ignore",
        },
    )
    return str(ask("post", f"/containers/{name}/mount"))


def let_go(ask: Ask, used: Collection[str], instance: str) -> None:
    """Of every image but those. Repeatable."""
    labels = json.dumps({"label": [f"{LABEL_HOLDS}={instance}"]})
    for one in ask("get", "/containers/json", all="true", filters=labels):
        if one["Labels"].get(LABEL_IMAGE) not in used:
            try:
                ask("delete", f"/containers/{one['Id']}", force="true", timeout="0")
            except Refused as refused:
                if refused.status != MISSING:
                    raise


def _holder(image: str, instance: str) -> str:
    """By the whole id: what begins as another image does is soon made, and would be shown in its place."""
    return f"agentk-image-{instance}-{image}"
