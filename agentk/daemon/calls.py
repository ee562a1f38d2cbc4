"""One request as handlers see it: what it is about, and what its query asks for. Every bad value is an error."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from starlette.requests import Request

from agentk.api import errors
from agentk.daemon.paths import Target
from agentk.daemon.services import Services
from agentk.daemon.turns import Turns
from agentk.store.store import Store

Validation = Literal["Strict", "Warn", "Ignore"]

_VALIDATIONS: Mapping[str, Validation] = {"Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore"}
_MANAGER_MAX = 128  # Kubernetes' limit
_TRUE, _FALSE = ("true", "1", "t", "T", "TRUE", "True"), ("false", "0", "f", "F", "FALSE", "False", "")


@dataclass(frozen=True)
class Call:
    """A request on one target."""

    request: Request
    target: Target
    store: Store
    services: Services
    turns: Turns

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params


@dataclass(frozen=True)
class Write:
    """How a write is meant (query parameters of POST, PUT and PATCH)."""

    dry_run: bool
    validation: Validation
    manager: str  # field manager: the query's, else the program that calls
    force: bool


def write(call: Call) -> Write:
    """Raises BadRequest for values that mean nothing."""
    asked = call.query.get("fieldValidation") or "Strict"
    validation = _VALIDATIONS.get(asked)
    if validation is None:
        raise _bad("fieldValidation", asked, "Strict, Warn or Ignore")
    return Write(dry_run(call), validation, _manager(call), flag(call, "force"))


def dry_run(call: Call) -> bool:
    asked = [value for value in call.request.query_params.getlist("dryRun") if value]
    if any(value != "All" for value in asked):
        raise _bad("dryRun", ", ".join(asked), "All")
    return bool(asked)


def flag(call: Call, name: str) -> bool:
    value = call.query.get(name)
    if value is None or value in _FALSE:
        # ?watch alone means yes to people and no to Kubernetes; Kubernetes wins.
        return False
    if value not in _TRUE:
        raise _bad(name, value, "true or false")
    return True


def whole(call: Call, name: str, largest: int = 2**53) -> int | None:
    """A whole number from 0 on; None when not given."""
    value = call.query.get(name)
    if not value:
        return None
    if not re.fullmatch(r"[0-9]{1,16}", value) or int(value) > largest:
        raise _bad(name, value, f"a whole number from 0 to {largest}")
    return int(value)


def moment(call: Call, name: str) -> datetime | None:
    """An RFC 3339 time; None when not given."""
    value = call.query.get(name)
    if not value:
        return None
    try:
        found = datetime.fromisoformat(value.replace(" ", "+"))  # an unescaped "+01:00" arrives with a space
    except ValueError:
        raise _bad(name, value, "a time like 2026-01-31T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def now() -> str:
    """RFC 3339, UTC, whole seconds: what Kubernetes writes into metadata."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_exact() -> str:
    """RFC 3339, UTC, microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _manager(call: Call) -> str:
    given = call.query.get("fieldManager", "")
    if len(given) > _MANAGER_MAX or not given.isprintable():
        raise _bad("fieldManager", given, f"at most {_MANAGER_MAX} printable letters")
    program = call.request.headers.get("user-agent", "").partition("/")[0].strip()
    return given or program[:_MANAGER_MAX] or "unknown"


def _bad(name: str, value: str, wanted: str) -> errors.BadRequest:
    return errors.BadRequest(f'{name}: "{value[:100]}" is not supported', hint=f"use {wanted}")
