"""What a call can raise. One class for each way to react; `reason` is the gate's stable word for it.

from agentk.sdk import client, errors

try:
    print(client.connect().think("Say hi"))
except errors.BudgetExceeded:
    print("no money left")
except errors.Denied as error:
    print(error.message)  # names the rule
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Type


class CallError(Exception):
    """A call that went wrong. `status` is the whole Kubernetes Status, when the gate sent one."""

    reason = "InternalError"

    def __init__(self, message: str, status: Optional[Dict[str, Any]] = None, code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status or {}
        self.code = code  # the JSON-RPC number
        self.reason = str(self.status.get("reason") or type(self).reason)
        details = self.status.get("details")
        details = details if isinstance(details, dict) else {}
        self.hint = str(details.get("hint", ""))
        self.retry_after_seconds: Optional[int] = details.get("retryAfterSeconds")


class Denied(CallError):
    """A Policy says no. The message names the rule."""

    reason = "PolicyDenied"


class ApprovalRequired(CallError):
    """A person has to be asked first, and nobody answered in time."""

    reason = "ApprovalRequired"


class ApprovalDenied(CallError):
    """A person was asked, and said no. The message tells what they said with it."""

    reason = "ApprovalDenied"


class ToolDrift(CallError):
    """The tool is not what it was when somebody looked at it. A person has to look again."""

    reason = "ToolDrift"


class BudgetExceeded(CallError):
    """What is left of a budget is less than this call may use. Trying again does not help."""

    reason = "BudgetExceeded"


class OutcomeUnknown(CallError):
    """agentk ended while this call was under way: it may have happened. It is not repeated by itself."""

    reason = "OutcomeUnknown"


class UpstreamError(CallError):
    """The model's provider, or another host, answered with an error or not at all."""

    reason = "UpstreamError"


class Cancelled(CallError):
    """The call was taken back."""

    reason = "Cancelled"


class Invalid(CallError):
    """A parameter is wrong. The message says which."""

    reason = "Invalid"


class NotFound(CallError):
    reason = "NotFound"


class AlreadyExists(CallError):
    reason = "AlreadyExists"


class Conflict(CallError):
    """Somebody else was first, or the same key was used for another call."""

    reason = "Conflict"


class TooLarge(CallError):
    reason = "RequestEntityTooLarge"


class TooManyRequests(CallError):
    """Not now: `retry_after_seconds` says when, if the gate knows."""

    reason = "TooManyRequests"


class Unavailable(CallError):
    """Not now; later may work."""

    reason = "ServiceUnavailable"


class TookTooLong(CallError, TimeoutError):
    """The time given for the call ran out, here or at the gate."""

    reason = "Timeout"


class Disconnected(CallError, ConnectionError):
    """The gate could not be reached for too long. What was under way may or may not have happened."""

    reason = "Disconnected"


_BY_REASON: Dict[str, Type[CallError]] = {
    cls.reason: cls
    for cls in (
        Denied,
        ApprovalRequired,
        ApprovalDenied,
        ToolDrift,
        BudgetExceeded,
        OutcomeUnknown,
        UpstreamError,
        Cancelled,
        Invalid,
        NotFound,
        AlreadyExists,
        Conflict,
        TooLarge,
        TooManyRequests,
        Unavailable,
        TookTooLong,
    )
}
# Reasons that one reacts to alike.
_BY_REASON.update({"BadRequest": Invalid, "MethodNotAllowed": NotFound, "Forbidden": Denied})


def from_answer(code: int, message: str, data: Any) -> CallError:
    """The error of an answer. Never fails: a newer gate may know reasons that this side does not."""
    status = data if isinstance(data, dict) else {}
    cls = _BY_REASON.get(str(status.get("reason")), CallError)
    if code in (-32602, -32601) and cls is CallError:
        cls = Invalid if code == -32602 else NotFound
    return cls(message, status, code)
