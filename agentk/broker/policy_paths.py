"""A path of a URL as every server may read it: as it is written, decoded, and with its dots resolved. Pure.

Must never let `/%61dmin`, `//admin` or `/v1/../admin` pass a rule about `/admin`: a rule that refuses looks for any of
the readings, one that allows wants all of them. Letters keep their case, as they do for servers that tell them apart.
"""

import posixpath
import re
from urllib import parse

MAX_PATH = 4096  # letters; more is refused rather than matched
_MOST_DECODED = 3  # times; a path that still hides something is refused
_HIDDEN = re.compile(r"%[0-9a-fA-F]{2}")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


def readings(path: str) -> tuple[str, ...]:
    """Every reading, without the query. None at all for a path that nobody should send."""
    text = re.split(r"[?#]", path, maxsplit=1)[0] or "/"
    if not text.startswith("/") or len(path) > MAX_PATH or _CONTROL.search(text):
        return ()
    found = {text, _resolved(text)}
    for _ in range(_MOST_DECODED):
        if not _HIDDEN.search(text):
            return tuple(sorted(found))
        text = parse.unquote(text, errors="surrogateescape")
        found |= {text, _resolved(text)}
    return () if _HIDDEN.search(text) else tuple(sorted(found))


def file(path: str) -> str:
    """The one reading of a file's name, with its dots resolved; "" for one that nobody should name. Where a link of
    that name leads is for the jail to bound."""
    if not path.startswith("/") or len(path) > MAX_PATH or re.search(r"[\x00-\x1f\x7f]", path):
        return ""
    return posixpath.normpath("/" + path.lstrip("/"))


def _resolved(path: str) -> str:
    """Backslashes as slashes, no empty parts, `.` and `..` gone."""
    parts: list[str] = []
    pieces = path.replace("\\", "/").split("/")
    for piece in pieces:
        if piece == "..":
            del parts[-1:]
        elif piece not in ("", "."):
            parts.append(piece)
    tail = "/" if parts and pieces[-1] in ("", ".", "..") else ""
    return "/" + "/".join(parts) + tail
