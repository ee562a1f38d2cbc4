"""The launcher's verb for images: which one a name means on this machine, and pulling it.

Podman may run as root and reads files and other storages by names that look like images. So a name is taken only in
its one full form, with a registry, as the daemon completes it; and a login is passed on and kept by nobody.
"""

import re
from collections.abc import Callable

from agentk.api import errors
from agentk.runtime.launcher import wire
from agentk.runtime.launcher.world import World

_HOST = r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"({_HOST})(?:/{_PART})+(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}|@sha256:[0-9a-f]{{64}})"
)
_REFERENCE_MAX = 512
_HOST_MARKS = (".", ":")
_LOCAL = "localhost"
_POLICIES = ("Always", "IfNotPresent", "Never")
_PULL_ID = re.compile(r"[0-9a-f]{1,32}")
_LOGIN_MAX = 16 * 1024
Answer = Callable[[wire.Message | errors.AgentkError], None]


def image(world: World, message: wire.Message, answer: Answer) -> None:
    """Answers late, when it has to be pulled; how far that is comes as notes. Repeatable."""
    reference, policy = check_reference(message.get("reference")), message.get("policy")
    if policy not in _POLICIES:
        raise errors.BadRequest(f"policy must be one of {', '.join(_POLICIES)}")
    if reference.startswith(f"{_LOCAL}/") and policy != "Never":
        raise errors.BadRequest("images of localhost/ are in no registry")
    pull_id = message.get("pull_id")
    if not isinstance(pull_id, str) or not _PULL_ID.fullmatch(pull_id):
        raise errors.BadRequest("pull_id must be hexadecimal digits")
    login = check_login(message.get("login"))

    def told(result: wire.Message | errors.AgentkError) -> None:
        answer(result if isinstance(result, errors.AgentkError) else {"image": result})

    def progress(words: str) -> None:
        world.notify({"note": "image", "pull_id": pull_id, "told": words})

    world.podman.ask("image", told, progress, reference=reference, policy=policy, login=login)


def check_reference(reference: object) -> str:
    """A full name and nothing else. Raises BadRequest."""
    if isinstance(reference, str) and len(reference) <= _REFERENCE_MAX:
        found = _REFERENCE.fullmatch(reference)
        if found and (found[1] == _LOCAL or any(mark in found[1] for mark in _HOST_MARKS)):
            return reference
    raise errors.BadRequest(
        "not the full name of an image", hint="registry/path:tag or registry/path@sha256:…"
    )


def check_login(login: object) -> dict[str, str] | None:
    """Texts that fit a header. Raises BadRequest, and never quotes them."""
    if login is None:
        return None
    names = ("username", "password", "token")
    if not isinstance(login, dict) or not set(login) <= set(names):
        raise errors.BadRequest("a login has a username, a password and a token")
    made = {name: login.get(name, "") for name in names}
    for name, text in made.items():
        if not isinstance(text, str) or len(text) > _LOGIN_MAX or "\0" in text:
            raise errors.BadRequest(f"the {name} of a login must be a text of at most {_LOGIN_MAX} letters")
    return made
