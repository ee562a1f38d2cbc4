"""What a Skill is made of: its names, its files, and the front matter of its SKILL.md. Pure.

Everything here may have been written by an agent, or found in a folder from anywhere: it is bounded, read strictly, and
nothing of it grants anything.
"""

import base64
import binascii
import hashlib
import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentk.api import errors
from agentk.api.problems import Path, Problem, shown

FILE = "SKILL.md"
FOLDER = "/opt/skills"  # in a box; on its Python's path, and all that is in it is the package `skills`
PACKAGE = "skills"
VERSION_OF = "agentk.dev/skill"  # label of an older version: the name it is a version of
SAVED_BY = "agentk.dev/savedBy"  # annotation of what an agent saved: its uid

MAX_BYTES = 1024 * 1024
FRONT_BYTES = 64 * 1024
NAME_MAX, DESCRIPTION_MAX = 64, 1024
_PATH_MAX, _DEPTH_MAX, _FILES_MAX = 512, 12, 500

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_VERSION = re.compile(r"(.+)\.v([1-9][0-9]{0,8})")
_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)

Object = Mapping[str, Any]
Found = Iterator[Problem]


def base(name: str) -> str:
    """The name that NAME.v3 is a version of; itself when it is none."""
    match = _VERSION.fullmatch(name)
    return match[1] if match else name


def is_name(name: str) -> bool:
    return len(name) <= NAME_MAX and bool(_NAME.fullmatch(name))


def module(name: str) -> str:
    """What it is imported as, below `skills`."""
    made = base(name).replace("-", "_")
    if made[0].isdigit():
        return f"_{made}"
    return f"{made}_" if keyword.iskeyword(made) else made


def problems(obj: Object) -> Found:
    """What a schema cannot say of a Skill."""
    metadata, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    name = base(str(metadata.get("name") or ""))
    if name and not is_name(name):
        told = f"expected at most {NAME_MAX} lower-case letters and digits, with single '-' between them"
        yield Problem(("metadata", "name"), told)
    inline = (spec.get("source") or {}).get("inline") or {}
    yield from _files(inline)
    text = (inline.get("files") or {}).get(FILE)
    where: Path = ("spec", "source", "inline", "files", FILE)
    if text is None:
        yield Problem(where[:-1], f"has no {FILE}", reason="FieldValueRequired")
        return
    try:
        front = front_matter(text)[0]
    except errors.Invalid as error:
        yield Problem(where, error.message, error.hint)
        return
    if name and front["name"] != name:
        yield Problem(where, f"its name is {shown(front['name'])}, that of the Skill {shown(name)}")


def _files(inline: Object) -> Found:
    size, seen = 0, set[str]()
    names = [(field, name) for field in ("files", "binaryFiles") for name in inline.get(field) or {}]
    for field, name in names:
        path: Path = ("spec", "source", "inline", field, name)
        if why := bad_path(name):
            yield Problem(path, f"expected a relative file name: {why}", at_key=True)
        elif name in seen:
            yield Problem(path, "is among the texts too", at_key=True)
        seen.add(name)
        size += len(name.encode("utf-8", "replace")) + _size(inline[field][name], field == "binaryFiles")
    for field, name in names:
        if any(name[:at] in seen for at, letter in enumerate(name) if letter == "/"):
            path = ("spec", "source", "inline", field, name)
            yield Problem(path, "a part of its path is a file too", at_key=True)
    if len(names) > _FILES_MAX or size > MAX_BYTES:
        told = f"{len(names)} files of {size} bytes together: at most {_FILES_MAX}, and 1 MiB"
        yield Problem(("spec", "source", "inline"), told)


def bad_path(name: str) -> str:
    """Why a file cannot be named so; "" when it can."""
    parts = name.split("/")
    if not name or len(name) > _PATH_MAX or len(parts) > _DEPTH_MAX:
        return "it is empty, too long or too deep"
    if any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts):
        return "it is absolute, or a part of it is empty, '.', '..' or too long"
    if not all(letter.isprintable() and letter != "\\" for letter in name):
        return "it holds '\\' or what cannot be printed"
    return ""


def _size(content: Any, binary: bool) -> int:
    if not isinstance(content, str):
        return 0
    return len(content) * 3 // 4 if binary else len(content.encode("utf-8", "surrogatepass"))


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The front matter of a SKILL.md, and what comes after it. Raises Invalid.

    Words besides name and description are their author's: they are let be.
    """
    from agentk.api import manifest  # yaml: only for those who have such a text

    match = _FRONT.match(text[: FRONT_BYTES + 16])
    if match is None:
        hint = "---\\nname: …\\ndescription: …\\n---, at most 64 KiB"
        raise errors.Invalid(f"{FILE} does not begin with front matter", hint=hint)
    read = manifest.parse(match[1] or "", FILE)
    if len(read) != 1:
        raise errors.Invalid(f"the front matter of {FILE} is not one object")
    front = read[0].obj
    name, description = front.get("name"), front.get("description")
    if not isinstance(name, str) or not is_name(name):
        told = f"expected at most {NAME_MAX} lower-case letters and digits, with single '-' between them"
        raise errors.Invalid(f"name in the front matter of {FILE}: {told}")
    if not isinstance(description, str) or not 0 < len(description.strip()) <= DESCRIPTION_MAX:
        told = f"expected a text of at most {DESCRIPTION_MAX} letters"
        raise errors.Invalid(f"description in the front matter of {FILE}: {told}")
    return front, text[match.end() :]


def contents(skill: Object) -> dict[str, bytes]:
    """Its files. What is not base64 is left out, as nothing admits it."""
    inline = skill["spec"]["source"]["inline"]
    found = {
        name: text.encode("utf-8", "surrogatepass") for name, text in (inline.get("files") or {}).items()
    }
    for name, text in (inline.get("binaryFiles") or {}).items():
        try:
            found[name] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
    return found


def head(skill: Object) -> dict[str, Any]:
    """It without its files, of which it says how large they are."""
    return {**skill, "spec": {**skill["spec"], "source": {"bytes": size(skill)}}}


def size(skill: Object) -> int:
    """Of all its files, as they are written down."""
    source = skill["spec"]["source"]
    if "inline" not in source:
        return int(source["bytes"])
    held = [source["inline"].get(field) or {} for field in ("files", "binaryFiles")]
    return sum(len(name) + len(text) for files in held for name, text in files.items())


def inline(files: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """`spec.source.inline` of these files."""
    texts: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, data in sorted(files.items()):
        try:
            text = data.decode()
        except UnicodeDecodeError:
            others[name] = base64.b64encode(data).decode()
            continue
        if "\0" in text:
            others[name] = base64.b64encode(data).decode()
        else:
            texts[name] = text
    return {"files": texts, **({"binaryFiles": others} if others else {})}


def digest(files: Mapping[str, bytes]) -> str:
    """The same for the same files, whoever wrote them."""
    whole = hashlib.sha256()
    for name, data in sorted(files.items()):
        whole.update(f"{len(name.encode())} {len(data)} ".encode() + name.encode() + data)
    return f"sha256:{whole.hexdigest()}"


def of_files(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The Skill of a folder's files. Raises Invalid when there is no SKILL.md, or it cannot be read."""
    try:
        front, _ = front_matter(files.get(FILE, b"").decode())
    except UnicodeDecodeError:
        raise errors.Invalid(f"{FILE} is not text") from None
    return {
        "apiVersion": "agentk.dev/v1alpha1",
        "kind": "Skill",
        "metadata": {"name": front["name"]},
        "spec": {"description": front["description"].strip(), "source": {"inline": inline(files)}},
    }
