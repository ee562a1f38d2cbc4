"""The one error tree. Raised low, printed once high; the same codes on HTTP (a Kubernetes `Status`) and CLI.

`code` is the stable word programs match on, `http_status` its number on the wire, `hint` what to do next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Cause:
    """One problem of one field. `line` and `column` count from 1; 0 when not known."""

    field: str
    message: str
    line: int = 0
    column: int = 0
    hint: str = ""
    file: str = ""
    reason: str = "FieldValueInvalid"  # Kubernetes' CauseType

    def __str__(self) -> str:
        what = f"{self.field}: {self.message}" if self.field else self.message
        return _place(self.file, self.line, self.column) + _with_hint(what, self.hint)


class AgentkError(Exception):
    """Something agentk tells a person: what, where (when known), why, and what to do next."""

    code: ClassVar[str] = "InternalError"
    http_status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        field: str = "",
        file: str = "",
        line: int = 0,
        column: int = 0,
        retry_after_seconds: int | None = None,
        causes: Sequence[Cause] = (),
        kind: str = "",
        name: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field
        self.file = file
        self.line = line
        self.column = column
        self.retry_after_seconds = retry_after_seconds
        self.causes: list[Cause] = list(causes)
        self.kind = kind
        self.name = name

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self.http_status

    def __str__(self) -> str:
        head = f"{self.field}: {self.message}" if self.field else self.message
        causes = untold(self.message, self.causes)
        if len(causes) == 1:
            cause = causes[0]
            at = (cause.file or self.file, cause.line or self.line, cause.column or self.column)
            what = f"{cause.field}: {cause.message}" if cause.field else cause.message
            return _place(*at) + _with_hint(f"{head}: {what}", cause.hint or self.hint)
        text = _place(self.file, self.line, self.column) + _with_hint(head, self.hint)
        return "\n".join([text, *(f"  {cause}" for cause in causes)])

    def to_status(self) -> dict[str, Any]:
        """As a Kubernetes `Status`; what it has no field for (hint, file, line) rides in `details`."""
        details: dict[str, Any] = {}
        for key in ("name", "kind", "hint", "field", "file", "line", "column"):
            if getattr(self, key):
                details[key] = getattr(self, key)
        if self.retry_after_seconds is not None:
            details["retryAfterSeconds"] = self.retry_after_seconds
        if self.causes:
            details["causes"] = [_cause_to_dict(cause) for cause in self.causes]
        status: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "message": _with_hint(_with_causes(self.message, self.causes), self.hint),
            "reason": self.code,
            "code": self.http_status,
        }
        if details:
            status["details"] = details
        return status


class NotFound(AgentkError):
    code = "NotFound"
    http_status = 404


class AlreadyExists(AgentkError):
    code = "AlreadyExists"
    http_status = 409


class Conflict(AgentkError):
    """Somebody else wrote first, or owns the field."""

    code = "Conflict"
    http_status = 409


class Invalid(AgentkError):
    """What was written is understood and wrong; `causes` lists every problem."""

    code = "Invalid"
    http_status = 422


class BadRequest(AgentkError):
    code = "BadRequest"
    http_status = 400


class Forbidden(AgentkError):
    code = "Forbidden"
    http_status = 403


class MethodNotAllowed(AgentkError):
    code = "MethodNotAllowed"
    http_status = 405


class NotAcceptable(AgentkError):
    code = "NotAcceptable"
    http_status = 406


class UnsupportedMediaType(AgentkError):
    code = "UnsupportedMediaType"
    http_status = 415


class Expired(AgentkError):
    """A resourceVersion or continue token too old, or of another epoch: list again."""

    code = "Expired"
    http_status = 410


class TooLarge(AgentkError):
    code = "RequestEntityTooLarge"
    http_status = 413


class TooManyRequests(AgentkError):
    code = "TooManyRequests"
    http_status = 429


class Unavailable(AgentkError):
    """Not now; asking again later may work."""

    code = "ServiceUnavailable"
    http_status = 503


class Timeout(AgentkError):
    code = "Timeout"
    http_status = 504


class RuntimeRefused(AgentkError):
    """The runtime could not make the box as asked, and left nothing behind."""

    code = "RuntimeRefused"
    http_status = 503


class Denied(AgentkError):
    """A Policy says no; the message names the rule."""

    code = "PolicyDenied"
    http_status = 403


class ApprovalRequired(AgentkError):
    """A Policy says that a person must be asked first, and nobody has answered."""

    code = "ApprovalRequired"
    http_status = 403


class ApprovalDenied(AgentkError):
    """A person was asked, and said no."""

    code = "ApprovalDenied"
    http_status = 403


class ToolDrift(AgentkError):
    """A tool is not what it was when somebody looked at it, and nobody has looked again."""

    code = "ToolDrift"
    http_status = 409


class BudgetExceeded(AgentkError):
    """What is left of a budget is less than the call may use. Asking again changes nothing by itself."""

    code = "BudgetExceeded"
    http_status = 429


class OutcomeUnknown(AgentkError):
    """The call was under way when agentk or its launcher ended: it may have happened, and is not repeated."""

    code = "OutcomeUnknown"
    http_status = 409


class UpstreamError(AgentkError):
    """A model's provider, or another host, answered with an error or not at all."""

    code = "UpstreamError"
    http_status = 502


class Cancelled(AgentkError):
    """The caller hung up or took its call back."""

    code = "Cancelled"
    http_status = 499


_BY_CODE: dict[str, type[AgentkError]] = {
    cls.code: cls
    for cls in (
        NotFound,
        AlreadyExists,
        Conflict,
        Invalid,
        BadRequest,
        Forbidden,
        MethodNotAllowed,
        NotAcceptable,
        UnsupportedMediaType,
        Expired,
        TooLarge,
        TooManyRequests,
        Unavailable,
        Timeout,
        RuntimeRefused,
        Denied,
        ApprovalRequired,
        ApprovalDenied,
        ToolDrift,
        BudgetExceeded,
        OutcomeUnknown,
        UpstreamError,
        Cancelled,
    )
}


def from_status(status: Mapping[str, Any]) -> AgentkError:
    """The error a `Status` stands for; its inverse is `to_status`. Never fails: the sender may be anyone."""
    details = status.get("details")
    details = details if isinstance(details, Mapping) else {}
    cls = _BY_CODE.get(str(status.get("reason")))
    if not cls:  # a proxy's words, or a newer daemon's: the number still tells the family
        cls = next((c for c in _BY_CODE.values() if c.http_status == status.get("code")), AgentkError)
    hint = str(details.get("hint", ""))
    retry = details.get("retryAfterSeconds")
    told = details.get("causes")
    causes = [_cause_from_dict(c) for c in told if isinstance(c, Mapping)] if isinstance(told, list) else []
    message = _without_hint(str(status.get("message", "")), hint)
    return cls(
        message.removesuffix(_with_causes("", causes)) if causes else message,
        hint=hint,
        field=str(details.get("field", "")),
        file=str(details.get("file", "")),
        line=_whole(details.get("line")),
        column=_whole(details.get("column")),
        retry_after_seconds=retry if isinstance(retry, int) else None,
        causes=causes,
        kind=str(details.get("kind", "")),
        name=str(details.get("name", "")),
    )


def _cause_to_dict(cause: Cause) -> dict[str, Any]:
    told: dict[str, Any] = {"reason": cause.reason, "message": _with_hint(cause.message, cause.hint)}
    for key in ("field", "file", "line", "column", "hint"):
        if getattr(cause, key):
            told[key] = getattr(cause, key)
    return told


def _cause_from_dict(told: Mapping[str, Any]) -> Cause:
    hint = str(told.get("hint", ""))
    return Cause(
        field=str(told.get("field", "")),
        message=_without_hint(str(told.get("message", "")), hint),
        line=_whole(told.get("line")),
        column=_whole(told.get("column")),
        hint=hint,
        file=str(told.get("file", "")),
        reason=str(told.get("reason", "FieldValueInvalid")),
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _place(file: str, line: int, column: int) -> str:
    numbers = ":".join(str(number) for number in (line, column) if number)
    if file and numbers:
        return f"{file}:{numbers}: "
    return f"{file}: " if file else f"line {numbers}: " if numbers else ""


# kubectl prints only the message, so on the wire hint and causes are part of it.
def _with_causes(message: str, causes: Sequence[Cause]) -> str:
    told = ", ".join(f"{c.field}: {c.message}" if c.field else c.message for c in untold(message, causes))
    return f"{message}: {told}" if told else message


def untold(message: str, causes: Sequence[Cause]) -> list[Cause]:
    """Those that the message does not tell itself: said once is enough."""
    return [c for c in causes if c.message != message and f"{c.field}: {c.message}" not in message]


def _with_hint(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message


def _without_hint(message: str, hint: str) -> str:
    return message.removesuffix(f"; {hint}") if hint else message
