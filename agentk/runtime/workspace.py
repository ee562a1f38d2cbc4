"""Where each agent's /workspace is, and what limits it. It outlives the agent's boxes.

In order: a project quota where the file system enforces it; a sized tmpfs when it is small and may be lost; an ext4
image; a tmpfs without root or loop devices (its pages count against the agent's memory); a plain directory, whose
limit is then not enforced and said so. What was chosen for an agent stays, for its files are there.

No path inside of a workspace is ever opened here: a guest made it.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from agentk.runtime import kernel, workspace_image, workspace_quota, workspace_removal, workspace_tmpfs

Medium = Literal["quota", "image", "tmpfs", "directory"]
TMPFS_SMALL_BYTES = 64 * 1024 * 1024  # of memory, for what may be lost
SWEEP_SECONDS = 0.05  # of one `remove`; a guest can leave a million files
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_FILES = "files"
_RECORD = "workspace.json"


@dataclass(frozen=True)
class Workspace:
    """`path` is the directory of the files with "quota" and "directory", else of their administration only."""

    path: Path
    medium: Medium
    unenforced: str = ""  # why the limit is not held, and how to mend it


@dataclass(frozen=True)
class _Record:
    medium: Medium
    host_uid: int
    size_bytes: int  # 0: no limit


class Workspaces:
    """All workspaces below `state`/workspaces. `holder_fd`: what `holder_fd` of an earlier launcher's was."""

    def __init__(self, state: Path, *, root: bool, holder_fd: int = -1) -> None:
        self._base = state / "workspaces"
        self._templates = self._base / ".templates"
        self._trash = self._base / ".trash"
        self._root = root
        self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = os.lstat(self._base)
        if stat.st_uid != os.geteuid() or stat.st_mode & 0o170077 != 0o040000:
            # whoever else can write here could send us, who may be root, anywhere
            raise PermissionError(f"{self._base} must be a directory of uid {os.geteuid()} with mode 0700")
        self._holder = workspace_tmpfs.Holder(self._base, holder_fd)
        self._why: dict[str, str] = {}

    @property
    def holder_fd(self) -> int:
        """The mount namespace that holds every tmpfs; -1 when there is none. Hand it to the next launcher."""
        return self._holder.fd

    @property
    def users_fd(self) -> int:
        """Without root: the user namespace a box's child must enter before `attach`; -1 when any will do."""
        return self._holder.users

    def why_not(self) -> dict[str, str]:
        """Medium → why it cannot limit a workspace here; "" for those that can."""
        media: list[Medium] = ["quota", "image", "tmpfs"]
        return {medium: self._cached(medium) for medium in media}

    def ensure(
        self, uid: str, host_uid: int, size_bytes: int | None, *, ephemeral: bool = False
    ) -> Workspace:
        """Make it, or find it again and give it this size. Raises OSError when it cannot be made at all.

        `ephemeral`: may be lost when the machine or every process of agentk ends. `host_uid` -1: our own.
        """
        owner = os.geteuid() if host_uid < 0 else host_uid
        folder = self._folder(uid)
        folder.mkdir(mode=0o700, exist_ok=True)
        size = size_bytes or 0
        record = self._read(folder)
        if (
            record is None
            or not self._is_there(uid, record)
            or (size and self._is_empty_directory(uid, record))
        ):
            return self._make(uid, owner, size, ephemeral)
        problem = ""
        if record.medium == "image":
            workspace_image.check(folder)
        if record.size_bytes != size:
            problem = self._resize(uid, record, size)
            if not problem:
                self._write(folder, _Record(record.medium, record.host_uid, size))
        if record.medium == "directory" and size:
            problem = self._why_directory()
        return self._answer(uid, record.medium, problem)

    def attach(self, uid: str, target: Path) -> None:
        """Mount it at `target`. Called in a forked child in a new private mount namespace, still privileged.

        Without root: privileged in the user namespace `users_fd`, entered by setns before the mount namespace is made.
        """
        folder = self._folder(uid)
        record = self._read(folder)
        if record is None:
            raise FileNotFoundError(f"no workspace {uid}")
        if record.medium == "image":
            workspace_image.attach(folder, target, record.host_uid)
        elif record.medium == "tmpfs":
            self._holder.attach(uid, target)
        else:
            kernel.mount(folder / _FILES, target, flags=kernel.MS_BIND)
            flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_NOSUID | kernel.MS_NODEV
            kernel.mount("none", target, flags=flags)

    def owner(self, uid: str) -> int | None:
        """The host uid its files belong to; None when there is none."""
        record = self._read(self._folder(uid))
        return record.host_uid if record else None

    def folder(self, uid: str) -> Path | None:
        """The directory of its files where they are in one of ours; None where it has to be mounted."""
        record, folder = self._read(self._folder(uid)), self._folder(uid) / _FILES
        return folder if record and record.medium in ("quota", "directory") else None

    def tree(self, uid: str) -> int:
        """For a child that may not `attach` it, without root: its mount as a descriptor, -1 when `attach` will do."""
        record = self._read(self._folder(uid))
        return self._holder.tree(uid) if record and record.medium == "tmpfs" and self.users_fd >= 0 else -1

    def used_bytes(self, uid: str) -> int | None:
        """What it holds now; None when there is none or nobody counts (a plain directory)."""
        record = self._read(self._folder(uid))
        if record is None or record.medium == "directory":
            return None
        try:
            if record.medium == "tmpfs":
                return self._holder.used(uid)
            if record.medium == "image":
                return workspace_image.used(self._folder(uid))
            return workspace_quota.used(self._base, record.host_uid)
        except OSError:
            return None

    def remove(self, uid: str) -> None:
        """Forget it and its files. Removing nothing succeeds. What takes longer is left to `sweep`."""
        folder = self._folder(uid)
        record = self._read(folder)
        if record is not None and record.medium == "tmpfs":
            self._holder.remove(uid)
        workspace_removal.throw_away(folder, self._trash)
        if record is not None and record.medium == "quota":
            workspace_quota.forget(self._base, record.host_uid)
        self.sweep(SWEEP_SECONDS)

    def sweep(self, seconds: float) -> bool:
        """Go on deleting for so long; True when nothing is left to delete."""
        return workspace_removal.sweep(self._trash, seconds)

    def listing(self) -> list[str]:
        """Uids of all agents that have one."""
        return sorted(name for name in os.listdir(self._base) if _UID.fullmatch(name))

    def close(self) -> None:
        """Let go of what this process holds; files stay, a tmpfs stays only with another holder."""
        self._holder.close()

    # choosing

    def _make(self, uid: str, owner: int, size: int, ephemeral: bool) -> Workspace:
        folder = self._folder(uid)
        small = ephemeral and size <= TMPFS_SMALL_BYTES
        order: list[Medium] = ["quota", "tmpfs", "image"] if small else ["quota", "image", "tmpfs"]
        failures: list[str] = []
        for medium in order if size else ():
            if self._cached(medium):
                continue
            try:
                self._make_as(medium, uid, owner, size)
            except OSError as error:
                failures.append(f"{medium}: {error.strerror or error}")
                continue
            self._write(folder, _Record(medium, owner, size))
            return self._answer(uid, medium)
        self._make_as("directory", uid, owner, size)
        self._write(folder, _Record("directory", owner, size))
        return self._answer(uid, "directory", self._why_directory(failures) if size else "")

    def _make_as(self, medium: Medium, uid: str, owner: int, size: int) -> None:
        folder = self._folder(uid)
        if medium == "tmpfs":
            self._holder.make(uid, owner, size)
        elif medium == "image":
            self._templates.mkdir(mode=0o700, exist_ok=True)
            workspace_image.make(folder, self._templates, size)
        else:
            files = folder / _FILES
            files.mkdir(mode=0o700, exist_ok=True)
            if medium == "quota":
                workspace_quota.limit(files, owner, size)
            os.chown(files, owner, owner)

    def _resize(self, uid: str, record: _Record, size: int) -> str:
        folder = self._folder(uid)
        try:
            if record.medium == "directory":
                return ""
            if not size:
                return "a workspace made with a limit keeps one"
            if record.medium == "quota":
                workspace_quota.limit(folder / _FILES, record.host_uid, size)
            elif record.medium == "tmpfs":
                self._holder.make(uid, record.host_uid, size)
            else:
                return workspace_image.resize(folder, size, record.size_bytes)
        except OSError as error:
            return str(error.strerror or error)
        return ""

    def _is_there(self, uid: str, record: _Record) -> bool:
        """A tmpfs is gone after a reboot; a crash may have come before the files."""
        if record.medium == "tmpfs":
            return self._holder.has(uid)
        name = workspace_image.IMAGE if record.medium == "image" else _FILES
        return (self._folder(uid) / name).exists()

    def _is_empty_directory(self, uid: str, record: _Record) -> bool:
        """Then the host may have been mended since, and a better medium costs nobody a file."""
        return record.medium == "directory" and not os.listdir(self._folder(uid) / _FILES)

    def _cached(self, medium: Medium) -> str:
        """Why a medium cannot be used on this host; "" when it can."""
        if medium not in self._why:
            if medium == "tmpfs":
                self._why[medium] = self._holder.why_not()
            elif not self._root:
                self._why[medium] = "needs root"
            elif medium == "image":
                self._why[medium] = workspace_image.why_not(self._base / ".probe")
            else:
                self._why[medium] = workspace_quota.why_not(self._base)
        return self._why[medium]

    def _why_directory(self, failures: Sequence[str] = ()) -> str:
        media: list[Medium] = ["quota", "image", "tmpfs"]
        reasons = [f"{medium}: {self._cached(medium)}" for medium in media if self._cached(medium)]
        return "storage: nothing here limits a directory (" + "; ".join([*reasons, *failures]) + ")"

    def _answer(self, uid: str, medium: Medium, problem: str = "") -> Workspace:
        folder = self._folder(uid)
        path = folder / _FILES if medium in ("quota", "directory") else folder
        if problem and not problem.startswith("storage: "):
            problem = f"storage: {problem}"
        return Workspace(path, medium, problem)

    # the record

    def _folder(self, uid: str) -> Path:
        if not _UID.fullmatch(uid):
            raise ValueError(f"{uid!r} cannot name a workspace")
        return self._base / uid

    def _read(self, folder: Path) -> _Record | None:
        try:
            return _Record(**json.loads((folder / _RECORD).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, folder: Path, record: _Record) -> None:
        """After the files: what has no record is made anew."""
        scratch = folder / "record.new"
        with scratch.open("w") as out:
            out.write(json.dumps(asdict(record)))
            out.flush()
            os.fsync(out.fileno())
        scratch.rename(folder / _RECORD)
