"""A Python that waits, with its modules imported, for the one program it then becomes.

It runs inside a box of its own, hears one order from the launcher, and is that program from then on. What a program
can ask about itself answers as if `python` had been started for it, so what the wait needed is gone before it begins.
What cannot be had late (flags, variables that the interpreter or libc reads at their start, another program) is had by
exec: the real thing, and only slower. It must never run two programs, nor outlive a launcher that told it none.

What still tells: the program's outermost frame has a caller, modules imported while waiting are there, and the box's
init has another command line, another environment and a socket that leads nowhere any more.
"""

# imported before anybody can look, and with nothing that would be seen afterwards
import os
import sys

CHANNEL = 3  # where the launcher is heard, unless it listens at a path
UNTOLD = 125  # as of a box that never heard its word
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_READ_BYTES = 1 << 16
_WORDS_MAX = 1000
# Read before a program begins, by the interpreter, the loader or a library.
_EARLY = ("PYTHON", "LD_", "LC_", "MALLOC_", "OPENSSL_")
_EARLY_NAMES = ("LANG", "HOME", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH")
_SHELLS_OWN = ("PWD", "SHLVL", "_")  # what the shell that starts every box adds
_OURS = "/opt/"  # below it nobody writes but agentk
_MACHINERY = ("agentk", "agentk.sdk", __name__)
# of struct prctl_mm_map, in its order, the fields of /proc/self/stat; None: the break, which is not told there
_MAP_FIELDS = (26, 27, 45, 46, 47, None, 28, 48, 49, 50, 51)
_BREAK, _SHOWN = 5, slice(7, 11)
_PR_SET_NAME, _PR_SET_MM, _PR_SET_MM_MAP = 15, 35, 14


class Order:
    """What to become."""

    def __init__(self, data: bytes) -> None:
        fields = [os.fsdecode(field) for field in data.split(b"\0")]
        count = int(fields[1])
        self.cwd = fields[0]
        self.argv = fields[2 : 2 + count]
        pairs = [field.partition("=") for field in fields[2 + count :] if field]
        self.env = {name: value for name, _, value in pairs}


def main(at: str = "") -> None:
    """Wait, and become what is told. Returns when a program that runs in here has returned.

    `at`: the socket at which the launcher listens; "" when it is at CHANNEL already.
    """
    path, loaded = sys.path[1:], set(sys.modules).difference(_MACHINERY)
    tell, hear, collect = _listen(at)
    for name in set(sys.modules) - loaded:
        module = sys.modules.pop(name)
        if name.partition(".")[0] == "ctypes":
            vars(module).clear()  # or all of it stays, to be taken down at the program's end
    for name in sys.argv[1:]:
        try:
            __import__(name)
        except BaseException as error:  # noqa: BLE001 (whatever a module raises, nobody can use this box)
            tell(f"cannot import {name}: {type(error).__name__}: {error}")
            os._exit(UNTOLD)
    collect()  # now, and not at the program's end
    tell("")
    order = hear()
    del tell, hear, collect
    _become(order, path)


def _listen(at: str):  # type: ignore[no-untyped-def]  # what it needs is nobody else's to know of
    """How to tell the launcher that we wait ("") or why we cannot, and how to hear the order; what collects garbage."""
    import _socket
    import gc

    if at:
        channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        channel.connect(at)
    else:
        os.set_inheritable(CHANNEL, False)
        channel = _socket.socket(fileno=CHANNEL)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
    space = _socket.CMSG_SPACE(4 * 4)

    def tell(problem: str) -> None:
        text = "".join(word for word in problem.replace('"', "'") if " " <= word <= "~" and word != "\\")
        channel.send(('{"error": "%s"}' % text[:_WORDS_MAX] if problem else "w").encode() + b"\n")

    def hear() -> Order:
        data, ancillary, _, _ = channel.recvmsg(1, space)
        fds: list[int] = []
        for level, kind, content in ancillary:
            if (level, kind) == rights:
                places = range(0, len(content), 4)
                fds += [int.from_bytes(content[at : at + 4], sys.byteorder) for at in places]
        if not data or not fds:
            os._exit(UNTOLD)
        channel.close()
        order = Order(_read_all(fds[0]))
        for number, fd in enumerate(fds[1:]):
            os.dup2(fd, number)
            os.close(fd)
        _take_shells_own(order)
        show(order)
        return order

    try:
        show = _face()  # type: ignore[no-untyped-call]
    except OSError as error:
        tell(str(error))
        os._exit(UNTOLD)
    return tell, hear, gc.collect


def _face():  # type: ignore[no-untyped-def]
    """How to change what /proc tells: the command line and the environment, which the launcher reads there."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    prctl, sbrk, room, copy, error_number = libc.prctl, libc.sbrk, libc.malloc, libc.memcpy, ctypes.get_errno
    sbrk.restype = room.restype = ctypes.c_void_p
    sbrk.argtypes, room.argtypes = [ctypes.c_ssize_t], [ctypes.c_size_t]
    copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    prctl.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start = [int(fields[at - 3]) if at else 0 for at in _MAP_FIELDS]
    no_executable = 0xFFFFFFFF << 32 if sys.byteorder == "little" else 0xFFFFFFFF
    record = (ctypes.c_uint64 * 13)(*start, 0, no_executable)
    size = ctypes.sizeof(record)

    def show(order: Order) -> None:
        words = b"".join(os.fsencode(word) + b"\0" for word in order.argv)
        pairs = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in order.env.items())
        begin = room(len(words + pairs) + 1)  # as long as the process
        copy(begin, words + pairs + b"\0", len(words + pairs) + 1)
        record[_SHOWN] = [begin, begin + len(words), begin + len(words), begin + len(words + pairs)]
        tell()
        prctl(_PR_SET_NAME, os.fsencode(order.argv[0].rpartition("/")[2]), None, 0, 0)

    def tell() -> None:
        record[_BREAK] = sbrk(0)
        if prctl(_PR_SET_MM, _PR_SET_MM_MAP, record, size, 0) != 0:
            raise OSError(error_number(), "this kernel lets no process change its command line")

    tell()  # as it is: a kernel that cannot says so now
    return show


def _read_all(file: int) -> bytes:
    data = b""
    while True:
        more = os.read(file, _READ_BYTES)
        if not more:
            os.close(file)
            return data
        data += more


def _given() -> dict[str, str]:
    """The environment this process was started with; what Python set since is not in it."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [os.fsdecode(pair).partition("=") for pair in file.read().split(b"\0") if pair]
    return {name: value for name, _, value in pairs}


_OWN = _given()
_BEGAN = set(sys.modules["__main__"].__dict__)


def _take_shells_own(order: Order) -> None:
    for name in _SHELLS_OWN:
        if name in _OWN:
            order.env.setdefault(name, order.cwd if name == "PWD" else _OWN[name])


def _become(order: Order, path: list[str]) -> None:
    try:
        os.chdir(order.cwd)
    except OSError as error:
        _refuse(order.cwd, error.strerror or "cannot be entered", _NOT_EXECUTABLE)
    program = _Program(order.argv)
    found = _python(order)
    if not found or not program.kind or _is_early(order.env):
        _execute(order)
    code = None if program.kind == "-m" else program.compile()  # type: ignore[no-untyped-call]
    if code is None and program.kind == "":
        _execute(order)
    _set_environment(order.env)
    if sys.executable != found:
        sys.executable = sys._base_executable = found  # type: ignore[attr-defined]
    sys.argv[:] = program.argv
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = order.argv
    sys.path[:] = [program.folder(), *path]
    sys.path_importer_cache.clear()
    if program.unbuffered:
        _unbuffer()
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()
    _run(code, program, order)


class _Program:
    """What `python` is to run, as its own command line says. `kind` "" is what is left to exec."""

    def __init__(self, argv: list[str]) -> None:
        rest = argv[1:]
        self.unbuffered = rest[:1] == ["-u"]
        rest = rest[self.unbuffered :]
        self.kind = self.text = self.file = ""
        self.argv: list[str] = []
        if rest[:1] in (["-c"], ["-m"]) and rest[1:]:
            self.kind, self.text, self.argv = rest[0], rest[1], [rest[0], *rest[2:]]
        elif rest and rest[0] and not rest[0].startswith("-"):
            self.kind, self.text, self.argv = "file", rest[0], rest

    def folder(self) -> str:
        """The first of sys.path."""
        if self.kind == "file":
            return os.path.dirname(os.path.realpath(self.text))
        return "" if self.kind == "-c" else os.getcwd()

    def compile(self):  # type: ignore[no-untyped-def]
        """The program's code. Of a file that is no plain source it is None, and `kind` is "" then."""
        if (
            self.kind == "-c"
        ):  # exec does it, and without the hundred types of syntax trees that compile() makes first
            return self.text
        self.kind, self.file = "", os.path.join(os.getcwd(), self.text)
        if self.text.endswith(".pyc") or not os.path.isfile(self.text):
            return None
        try:
            with open(self.text, "rb") as file:
                code = compile(file.read(), self.file, "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError):  # to be told of as it always is
            return None
        self.kind = "file"
        return code


def _python(order: Order) -> str:
    """Where the program is found that the order names, when that is this interpreter with nothing else around it."""
    name = order.argv[0]
    found = name if name.startswith("/") else ""
    if "/" not in name:
        places = order.env.get("PATH", os.defpath).split(":")
        found = next((path for path in (f"{at}/{name}" for at in places) if os.access(path, os.X_OK)), "")
    if found == sys.executable:
        return found
    same = bool(found) and os.path.realpath(found) == os.path.realpath(sys.executable)
    return found if same and not _is_virtual(found) and not _is_virtual(sys.executable) else ""


def _is_virtual(executable: str) -> bool:
    folder = os.path.dirname(executable)
    return any(os.path.exists(f"{at}/pyvenv.cfg") for at in (folder, os.path.dirname(folder)))


def _is_early(env: dict[str, str]) -> bool:
    """Whether this interpreter, started now, would have begun otherwise."""

    def read(of: dict[str, str]) -> dict[str, str]:
        return {name: of[name] for name in of if name.startswith(_EARLY) or name in _EARLY_NAMES}

    if read(env) != read(_OWN) or getattr(sys.flags, "safe_path", False):
        return True
    # code of the agent's own, which is run before its program or changes where that finds modules
    user = "%s/.local/lib/python%d.%d/site-packages" % (env.get("HOME", "~"), *sys.version_info[:2])
    paths = filter(None, env.get("PYTHONPATH", "").split(":"))
    return os.path.isdir(user) or not all(path.startswith(_OURS) for path in paths)


def _set_environment(env: dict[str, str]) -> None:
    coerced = {name: value for name, value in os.environ.items() if name not in _OWN}
    zone = os.environ.get("TZ")
    os.environ.clear()
    os.environ.update({**env, **coerced})
    if os.environ.get("TZ") != zone:
        import time

        time.tzset()


def _unbuffer() -> None:
    """As -u."""
    import io

    sys.stdin.reconfigure(write_through=True)  # type: ignore[union-attr]  # as pointless there as here
    for name in ("stdout", "stderr"):
        old = getattr(sys, name)
        raw = io.FileIO(old.fileno(), "wb", closefd=False)
        raw.name = f"<{name}>"
        new = io.TextIOWrapper(raw, old.encoding, old.errors, "\n", False, True)
        setattr(new, "mode", "w")  # noqa: B010 (typed as one that cannot be set)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    # the only flag that can be had late: everything in it stays as it was, but for one number
    text = repr(sys.flags).replace("unbuffered=0", "unbuffered=1")
    names = [part.split("=")[0] for part in text[len("sys.flags(") : -1].split(", ")]
    values = {**{name: getattr(sys.flags, name) for name in names}, "unbuffered": 1}
    space = {**values, "__slots__": (), "__repr__": lambda self: text, "__module__": "sys"}
    sys.flags = type("flags", (tuple,), space)(values[name] for name in names)


def _run(code, program: _Program, order: Order) -> None:  # type: ignore[no-untyped-def]
    """In this very interpreter, as its main module."""
    space = sys.modules["__main__"].__dict__
    for name in set(space) - _BEGAN:
        del space[name]
    if program.kind == "file":
        loader = sys.modules["_frozen_importlib_external"].SourceFileLoader
        space.update(
            __file__=program.file,
            __cached__=None,
            __loader__=loader("__main__", program.file),
        )
    try:
        if code is None:
            import runpy

            runpy._run_module_as_main(program.text)  # type: ignore[attr-defined]
        else:
            exec(code, space)
    except SystemExit:
        raise
    except BaseException as error:
        began = error.__traceback__ and error.__traceback__.tb_next
        if code is program.text and not began and isinstance(error, (SyntaxError, ValueError)):
            _execute(order)  # it is no program: to be told of as it always is
        _hide(error)
        raise


def _hide(error: BaseException) -> None:
    """Our own frames are not in what is told of an error that ends the program."""
    traceback = error.__traceback__.tb_next if error.__traceback__ else None
    told = sys.excepthook

    def tell(kind, value, _):  # type: ignore[no-untyped-def]
        value.__traceback__ = traceback
        told(kind, value, traceback)

    sys.excepthook = tell


def _execute(order: Order) -> None:
    """Another program in place of this one, or this one from its beginning."""
    import signal

    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and what is ignored stays so
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    name = order.argv[0]
    if "/" in name and not os.path.exists(name):
        _refuse(name, "not found", _NOT_FOUND)
    try:
        os.execvpe(name, order.argv, order.env)
    except FileNotFoundError:
        _refuse(name, "not found", _NOT_FOUND)
    except OSError:
        _refuse(name, "cannot be executed", _NOT_EXECUTABLE)


def _refuse(name: str, why: str, code: int) -> None:
    os.write(2, os.fsencode(f"agentk: {name}: {why}\n"))
    os._exit(code)
