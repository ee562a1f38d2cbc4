"""The three pipes of a program that is put into a box and spoken with from here."""

import os
from typing import Any


class Pipes:
    """`stdin`, `stdout` and `stderr` are the program's ends, the others ours."""

    def __init__(self, stdin: int, hears: int, says: int, stdout: int, said: int, stderr: int) -> None:
        self.stdin, self.hears, self.says, self.stdout = stdin, hears, says, stdout
        self.said, self.stderr = said, stderr

    @classmethod
    def made(cls) -> "Pipes":
        stdin, hears = os.pipe()
        says, stdout = os.pipe()
        said, stderr = os.pipe()
        return cls(stdin, hears, says, stdout, said, stderr)

    def close_theirs(self, _: Any) -> None:
        """Once the program is dead: then who reads hears the end."""
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)

    def close_ours(self) -> None:
        """Once another process has them; `said` is its reader's."""
        for fd in (self.says, self.hears):
            os.close(fd)
