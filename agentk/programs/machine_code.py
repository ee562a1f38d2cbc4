"""Runs one code routine of a machine, in a jail of its own: the routine's source is written around with this.

The routine is a function of one value. What it asks of the machine (`invoke`, `recall`, `remember`, `search`) ends it:
the machine answers, and runs it again from its beginning with all answers so far. So nothing of it has to stay, and it
should do nothing but reckon and ask. What it takes too much of is an error to its caller: bounds are set here, below
those of the jail. JavaScript runs in an engine that knows no file, no process and no network.

Python 3.9, standard library; the engine needs Python 3.10.
"""

from __future__ import annotations

import ast
import json
import re
import resource
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

MEMORY_BYTES = 192 * 1024 * 1024  # of addresses, beyond what the interpreter has at its beginning
JS_BYTES = 64 * 1024 * 1024
RESULT_LETTERS = 200_000
_READ_SECONDS = 10
ASKS = ("invoke", "recall", "remember", "search")

PREFIX = "exec:"
_LANGUAGE = re.compile(r"(javascript|js|python|py)[ \t]*(?:\n|(?=[^\w\s.=]))")
_ARROW = re.compile(r"(async\b\s*)?(\([^()]*(\([^()]*\)[^()]*)*\)|[A-Za-z_$][\w$]*)\s*=>")
_COMMENT = re.compile(r"(\s+|//[^\n]*\n|/\*.*?\*/)+", re.DOTALL)


class Unfit(Exception):
    """It is no routine, and why."""


class Refused(RuntimeError):
    """What it asked for failed: in the words of what it asked, for this may be the tenth that fails by it."""


class _Asks(BaseException):
    """Not to be caught by a routine that catches exceptions."""


def parted(text: str) -> Tuple[str, str]:
    """Language and source of a text that begins with `exec:`. JavaScript is an arrow function, or says so."""
    source = text.lstrip()[len(PREFIX) :].lstrip(" \t\r\n")
    named = _LANGUAGE.match(source)
    if named:
        told = "javascript" if named.group(1).startswith("j") else "python"
        return told, source[named.end() :].strip()
    space = _COMMENT.match(source)
    arrow = _ARROW.match(source, space.end() if space else 0)
    return "javascript" if arrow else "python", source.strip()


def routine(code: str) -> str:
    """Without the fence that models put around code, and with the word that says that it is code."""
    text = code.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        language, _, inner = text.partition("\n")
        named = language.strip("` \t").lower()
        text = inner[:-3].strip()
        if named in ("js", "javascript", "python", "py") and not text.startswith(PREFIX):
            text = f"{named}\n{text}"
    return text if text.startswith(PREFIX) else f"{PREFIX} {text}"


def program(text: str) -> str:
    """The Python that runs it. It reads `{"value", "answers", "mark", "cpuSeconds", "memoryBytes"}` from its standard
    input."""
    language, source = parted(text)
    if language == "javascript":
        return f"{_HEAD}_machine.javascript({source!r})\n"
    return f"{_HEAD}{_python(source)}\n_machine.python(globals())\n"


def _python(source: str) -> str:
    """Raises Unfit for what is no Python, or no function of one value."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unfit(f"this is no Python: {error}") from None
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        return f"run = ({source}\n)"
    if not any(isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) for one in tree.body):
        raise Unfit("there is no function in it: write def run(args), or lambda args: …")
    if not any(isinstance(one, ast.FunctionDef) and one.name == "run" for one in tree.body):
        named = [one.name for one in tree.body if isinstance(one, ast.FunctionDef)]
        if len(named) != 1:
            raise Unfit("which of its functions it is is not said: name it run")
        return f"{source}\nrun = {named[0]}"
    return source


# What the engine says when it is at its end: it has no room left to say more.
_WORDS = dict.fromkeys(("null", "InternalError: out of memory", "out of memory"), "it took too much memory")
_WORDS["InternalError: interrupted"] = "it took too much time"
_HEAD = """from agentk.programs import machine_code as _machine
invoke, recall, remember, search = _machine.begin()
"""


class _Run:
    def __init__(self) -> None:
        told = json.load(sys.stdin)
        self.value, self.mark = told.get("value"), str(told["mark"])
        self.answers: List[Dict[str, Any]] = list(told.get("answers") or ())
        self.cpu_seconds = int(told["cpuSeconds"])
        self.memory_bytes = min(int(told["memoryBytes"]), MEMORY_BYTES)
        self.checked = bool(told.get("check"))
        self.at = 0
        self.pending: Optional[Dict[str, Any]] = None

    def ask(self, what: str, given: Any) -> Any:
        """The answer, or the end of this run."""
        given = json.loads(json.dumps(given))
        if self.at == len(self.answers):
            self.pending = {"ask": what, "given": given}
            raise _Asks
        answer = self.answers[self.at]
        self.at += 1
        if (answer["ask"], answer["given"]) != (what, given):
            self.end({"error": "it asks for something else each time that it runs"})
        if "error" in answer:
            raise Refused(str(answer["error"]))
        return answer.get("result")

    def end(self, told: Dict[str, Any]) -> None:
        if self.pending:
            told = self.pending
        try:
            text = json.dumps(told, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            text = json.dumps({"error": f"what it returns is no JSON: {error}"})
        if len(text) > RESULT_LETTERS:
            text = json.dumps({"error": f"what it returns is too long: {len(text)} letters"})
        sys.stdout.write(f"\n{self.mark}{text}\n")
        sys.stdout.flush()
        sys.exit(0)


_runs: List[_Run] = []


def begin() -> List[Callable[..., Any]]:
    """Sets the bounds. What a routine may call, in the order of ASKS."""
    run = _Run()
    _runs.append(run)
    _goes_first()
    _bound(resource.RLIMIT_AS, run.memory_bytes + _used())
    _bound(resource.RLIMIT_CPU, run.cpu_seconds)
    sys.setrecursionlimit(2000)
    sys.excepthook = _failed

    def invoke(name: str, args: Any = None) -> Any:
        return run.ask("invoke", [name, args])

    def recall(name: str) -> Any:
        return run.ask("recall", [name])

    def remember(name: str, value: Any) -> Any:
        return run.ask("remember", [name, value])

    def search(query: str) -> Any:
        return run.ask("search", [query])

    return [invoke, recall, remember, search]


def python(names: Dict[str, Any]) -> None:
    """The function that was defined is called."""
    run = _runs[0]
    function = names.get("run")
    if not callable(function):
        run.end({"error": "it is no function"})
    if run.checked:
        run.end({"result": None})
    run.end({"result": function(run.value)})  # type: ignore[misc]


def javascript(source: str) -> None:
    """An arrow function, called; what it prints by console.log is printed."""
    run = _runs[0]
    engine: Any = _engine()
    if engine is None:
        run.end({"error": "there is no JavaScript here: the box needs CPython 3.10 or newer, and glibc"})
    _bound(resource.RLIMIT_CPU, run.cpu_seconds + 5)  # the engine says so itself, and better
    context = engine.Context()
    context.set_memory_limit(min(JS_BYTES, run.memory_bytes // 2))
    context.set_time_limit(run.cpu_seconds)
    try:
        context.eval(_SHIM)
        function = context.eval(f"({source.rstrip().rstrip(';')}\n)")
        call = context.eval("__call")
        given = json.dumps([run.value, run.answers, run.checked])
        call(function, given)
        while context.execute_pending_job():
            pass
        told = json.loads(context.eval("__told()"))
    except (engine.JSException, TypeError) as error:
        told = {"error": str(error).partition("\n")[0][:2000]}
    except MemoryError:
        told = {"error": "out of memory"}
    if "error" in told:
        told["error"] = _WORDS.get(told["error"], told["error"])
    for line in told.pop("printed", ()):
        print(line)
    run.end(told)


def main() -> int:
    """Code on our standard input, on our standard output as a routine. It is read, and nothing of it is run."""
    text = routine(sys.stdin.read())
    try:
        language, source = parted(text)
        program(text)
        if language == "javascript":
            _parse(source)
    except Unfit as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.write(text)
    return 0


def _parse(source: str) -> None:
    """Raises Unfit for what is no JavaScript, where there is an engine to tell."""
    engine: Any = _engine()
    if engine is None:
        return
    context = engine.Context()
    context.set_memory_limit(JS_BYTES)
    context.set_time_limit(_READ_SECONDS)
    try:
        context.eval(f"() => ({source.rstrip().rstrip(';')}\n)")
    except (engine.JSException, TypeError) as error:
        raise Unfit(f"this is no JavaScript: {str(error).partition(chr(10))[0][:500]}") from None
    except MemoryError:
        raise Unfit("this is too much JavaScript") from None


def _engine() -> Any:
    if sys.version_info < (3, 10) or sys.implementation.name != "cpython":
        return None  # not what it is built for: it may load, and break
    for name in ("agentk.programs._quickjs", "_quickjs"):
        try:
            return __import__(name, fromlist=["Context"])
        except ImportError:
            continue
    return None


def _failed(kind: type, error: BaseException, trace: Any) -> None:
    """A routine that ends with an exception: its caller is told, in a line."""
    said = f"{kind.__name__}: {error}" if str(error) else kind.__name__
    if issubclass(kind, MemoryError):
        said = "it took too much memory"
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<string>":
            line = trace.tb_lineno - _HEAD.count("\n")
        trace = trace.tb_next
    told = str(error) if issubclass(kind, Refused) else f"line {line}: {said}"
    try:
        _runs[0].end({"error": told[:2000]})
    except SystemExit:
        return


def _bound(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    low = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (low, hard))


def _goes_first() -> None:
    """When the box has no memory left, this and what it starts is ended before the machine is. A box may not let us."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass


def _used() -> int:
    """Addresses that the interpreter has already."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 64 * 1024 * 1024


_SHIM = """
const __run = {at: 0, printed: [], letters: 0};
const console = {log: (...said) => {
  const line = said.map(one => typeof one === "string" ? one : JSON.stringify(one)).join(" ");
  if (__run.letters < 100000) { __run.letters += line.length; __run.printed.push(line.slice(0, 100000)); }
}};
const __ask = (what, given) => {
  const told = JSON.stringify(given, (key, value) => value === undefined ? null : value);
  if (__run.at === __run.answers.length) {
    __run.pending = __run.pending || {ask: what, given: JSON.parse(told)};
    throw new Error("it asks, and does not catch this");
  }
  const answer = __run.answers[__run.at++];
  if (answer.ask !== what || JSON.stringify(answer.given) !== told) {
    __run.other = true;
    throw new Error("it asks for something else each time that it runs");
  }
  if ("error" in answer) throw Object.assign(new Error(answer.error), {name: "Refused"});
  return answer.result === undefined ? null : answer.result;
};
const invoke = (name, args = null) => __ask("invoke", [name, args]);
const recall = name => __ask("recall", [name]);
const remember = (name, value) => __ask("remember", [name, value]);
const search = query => __ask("search", [query]);
const __call = (routine, given) => {
  const [value, answers, checked] = JSON.parse(given);
  __run.answers = answers;
  if (typeof routine !== "function") { __run.error = "it is no function"; return; }
  if (checked) { __run.done = true; return; }
  const failed = error => { __run.error = error instanceof Error
    ? (error.name === "Refused" ? error.message : `${error.name}: ${error.message}`) : String(error); };
  const kept = result => { __run.text = JSON.stringify(result === undefined ? null : result); __run.done = true; };
  try {
    const result = routine(value);
    if (result instanceof Promise) result.then(kept).catch(failed); else kept(result);
  } catch (error) { failed(error); }
};
const __told = () => {
  const told = {printed: __run.printed};
  if (__run.pending) Object.assign(told, __run.pending);
  else if (__run.other) told.error = "it asks for something else each time that it runs";
  else if (__run.error !== undefined) told.error = __run.error;
  else if (!__run.done) told.error = "it waits for something that never comes";
  else told.result = __run.text === undefined ? null : JSON.parse(__run.text);
  return JSON.stringify(told);
};
"""

if __name__ == "__main__":
    sys.exit(main())
