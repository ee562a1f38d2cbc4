"""The terminal while a command elsewhere has it: raw, with its size told, and as it was before whatever happens."""

import codecs
import contextlib
import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from typing import Any

from agentk.cli import columns

_WORDS = "HHHH"


class Ended(BaseException):
    """We are told to end by a signal; what is to be put back is put back on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int) -> tuple[int, int]:
    """Columns and rows; 80 and 24 where nobody knows."""
    try:
        rows, columns, _, _ = struct.unpack(_WORDS, fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        rows = columns = 0
    return (columns, rows) if columns and rows else (80, 24)


class Shown:
    """What others write, as text that a terminal shows and does not obey; what is no terminal gets it as it came.

    Piece by piece, of each descriptor by itself: a letter may come in two.
    """

    def __init__(self) -> None:
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}

    def __call__(self, fd: int, data: bytes) -> bytes:
        if not is_terminal(fd):
            return data
        decoder = self._decoders.setdefault(fd, codecs.getincrementaldecoder("utf-8")("replace"))
        text = decoder.decode(data).replace("\r\n", "\n")
        return columns.marked(text, lambda letter: repr(letter)[1:-1]).encode()


@contextlib.contextmanager
def raw(fd: int) -> Iterator[int]:
    """While entered, what is typed is passed on as it is. A descriptor that is readable when the size has changed.

    A signal that would end us does so by `Ended`, so that the terminal is put back.
    """
    before = termios.tcgetattr(fd)
    told, tells = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def changed(number: int, _frame: object) -> None:
        if number == signal.SIGCONT:  # the shell has put the terminal back meanwhile
            tty.setraw(fd, termios.TCSANOW)
        with contextlib.suppress(BlockingIOError):
            os.write(tells, b"r")

    def end(number: int, _frame: object) -> None:
        raise Ended(number)

    handlers: dict[int, Any] = {signal.SIGWINCH: changed, signal.SIGCONT: changed}
    handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT), end)
    had = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield told
    finally:
        with contextlib.suppress(termios.error):  # the terminal itself has gone
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in had.items():
            signal.signal(number, handler)
        os.close(told)
        os.close(tells)
