"""`spec.guardrails` of a Policy, read once: frozen, with what is not given filled in. Pure.

Must never leave out a rail that it cannot read: whoever cannot read them lets no call pass.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from agentk.api import errors, quantities

Surface = Literal["model", "exec", "tool", "http", "message"]
SURFACES: tuple[Surface, ...] = get_args(Surface)
DETECTORS = ("email", "phone", "card", "iban", "nationalId")
_MASKED: tuple[Surface, ...] = ("model",)
_SEARCHED: tuple[Surface, ...] = ("exec", "tool", "http", "message")
_CODE_BYTES = 256 * 1024
_PATTERNS_MAX = 50
_PATTERN_MAX = 500  # letters
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,30}")

DENIED_IMPORTS = (
    "ctypes", "_ctypes", "cffi", "importlib", "imp", "pkgutil", "runpy", "code", "codeop", "marshal", "pickle",
    "_pickle", "dill", "shelve", "subprocess", "_posixsubprocess", "multiprocessing", "pty", "posix", "gc",
    "pdb", "bdb", "cProfile", "profile", "trace", "doctest", "pydoc", "webbrowser", "logging.config", "zipimport",
    "unittest.mock",
)  # fmt: skip
DENIED_CALLS = (
    "eval", "exec", "compile", "__import__", "breakpoint", "os.system", "os.popen", "os.exec*", "os.spawn*",
    "os.posix_spawn*", "os.fork*", "types.FunctionType", "types.CodeType",
    "asyncio.create_subprocess_*", "timeit.timeit", "timeit.repeat", "timeit.Timer", "typing.get_type_hints",
    "inspect.getmembers*", "inspect.getattr_static",
)  # fmt: skip
DENIED_ATTRIBUTES = (
    "__globals__", "__builtins__", "__subclasses__", "__bases__", "__base__", "__mro__", "__code__", "__loader__",
    "__spec__", "__getattribute__", "__reduce__", "__reduce_ex__", "__import__", "__closure__", "__func__", "__self__",
    "f_globals", "f_builtins", "f_locals", "f_back", "tb_frame", "gi_frame", "cr_frame", "ag_frame",
    "create_subprocess_*", "subprocess_exec", "subprocess_shell", "get_field",
)  # fmt: skip
DENIED_SHELL = (
    r"\b(?:curl|wget)\b[^\n;]{0,200}\|\s*(?:ba|da|z|k)?sh\b",
    r"\bbase64\b[^\n;|]{0,80}\|\s*(?:ba|da|z|k)?sh\b",
    r"\brm\s+(?:-\w+\s+){0,4}(?:/|~|\*)",
    r":\(\)\s*\{",
    r"\beval\b",
    r"/dev/(?:tcp|udp)/",
)
DENIED_NODE = (
    r"\bchild_process\b",
    r"\bprocess\s*\.\s*(?:binding|dlopen|_linkedBinding)\b",
    r"\beval\s*\(",
    r"\bFunction\s*\(",
    r"\bconstructor\s*\.\s*constructor\b",
    r"\brequire\s*\(\s*['\"](?:node:)?vm['\"]",
)


@dataclass(frozen=True)
class Python:
    imports: tuple[str, ...] = DENIED_IMPORTS
    calls: tuple[str, ...] = DENIED_CALLS
    attributes: tuple[str, ...] = DENIED_ATTRIBUTES
    unparsable: bool = False  # whether what cannot be read may run
    dynamic: bool = False  # whether names that are only known when it runs may be used


@dataclass(frozen=True)
class Code:
    python: Python | None
    patterns: Mapping[str, tuple[str, ...]]  # of shell, node and argv
    most_bytes: int


@dataclass(frozen=True)
class Pii:
    detect: tuple[str, ...]
    patterns: tuple[tuple[str, str], ...]
    mask: frozenset[Surface]


@dataclass(frozen=True)
class Secrets:
    block: bool
    where: frozenset[Surface]
    entropy: bool
    patterns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Output:
    most_bytes: int
    truncate: bool


@dataclass(frozen=True)
class Rate:
    calls: int | None
    bytes: int | None


@dataclass(frozen=True, eq=False)
class Rails:
    """What is not guarded is None."""

    code: Code | None = None
    pii: Pii | None = None
    secrets: Secrets | None = None
    output: Output | None = None
    rate: Rate | None = None
    broken: str = ""  # why they cannot be read: nothing passes then

    def looks_at(self, surface: Surface) -> bool:
        """Whether what comes from there has to be seen whole before the agent gets it."""
        return self.output is not None or (self.secrets is not None and surface in self.secrets.where)


def of(policy: Mapping[str, Any]) -> Rails | None:
    """Of a Policy's spec; None when it has none. Never raises."""
    written = policy.get("guardrails")
    if not written:
        return None
    try:
        return read(written)
    except errors.Invalid as error:
        return Rails(broken=str(error))


def read(written: Any) -> Rails:
    """Raises Invalid with the field."""
    if not isinstance(written, Mapping):
        raise errors.Invalid("expected an object", field="spec.guardrails")
    unknown = set(written) - {"code", "pii", "secrets", "output", "rate"}
    if unknown:
        raise errors.Invalid("is not a guardrail", field=f"spec.guardrails.{sorted(unknown)[0]}")
    return Rails(
        _code(written["code"]) if "code" in written else None,
        _pii(written["pii"]) if "pii" in written else None,
        _secrets(written["secrets"]) if "secrets" in written else None,
        _output(written["output"]) if "output" in written else None,
        _rate(written["rate"]) if "rate" in written else None,
    )


def _code(written: Mapping[str, Any]) -> Code:
    python, at = written.get("python"), "code.python"
    made = None
    if python is not None:
        made = Python(
            _texts(python, "denyImports", DENIED_IMPORTS, at),
            _texts(python, "denyCalls", DENIED_CALLS, at),
            _texts(python, "denyAttributes", DENIED_ATTRIBUTES, at),
            python.get("unparsable", "Deny") == "Allow",
            python.get("dynamic", "Deny") == "Allow",
        )
    patterns: dict[str, tuple[str, ...]] = {}
    usual: dict[str, Sequence[str]] = {"shell": DENIED_SHELL, "node": DENIED_NODE, "argv": ()}
    for language, otherwise in usual.items():
        if language in written:
            found = _texts(written[language], "deny", otherwise, f"code.{language}")
            for number, pattern in enumerate(found):
                _compiles(pattern, f"code.{language}.deny[{number}]")
            patterns[language] = found
    return Code(made, patterns, _bytes(written, "maxBytes", _CODE_BYTES, "code"))


def _pii(written: Mapping[str, Any]) -> Pii:
    detect = _texts(written, "detect", DETECTORS, "pii")
    mask = _surfaces(written, "mask", _MASKED, "pii", ("model", "tool", "http", "message"))
    return Pii(detect, _patterns(written, "pii"), mask)


def _secrets(written: Mapping[str, Any]) -> Secrets:
    return Secrets(
        written.get("action", "Block") != "Mask",
        _surfaces(written, "in", _SEARCHED, "secrets", _SEARCHED),
        written.get("entropy", True) is not False,
        _patterns(written, "secrets"),
    )


def _output(written: Mapping[str, Any]) -> Output:
    return Output(_bytes(written, "maxBytes", 64 * 1024, "output"), written.get("action") != "Deny")


def _rate(written: Mapping[str, Any]) -> Rate:
    calls = written.get("callsPerMinute")
    if calls is not None and (type(calls) is not int or calls < 1):
        raise errors.Invalid("expected a whole number", field="spec.guardrails.rate.callsPerMinute")
    size = _bytes(written, "bytesPerMinute", 0, "rate") if "bytesPerMinute" in written else None
    return Rate(calls, size)


def _patterns(written: Mapping[str, Any], at: str) -> tuple[tuple[str, str], ...]:
    given, field = written.get("patterns") or (), f"{at}.patterns"
    if not isinstance(given, list | tuple) or len(given) > _PATTERNS_MAX:
        raise errors.Invalid(f"expected at most {_PATTERNS_MAX} patterns", field=f"spec.guardrails.{field}")
    found: dict[str, str] = {}
    for number, one in enumerate(given):
        where = f"{field}[{number}]"
        name = str(one.get("name", "")) if isinstance(one, Mapping) else ""
        if not _NAME.fullmatch(name) or name in found:
            told = "expected a name of its own in capital letters, such as EMPLOYEE"
            raise errors.Invalid(told, field=f"spec.guardrails.{where}.name")
        found[name] = _compiles(one.get("pattern"), f"{where}.pattern")
    return tuple(found.items())


def _compiles(pattern: Any, where: str) -> str:
    field = f"spec.guardrails.{where}"
    if not isinstance(pattern, str) or not 0 < len(pattern) <= _PATTERN_MAX:
        raise errors.Invalid(f"expected a pattern of at most {_PATTERN_MAX} letters", field=field)
    try:
        if re.compile(pattern).match(""):
            raise errors.Invalid("fits the empty text, and so everywhere", field=field)
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        raise errors.Invalid(f"is no regular expression: {error}", field=field) from None
    return pattern


def _texts(written: Any, field: str, otherwise: Sequence[str], at: str) -> tuple[str, ...]:
    where = f"spec.guardrails.{at}"
    if not isinstance(written, Mapping):
        raise errors.Invalid("expected an object", field=where)
    given = written.get(field)
    if given is None:
        return tuple(otherwise)
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) and one for one in given):
        raise errors.Invalid("expected a list of texts", field=f"{where}.{field}")
    return tuple(given)


def _surfaces(
    written: Mapping[str, Any], field: str, otherwise: Sequence[Surface], at: str, known: Sequence[Surface]
) -> frozenset[Surface]:
    found = _texts(written, field, otherwise, at)
    if wrong := [one for one in found if one not in known]:
        told = f'expected one of {", ".join(known)}, found "{wrong[0]}"'
        raise errors.Invalid(told, field=f"spec.guardrails.{at}.{field}")
    return frozenset(one for one in SURFACES if one in found)


def _bytes(written: Mapping[str, Any], field: str, otherwise: int, at: str) -> int:
    if field not in written:
        return otherwise
    try:
        size = quantities.parse_quantity(written[field])
    except errors.Invalid as error:
        raise errors.Invalid(error.message, field=f"spec.guardrails.{at}.{field}") from None
    if size < 1:
        raise errors.Invalid("must be above 0", field=f"spec.guardrails.{at}.{field}")
    return size
