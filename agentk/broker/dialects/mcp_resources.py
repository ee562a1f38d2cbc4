"""Skills as MCP's resources: `skill://NAME` is a Skill's SKILL.md, `skill://NAME/FILE` another file of it. Pure.

Read-only: what a Skill says is its author's word, and one is saved and run by the calls of agents, not from here.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib import parse

_URI = re.compile(r"skill://([^/?#]{1,253})(?:/([^?#]{1,1536}))?")
_MARKDOWN, _TEXT, _DATA = "text/markdown", "text/plain", "application/octet-stream"
_LETTERS_MAX = 2048


def named(uri: Any) -> dict[str, str] | None:
    """The `skill.get` that a URI means; None when it means none."""
    found = _URI.fullmatch(uri) if isinstance(uri, str) and len(uri) <= _LETTERS_MAX else None
    if found is None:
        return None
    name, file = parse.unquote(found[1]), parse.unquote(found[2] or "")
    return {"name": name, **({"file": file} if file and file != "SKILL.md" else {})}


def listed(page: Mapping[str, Any]) -> dict[str, Any]:
    """Of what skill.search answered."""
    told: dict[str, Any] = {"resources": [_shown(one) for one in page["items"]]}
    if page.get("continue"):
        told["nextCursor"] = str(page["continue"])
    return told


def read(uri: str, got: Mapping[str, Any]) -> dict[str, Any]:
    """Of what skill.get answered: a Skill with the addresses of its other files, or one of these."""
    if "text" in got:
        base = f"skill://{parse.quote(str(got['name']), safe='')}"
        files = [f"{base}/{parse.quote(str(one['path']))}" for one in got.get("files") or ()]
        about = {"agentk.dev/files": files, "agentk.dev/digest": got.get("digest", "")}
        content = {"uri": uri, "mimeType": _MARKDOWN, "text": str(got["text"]), "_meta": about}
    elif got["encoding"] == "base64":
        content = {"uri": uri, "mimeType": _DATA, "blob": str(got["content"])}
    else:
        content = {"uri": uri, "mimeType": _TEXT, "text": str(got["content"])}
    return {"contents": [content]}


def _shown(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uri": f"skill://{parse.quote(str(one['name']), safe='')}",
        "name": one["name"],
        "description": one.get("description", ""),
        "mimeType": _MARKDOWN,
    }
