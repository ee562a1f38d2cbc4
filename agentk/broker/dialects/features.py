"""What in a request is egress by another name: hosted tools, remote addresses, stored responses, ids of files.

Each needs a Policy rule. The walk looks at every value of a body, whatever its depth, except at JSON that is the
guest's own words (schemas, arguments, text): whoever adds a kind of content gets it judged without adding it here,
because an address is known by how it is written and not only by where it stands.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

HOSTED_TOOLS = "hostedTools"
REMOTE_URLS = "remoteUrls"
STORED_RESPONSES = "storedResponses"
FILE_IDS = "fileIds"

# A scheme and two slashes of either kind, behind anything a lenient URL parser strips. "data:" has no slashes.
_ADDRESS = re.compile(r"[\x00-\x20]*[a-zA-Z][a-zA-Z0-9+.\-]*:[/\\]{2}")
_INLINE = re.compile(r"\s*data:", re.IGNORECASE)
_URL_KEY = re.compile(r"(?:^|_)ur[li]s?$")
_FILE_KEY = re.compile(r"(?:^|_)(?:file_ids?|vector_store_ids?|container_id|skill_id)$")


@dataclass(frozen=True)
class Reading:
    """How one dialect's bodies are read."""

    text: frozenset[str]  # keys whose strings are words, never addresses
    opaque: frozenset[str]  # keys whose value is the guest's own JSON, or an echo of an answer
    judge: Callable[
        [str, Mapping[str, Any]], Iterator[str]
    ]  # features of one object, given the key it stands under
    echoes: frozenset[str] = (
        frozenset()
    )  # types of objects that only repeat an answer: judged, not looked into


def found(body: Mapping[str, Any], reading: Reading) -> frozenset[str]:
    """The features `body` uses. Never fails, and never recurses: the depth is the guest's choice."""
    features: set[str] = set()
    waiting: list[tuple[str, Any]] = [("", body)]
    files: dict[str, bool] = {}  # by key, looked at once: it may be long, and stand over very many values
    urls: dict[str, bool] = {}
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            features.update(reading.judge(key, value))
            if value.get("type") not in tuple(
                reading.echoes
            ):  # a tuple: the type may be anything, also a list
                waiting.extend((name, inner) for name, inner in value.items() if name not in reading.opaque)
        elif isinstance(value, list):
            waiting.extend((key, inner) for inner in value)
        if key not in files:
            files[key], urls[key] = bool(_FILE_KEY.search(key)), bool(_URL_KEY.search(key))
        if value and files[key]:
            features.add(FILE_IDS)
        if isinstance(value, str) and _is_address(key, value, reading, urls[key]):
            features.add(REMOTE_URLS)
    return frozenset(features)


def _is_address(key: str, value: str, reading: Reading, of_url: bool) -> bool:
    if of_url:  # here even "//host/x" and "http:host" count
        return bool(value.strip()) and not _INLINE.match(value)
    return key not in reading.text and bool(_ADDRESS.match(value))
