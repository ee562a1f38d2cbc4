"""What Python code may not do, told before it runs: its tree as the compiler has it, names and aliases resolved.

What is only known when it runs (a name out of a text that cannot be told, code out of such a text) is refused, unless
the Policy says otherwise. Pure, but it reads what strangers wrote: it runs in a process that may die of it.
"""

import ast
import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentk.broker.guarding import folding
from agentk.broker.guarding.folding import Unknown

_DEPTH_MAX = 8  # of code within code
_STEPS_MAX = 50  # of a.b.c: a longer one is of who knows what
_COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
# What makes names out of texts.
_BY_NAME = {
    "getattr": 1, "setattr": 1, "delattr": 1, "hasattr": 1, "attrgetter": 0, "methodcaller": 0, "__getattr__": 0,
    "__getattribute__": -1, "__setattr__": -2, "__delattr__": -1,
}  # fmt: skip
_IMPORTING = frozenset(
    {"__import__", "import_module", "find_spec", "find_loader", "load_module", "run_module", "resolve_name"}
)
_RUNNING = frozenset({"eval", "exec", "compile"})
_TABLES = frozenset({"globals", "locals", "vars"})
_TABLE_NAMES = frozenset({"__dict__", "modules", "__builtins__"})
# Of denied modules those whose names are nothing else: whoever has such a member has the module.
_UNMISTAKABLE = frozenset(
    {
        "ctypes",
        "importlib",
        "subprocess",
        "posixsubprocess",
        "multiprocessing",
        "runpy",
        "posix",
        "pkgutil",
        "pty",
    }
)
_OWN = frozenset({"self", "cls"})  # no module is called so


def problems(code: str, rules: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    python = rules.get("python")
    if python is None:
        return
    try:
        data = code.encode()
        for line in code.removeprefix("\ufeff").splitlines()[:2]:
            cookie = _COOKIE.match(line)
            if cookie and cookie[1].lower().replace("_", "-") not in ("utf-8", "utf8", "ascii"):
                raise ValueError("it names an encoding of its own")
        if b"\0" in data:
            raise ValueError("it has a NUL")
        tree = ast.parse(data, "<code>")
    except (SyntaxError, ValueError, RecursionError, MemoryError, UnicodeError) as error:
        if not python["unparsable"]:
            yield f"python: it cannot be read, so nobody can tell what it does: {str(error)[:120]}"
        return
    yield from _Look(tree, python, rules, depth).problems()


class _Look:
    """One module's tree."""

    def __init__(
        self, tree: ast.AST, python: Mapping[str, Any], rules: Mapping[str, Any], depth: int
    ) -> None:
        self.nodes = list(ast.walk(tree))
        self.python, self.rules, self.depth = python, rules, depth
        self.modules: dict[str, str] = {}  # name → module, or member of one, that it stands for
        self.texts: dict[str, ast.AST] = {}  # names that are set once
        self.imported: set[str] = set()
        self.called: set[int] = set()  # names, by id, that are called where they stand
        self.asked: set[int] = set()  # tables, by id, of which one name is looked up where they stand
        self.attributes = re.compile("|".join(map(fnmatch.translate, python["attributes"])) or "(?!)")
        self.names = re.compile("|".join(map(fnmatch.translate, _plain(python["calls"]))) or "(?!)")
        self.chains = [
            (one, one.count(".") + 1, re.compile(fnmatch.translate(one)))
            for one in python["calls"]
            if "." in one
        ]
        self.roots = {one.partition(".")[0] for one, _, _ in self.chains}
        self._learn()
        self._learn_members()

    def problems(self) -> Iterator[str]:
        for node in self.nodes:
            for told in self._of(node):
                yield f"python, line {getattr(node, 'lineno', 0)}: {told}"

    def _learn(self) -> None:
        times: dict[str, int] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for one in node.names:
                    self.imported.add(one.name.partition(".")[0])
                    self.modules[one.asname or one.name.partition(".")[0]] = (
                        one.name if one.asname else one.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                self.imported.add((node.module or "").partition(".")[0])
                for one in node.names:
                    self.modules[one.asname or one.name] = f"{node.module or ''}.{one.name}"
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                times[node.id] = times.get(node.id, 0) + 1
            elif isinstance(node, ast.Call):
                self.called.add(id(node.func))
            elif isinstance(node, ast.arg):
                times[node.arg] = times.get(node.arg, 0) + 2
            elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.ExceptHandler) and node.name:
                times[node.name] = times.get(node.name, 0) + 2
        for node in self.nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target = node.targets[0]
                if isinstance(target, ast.Name) and times.get(target.id) == 1:
                    self.texts[target.id] = node.value

    def _learn_members(self) -> None:
        """Modules that are not imported by name, but had from one that is."""
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                if (member := node.attr.lstrip("_")) in self.roots:
                    self.imported.add(member)
                if node.attr == "modules" and "sys" in self.imported:
                    self.imported |= self.roots
            elif isinstance(node, ast.Subscript):
                self.asked.add(id(node.value))
            elif isinstance(node, ast.Compare):
                self.asked.update(map(id, node.comparators))
        if "sys.modules" in self.modules.values():
            self.imported |= self.roots

    def _of(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for one in node.names:
                yield from self._imports(one.name)
        elif isinstance(node, ast.ImportFrom):
            yield from self._imports_from(node)
        elif isinstance(node, ast.Name):
            stands = self._standing(node.id)
            yield from self._refers(stands)
            if stands == "sys.modules" and id(node) not in self.asked:
                yield from self._unknown("the table of all modules")
            if stands.rpartition(".")[2] in _BY_NAME and id(node) not in self.called:
                yield from self._unknown(f"{node.id} that is handed on")
        elif isinstance(node, ast.Attribute):
            yield from self._reaches(node)
        elif isinstance(node, ast.Call):
            yield from self._calls(node)
        elif isinstance(node, ast.Subscript):
            yield from self._looks_up(node)
        elif isinstance(node, ast.MatchClass):
            for name in node.kwd_attrs:
                yield from self._named(name)

    def _standing(self, name: str) -> str:
        return self.modules.get(name, name)

    def _imports(self, module: str) -> Iterator[str]:
        for glob in self.python["imports"]:
            if fnmatch.fnmatchcase(module, glob) or fnmatch.fnmatchcase(module, f"{glob}.*"):
                yield f"import of {module} is not allowed"

    def _imports_from(self, node: ast.ImportFrom) -> Iterator[str]:
        module = node.module or ""
        yield from self._imports(module)
        for one in node.names:
            if one.name != "*":
                yield from self._imports(f"{module}.{one.name}")
                yield from self._member(one.name)
                yield from self._refers(f"{module}.{one.name}")
                yield from self._attribute(one.name)
            elif any(glob.startswith(f"{module}.") for glob in self.python["calls"]):
                yield f"all of {module} has what is not allowed"

    def _refers(self, whole: str) -> Iterator[str]:
        """A name, or a chain of them, that stands for something: called or not, it may be called later."""
        plain = whole.removeprefix("builtins.").removeprefix("__builtins__.")
        if "." not in plain:
            if self.names.fullmatch(plain):
                yield f"{plain} is not allowed"
            yield from self._attribute(plain)
            return
        steps = [one.lstrip("_") or one for one in plain.split(".")]  # tempfile._os is os
        for glob, count, compiled in self.chains:
            if compiled.fullmatch(".".join(steps[-count:])):
                yield f"{glob} is not allowed"

    def _attribute(self, name: str) -> Iterator[str]:
        if self.attributes.fullmatch(name):
            yield f"{name} is not allowed"

    def _member(self, name: str) -> Iterator[str]:
        """A module that another one has imported."""
        module = name.lstrip("_")
        if module in _UNMISTAKABLE:
            yield from self._imports(module)

    def _reaches(self, node: ast.Attribute) -> Iterator[str]:
        yield from self._attribute(node.attr)
        yield from self._member(node.attr)
        chain = self._chain(node)
        if id(node) not in self.asked:
            if chain == "sys.modules":
                yield from self._unknown("the table of all modules")
            if node.attr == "__dict__" and self._may_be_module(node.value):
                yield from self._unknown("the table of a module's names")
        if chain:
            yield from self._refers(chain)
            if self.modules.get(chain.partition(".")[0], "") or chain.partition(".")[0] in self.imported:
                return
        yield from self._of_something(node.attr)

    def _of_something(self, name: str) -> Iterator[str]:
        """A member of who knows what: of a module that is here, perhaps."""
        for glob, _, _ in self.chains:
            module, _, member = glob.rpartition(".")
            if module.partition(".")[0] in self.imported and fnmatch.fnmatchcase(name, member):
                yield f"{name} of what may be {module} is not allowed"
        if "builtins" in self.imported and self.names.fullmatch(name):
            yield f"{name} of what may be builtins is not allowed"

    def _chain(self, node: ast.AST) -> str:
        """`os.path.join` as one text, aliases resolved; "" when it begins with anything but a name."""
        steps: list[str] = []
        while isinstance(node, ast.Attribute):
            steps.append(node.attr)
            node = node.value
            if len(steps) > _STEPS_MAX:
                return ""
        if not isinstance(node, ast.Name):
            return ""
        begin = self._standing(node.id)
        if node.id not in self.modules:
            value = self.texts.get(node.id)
            if isinstance(value, ast.Name | ast.Attribute):
                known = self._standing(value.id) if isinstance(value, ast.Name) else ""
                if known in self.imported:
                    begin = known
        return ".".join([begin, *reversed(steps)])

    def _may_be_module(self, node: ast.AST) -> bool:
        """Of what is not known it may, where there are modules to be had."""
        if isinstance(node, ast.Name):
            if node.id in self.modules or node.id in _OWN:
                return node.id in self.modules
            if node.id in self.texts:
                value = self.texts[node.id]
                return isinstance(value, ast.Name | ast.Attribute) and self._may_be_module(value)
        return not isinstance(node, ast.Call | ast.Constant) and bool(self.roots & self.imported)

    def _calls(self, node: ast.Call) -> Iterator[str]:
        name = _last(node.func)
        is_table = name in _TABLES and isinstance(node.func, ast.Name) and id(node) not in self.asked
        if is_table and (not node.args or self._may_be_module(node.args[0])):
            yield from self._unknown("a table of names")
        stands = self._standing(name).rpartition(".")[2] if isinstance(node.func, ast.Name) else name
        if stands in _BY_NAME:
            yield from self._by_name(node, stands)
        if stands in _IMPORTING:
            value = self._text(node.args[0] if node.args else _keyword(node, "name"))
            if value is None:
                yield from self._unknown("a module whose name is not written down")
            else:
                yield from self._imports(value)
        if stands in _RUNNING and isinstance(node.func, ast.Name):
            value = self._text(node.args[0] if node.args else _keyword(node, "source"))
            if value is None:
                yield from self._unknown("code that is made when it runs")
            elif self.depth >= _DEPTH_MAX:
                yield "code within code within code is not allowed"
            else:
                yield from problems(value, self.rules, self.depth + 1)

    def _by_name(self, node: ast.Call, function: str) -> Iterator[str]:
        place = _BY_NAME[function]
        if function in ("attrgetter", "methodcaller"):
            given = node.args if function == "attrgetter" else node.args[:1]
        else:
            given = node.args[place:][:1] if place >= 0 else node.args[-1:]
        if not given:
            yield from self._unknown("an attribute whose name is not written down")
        for one in given:
            value = self._text(one)
            if value is None:
                yield from self._unknown("an attribute whose name is not written down")
            else:
                for step in value.split("."):
                    yield from self._named(step)

    def _named(self, name: str) -> Iterator[str]:
        yield from self._attribute(name)
        yield from self._of_something(name)
        if self.names.fullmatch(name):
            yield f"{name} is not allowed"

    def _looks_up(self, node: ast.Subscript) -> Iterator[str]:
        """`vars(os)["system"]`, `globals()["__builtins__"]`, `sys.modules["os"]`."""
        owner = node.value
        is_table = _last(owner) in _TABLE_NAMES
        if isinstance(owner, ast.Call):
            is_table = is_table or _last(owner.func) in _TABLES
        if isinstance(owner, ast.Name) and isinstance(
            made := self.texts.get(owner.id), ast.Call | ast.Attribute
        ):
            is_table = (
                is_table or _last(made.func if isinstance(made, ast.Call) else made) in _TABLES | _TABLE_NAMES
            )
        if not is_table:
            return
        value = self._text(node.slice)
        if value is None:
            yield from self._unknown("a name that is not written down")
            return
        yield from self._named(value)
        yield from self._imports(value)

    def _text(self, node: ast.AST | None) -> str | None:
        """What it will be; None when that is not known."""
        if node is None:
            return None
        try:
            value = folding.fold(node, self.texts)
        except Unknown:
            return None
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value if isinstance(value, str) else None

    def _unknown(self, what: str) -> Iterator[str]:
        if not self.python["dynamic"]:
            yield f"{what} is not allowed"


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _plain(globs: Sequence[str]) -> list[str]:
    return [one for one in globs if "." not in one]


def _keyword(node: ast.Call, name: str) -> ast.AST | None:
    return next((one.value for one in node.keywords if one.arg == name), None)
