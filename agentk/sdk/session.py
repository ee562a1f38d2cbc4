"""A Python that stays: it runs one piece of code after the other, in one namespace, as an interactive one does.

It runs in the box of the agent whose code that is. Each piece comes on standard input, behind a line with a word and
its length; when it is done, that word is said on standard output and on standard error, behind all that the code said.
Nothing here is kept from the code, for it can harm nobody but itself: what it breaks is ended and begun anew. It must
never run a piece twice, nor outlive whoever reads it.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib.machinery
import linecache
import os
import sys
import traceback
import types
from typing import Any, Dict, Tuple


def main() -> None:
    """Returns when nobody sends any more; code that exits ends it earlier, with its exit code."""
    orders = os.fdopen(os.dup(0), "rb")
    marks = os.dup(1), os.dup(2)  # whatever the code does to its own
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    vars(module)["__builtins__"] = builtins
    sys.argv[:] = [""]
    sys.path.insert(0, "")
    sys.meta_path.insert(0, Packages)
    own, number = os.getpid(), 0
    while True:
        words = orders.readline().split()
        if len(words) != 2:
            return
        code = orders.read(int(words[1]))
        if len(code) != int(words[1]):
            return
        number += 1
        failed = run(code.decode("utf-8", "replace"), number, vars(module))
        if os.getpid() != own:  # the code made another of us, which has done its part
            os._exit(failed)
        _flush()
        for mark in marks:
            _write(mark, b"\0%s:%d\n" % (words[0], failed))


class Packages:
    """Finds `tools` and `skills`: what the agent may call, and what it may use, as agentk.sdk.modules and
    agentk.sdk.skills have them; unless it has such a module of its own."""

    workspace = os.getcwd()

    @classmethod
    def find_spec(cls, name: str, path: Any, target: Any = None) -> Any:
        package, _, inner = name.partition(".")
        if package not in ("tools", "skills"):
            return None
        if not inner:
            own = importlib.machinery.PathFinder.find_spec(name, [cls.workspace])
            if own is not None and own.loader is not None:
                return None
            return importlib.machinery.ModuleSpec(name, cls, is_package=True)  # type: ignore[arg-type]
        made = sys.modules.get(package)
        if package == "skills" and "." not in inner and hasattr(made, "spec_of"):
            return made.spec_of(inner)  # type: ignore[union-attr]
        if package == "tools" and hasattr(made, "_shelf"):
            return importlib.machinery.ModuleSpec(name, cls)  # type: ignore[arg-type]
        return None

    @staticmethod
    def create_module(spec: Any) -> Any:
        if spec.name == "skills":
            from agentk.sdk import skills

            return skills.package()
        if spec.name == "tools":
            from agentk.sdk import modules

            return modules.package(Packages.workspace)
        try:
            return getattr(sys.modules["tools"], spec.name.partition(".")[2])
        except AttributeError as error:
            raise ImportError(str(error), name=spec.name) from None

    @staticmethod
    def exec_module(module: Any) -> None:
        """It is whole."""


def run(text: str, number: int, space: Dict[str, Any]) -> bool:
    """Whether it failed. The value of a last line that is an expression is shown. Raises SystemExit."""
    name = f"<step {number}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    try:
        first, last = _compiled(text, name)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        error.__traceback__ = None
        _tell(error)
        return True
    try:
        exec(first, space)
        if last is not None:
            exec(last, space)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 (whatever it is, the next piece may be better)
        began = error.__traceback__
        error.__traceback__ = began.tb_next if began else None  # without our own frame
        _tell(error)
        return True
    return False


def _compiled(text: str, name: str) -> Tuple[Any, Any]:
    tree = ast.parse(text, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    first = compile(tree, name, "exec", dont_inherit=True)
    shown = last and compile(ast.Interactive([last]), name, "single", dont_inherit=True)
    return first, shown


def _tell(error: BaseException) -> None:
    with contextlib.suppress(Exception):
        _flush()
        traceback.print_exception(type(error), error, error.__traceback__)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
