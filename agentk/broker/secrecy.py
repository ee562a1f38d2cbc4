"""What is secret here: the values of every Secret, for who may use one and for taking them out of what is written.

Values stay in memory and in the store; nothing here logs, quotes or hands one to a guest.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from agentk.api import errors, kinds
from agentk.store.journal_redaction import Redactor

Object = Mapping[str, Any]


class Secrecy:
    """Hears Secrets; complete before the first call."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Mapping[str, bytes]] = {}
        self._redactor = Redactor(())

    def hear(self, kind: kinds.Kind, obj: Object, gone: bool) -> None:
        if kind is not kinds.SECRET:
            return
        metadata = obj["metadata"]
        named = (str(metadata["namespace"]), str(metadata["name"]))
        before = self._held.pop(named, None)
        if not gone:
            self._held[named] = _values(obj)
        if self._held.get(named) != before:
            self._redactor = Redactor({value for held in self._held.values() for value in held.values()})

    def redact(self, data: bytes) -> bytes:
        """Without any secret, and without headers that carry credentials. From any thread."""
        return self._redactor(data)

    async def value(self, namespace: str, name: str, key: str) -> str:
        """Raises NotFound naming what is missing."""
        held = self._held.get((namespace, name))
        if held is None:
            raise errors.NotFound(
                f'Secret "{name}" not found in namespace "{namespace}"',
                hint=f"apply one with stringData: {{{key}: …}}; nothing else has to be made anew",
                kind="secrets",
                name=name,
            )
        if key not in held:
            raise errors.NotFound(f'Secret "{name}" has no key "{key}"', kind="secrets", name=name)
        try:
            return held[key].decode().strip()
        except UnicodeDecodeError:
            raise errors.NotFound(f'key "{key}" of Secret "{name}" is not text') from None


def _values(obj: Object) -> dict[str, bytes]:
    """A value that is no base64 is left out: the API takes none."""
    found = {}
    for key, text in (obj.get("data") or {}).items():
        try:
            found[str(key)] = base64.b64decode(str(text), validate=True)
        except binascii.Error:
            continue
    return found
