"""Extended attributes of files in a workspace, out of it and in again, by a sealed child with the rights of its owner.

Only those that its owner may give and take as they like, `user.*`, are carried. What the kernel or the host's policy
reads is named and left out.
"""

import contextlib
import errno
import os

_OWN = "user."
_POLICY = ("security.selinux",)  # every file of a host that has one has it, and gets it anew
_MOST_BYTES = 48 * 1024  # of one file, with their names: they are a header of the stream
_NONE = (errno.ENOTSUP, errno.ENODATA, errno.EPERM)


class Found:
    def __init__(self, fd: int) -> None:
        """Of an open file or directory. `left`: why some are left out, in words."""
        self.own: tuple[tuple[str, bytes], ...] = ()
        self.left: list[str] = []
        try:
            names = os.listxattr(fd)
        except OSError as error:
            if error.errno not in _NONE:
                raise
            return
        held: list[tuple[str, bytes]] = []
        size = 0
        for name in names:
            if not name.startswith(_OWN):
                self.left += [] if name in _POLICY else [f"its {name[:100]} is left out"]
            elif "=" in name:
                self.left.append("an attribute with = in its name is left out")
            else:
                with contextlib.suppress(OSError):  # gone meanwhile
                    value = os.getxattr(fd, name)
                    size += len(os.fsencode(name)) + len(value)
                    held.append((name, value))
        if size > _MOST_BYTES:
            self.left.append(f"its attributes are {size} bytes, and are left out")
        else:
            self.own = tuple(held)


def give(fd: int, own: tuple[tuple[str, bytes], ...]) -> None:
    """Raises OSError, as where the file system keeps none."""
    for name, value in own:
        if name.startswith(_OWN):
            os.setxattr(fd, name, value)
