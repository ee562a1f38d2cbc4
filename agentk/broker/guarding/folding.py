"""What an expression of Python will be, as far as it can be told without running it: texts put together of texts. Pure.

`"o" + "s"`, `"".join(["e", "val"])`, `"metsys"[::-1]`, `chr(101)`, base64 and hex are how names are hidden from whoever
searches for them. What is not told here is not known, and is treated so.
"""

import ast
import base64
import binascii
import codecs
from collections.abc import Callable, Mapping
from typing import Any

_MOST = 64 * 1024  # letters: "a" * 10**9 is not tried
_CODECS = frozenset({"utf-8", "utf8", "ascii", "latin-1", "rot13", "rot_13", "rot-13", "hex", "base64"})


class Unknown(Exception):
    """It cannot be told."""


def fold(node: ast.AST, names: Mapping[str, ast.AST], depth: int = 0) -> Any:
    """The text, bytes, number or list of these. Raises Unknown. `names` are those that are set once, in plain sight."""
    if depth > 50:
        raise Unknown
    work = _WAYS.get(type(node))
    if work is None:
        raise Unknown
    try:
        value = work(node, lambda other: fold(other, names, depth + 1), names)
    except Unknown:
        raise
    except Exception:  # noqa: BLE001 - whatever it would raise when run: it is not known
        raise Unknown from None
    if isinstance(value, str | bytes | list | tuple) and len(value) > _MOST:
        raise Unknown
    return value


Inner = Callable[[ast.AST], Any]


def _constant(node: Any, inner: Inner, names: Any) -> Any:
    return node.value


def _name(node: Any, inner: Inner, names: Mapping[str, ast.AST]) -> Any:
    if node.id not in names:
        raise Unknown
    return inner(names[node.id])


def _joined(node: Any, inner: Inner, names: Any) -> Any:
    told = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            if part.format_spec is not None or part.conversion not in (-1, 115):
                raise Unknown
            told.append(str(inner(part.value)))
        else:
            told.append(str(inner(part)))
    return "".join(told)


def _binary(node: Any, inner: Inner, names: Any) -> Any:
    left, right = inner(node.left), inner(node.right)
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Mod) and isinstance(left, str):
        if "*" in left or any(one.isdigit() for one in left):
            raise Unknown
        return left % (tuple(right) if isinstance(right, list) else right)
    if isinstance(node.op, ast.Mult) and isinstance(right, int) and not isinstance(left, int):
        if len(left) * right > _MOST:
            raise Unknown
        return left * right
    small = isinstance(left, int) and isinstance(right, int) and max(abs(left), abs(right)) < 1 << 31
    if small and isinstance(node.op, ast.Sub | ast.BitXor | ast.Mult):
        return (
            left - right
            if isinstance(node.op, ast.Sub)
            else left ^ right
            if isinstance(node.op, ast.BitXor)
            else left * right
        )
    raise Unknown


def _listed(node: Any, inner: Inner, names: Any) -> Any:
    return [inner(one) for one in node.elts]


def _subscript(node: Any, inner: Inner, names: Any) -> Any:
    value = inner(node.value)
    if isinstance(node.slice, ast.Slice):
        bounds = (node.slice.lower, node.slice.upper, node.slice.step)
        return value[slice(*(None if one is None else inner(one) for one in bounds))]
    return value[inner(node.slice)]


def _unary(node: Any, inner: Inner, names: Any) -> Any:
    value = inner(node.operand)
    if isinstance(node.op, ast.USub) and isinstance(value, int):
        return -value
    raise Unknown


def _call(node: Any, inner: Inner, names: Any) -> Any:
    if any(isinstance(one, ast.Starred) for one in node.args):
        raise Unknown
    if isinstance(node.func, ast.Name):
        return _builtin(node.func.id, [inner(one) for one in node.args])
    if not isinstance(node.func, ast.Attribute):
        raise Unknown
    args = [inner(one) for one in node.args]
    name = node.func.attr
    if name in _DECODING and isinstance(node.func.value, ast.Name | ast.Attribute):
        return _DECODING[name](args[0])
    if name == "decode" and isinstance(node.func.value, ast.Name) and node.func.value.id == "codecs":
        return _decoded(*args)
    owner = inner(node.func.value)
    if name == "decode" and isinstance(owner, bytes):
        return _decoded(owner, *args)
    if name in _METHODS and isinstance(owner, str | bytes):
        return getattr(owner, name)(*args)
    raise Unknown


def _builtin(name: str, args: list[Any]) -> Any:
    if name == "chr":
        return chr(args[0])
    if name == "str" and len(args) == 1 and isinstance(args[0], str | int):
        return str(args[0])
    if name == "bytes" and isinstance(args[0], list):
        return bytes(args[0])
    if name in ("reversed", "list", "tuple", "sorted") and isinstance(args[0], str | list):
        return list(reversed(args[0])) if name == "reversed" else list(args[0])
    if name == "map":
        raise Unknown
    raise Unknown


def _decoded(data: Any, how: Any = "utf-8", *rest: Any) -> Any:
    if str(how).lower() not in _CODECS:
        raise Unknown
    return codecs.decode(data, str(how))


def _base64(data: Any) -> bytes:
    try:
        return base64.b64decode(data, altchars=None)
    except (binascii.Error, ValueError):
        raise Unknown from None


_METHODS = frozenset(
    {"join", "replace", "lower", "upper", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "swapcase",
     "title", "capitalize", "casefold", "split", "encode"}
)  # fmt: skip
_DECODING: Mapping[str, Callable[[Any], Any]] = {
    "b64decode": _base64,
    "urlsafe_b64decode": lambda data: base64.urlsafe_b64decode(data),
    "fromhex": lambda data: bytes.fromhex(data),
    "unhexlify": lambda data: binascii.unhexlify(data),
}
_WAYS: Mapping[type, Callable[[Any, Inner, Mapping[str, ast.AST]], Any]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.JoinedStr: _joined,
    ast.BinOp: _binary,
    ast.List: _listed,
    ast.Tuple: _listed,
    ast.Subscript: _subscript,
    ast.UnaryOp: _unary,
    ast.Call: _call,
}
