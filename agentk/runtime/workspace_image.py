"""/workspace as an ext4 image without a journal, on a loop device: the limit is the size of the file system.

Nothing is held mounted. A box mounts the image in its own mount namespace and the kernel takes everything down with
the last box (autoclear); several boxes share one loop device, because two on one image destroy it. An image costs
about 0.3 ms to make from its template and 2 ms to mount.
"""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from agentk.runtime import kernel

IMAGE = "image.ext4"
LOOP = "loop"  # beside it: the number of the device it was last attached to
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO = struct.Struct("QQQQQIIII64s64s32s16x")
_AUTOCLEAR = 4
_BLOCK = 4096
_INODE_BYTES = 8192  # one inode for each so many bytes: 128 MiB holds 16,000 files
_STATE_OFFSET = 1024 + 58  # s_state of the superblock
_CLEAN = 1
_MAX_BYTES = 64 * 1024**3  # mke2fs: 0.15 s, in which the launcher does nothing else
_PROBE_BYTES = 1024 * 1024
_TRIES = 20  # another process may take the free loop device first
_TOOLS_SECONDS = 120.0
_FIX = "apt-get install e2fsprogs"
_OPTIONS = "discard,errors=remount-ro"  # discard: the file's blocks tell what is used


def tool(name: str) -> str:
    """Path of one of e2fsprogs' programs, "" when it is missing; people's PATH often lacks /sbin."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or ""


def why_not(scratch: Path) -> str:
    """Why images cannot be used here, by making and mounting a small one in `scratch`; "" when they can."""
    lacking = [name for name in ("mke2fs", "e2fsck") if not tool(name)]
    if lacking:
        return f"no {' and no '.join(lacking)}; {_FIX}"
    target = scratch / "target"
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        make(scratch, scratch, _PROBE_BYTES)
        words = _in_child(lambda: _try_attach(scratch, target))
    except OSError as error:
        words = str(error.strerror or error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return f"no loop mount: {words}; modprobe loop (in a container: --privileged)" if words else ""


def _try_attach(folder: Path, target: Path) -> None:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    attach(folder, target, os.geteuid())


def _in_child(act: Callable[[], None]) -> str:
    """The words of the error that `act` raised in a forked child, "" when it did not."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            os.write(writing, b"ok")
        except OSError as error:
            os.write(writing, f"{error.strerror or error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        words = answer.read().decode()
    os.waitpid(child, 0)
    return "" if words == "ok" else words or "the child died"


def make(folder: Path, templates: Path, size: int) -> None:
    """An empty image in which about `size` bytes fit. Raises OSError."""
    if size > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"over {_MAX_BYTES >> 30} GiB: making it would hold everyone up")
    template = templates / f"{size}.ext4"
    if not template.exists():
        _make_template(template, size)
    scratch = folder / "new"
    _copy_sparse(template, scratch)
    scratch.chmod(0o600)
    scratch.rename(folder / IMAGE)


def _make_template(template: Path, size: int) -> None:
    scratch = template.with_suffix(".new")
    file_bytes = max(size, 256 * 1024)
    # The kernel keeps 2 % back, and tables take their part: the second round makes up for both.
    for _ in range(2):
        scratch.unlink(missing_ok=True)
        with scratch.open("wb") as file:
            file.truncate(file_bytes)
        options = ["-b", str(_BLOCK), "-m", "0", "-i", str(_INODE_BYTES), "-O", "^has_journal,^resize_inode"]
        extended = ["-E", "lazy_itable_init=1,nodiscard", "-e", "remount-ro"]
        _run([tool("mke2fs"), "-q", "-F", "-t", "ext4", *options, *extended, str(scratch)])
        lost = file_bytes - _free_bytes(scratch)
        file_bytes = (size + lost) * 103 // 100 // _BLOCK * _BLOCK
    scratch.rename(template)


def _free_bytes(image: Path) -> int:
    with image.open("rb") as file:
        file.seek(1024)
        superblock = file.read(1024)
    return int(struct.unpack_from("<I", superblock, 12)[0]) * _BLOCK


def _copy_sparse(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        end = reading.seek(0, os.SEEK_END)
        writing.truncate(end)
        position = 0
        while position < end:
            try:
                position = os.lseek(reading.fileno(), position, os.SEEK_DATA)
            except OSError:
                break  # only a hole is left
            stop = os.lseek(reading.fileno(), position, os.SEEK_HOLE)
            while position < stop:
                data = os.pread(reading.fileno(), min(stop - position, 1 << 20), position)
                position += os.pwrite(writing.fileno(), data, position)


def resize(folder: Path, size: int, before: int) -> str:
    """Grow or shrink an image that nobody uses. Why it stayed as it was, "" when it did not."""
    image = folder / IMAGE
    if _in_use(folder):
        return "it is in use; the new size holds from the next start"
    if not tool("resize2fs"):
        return f"no resize2fs; {_FIX}"
    whole = image.stat().st_size
    wanted = max(256 * 1024, whole * size // before // _BLOCK * _BLOCK)
    try:
        _run([tool("e2fsck"), "-f", "-p", str(image)], accepted=(0, 1))
        if wanted > whole:
            os.truncate(image, wanted)
        _run([tool("resize2fs"), str(image), f"{wanted // 1024}K"])
        os.truncate(image, wanted)
    except OSError as error:
        return f"more is used than the new size allows ({error.strerror})" if wanted < whole else str(error)
    return ""


def check(folder: Path) -> None:
    """Mend an image that was not unmounted (power loss). Raises OSError when it cannot be mended."""
    image = folder / IMAGE
    with image.open("rb") as file:
        file.seek(_STATE_OFFSET)
        clean = struct.unpack("<H", file.read(2))[0] & _CLEAN
    if clean or _in_use(folder, wait_seconds=0):
        return
    try:
        _run([tool("e2fsck"), "-p", str(image)], accepted=(0, 1))
    except OSError:
        _run([tool("e2fsck"), "-f", "-y", str(image)], accepted=(0, 1))


def attach(folder: Path, target: Path, host_uid: int) -> None:
    """Mount it at `target`. Called in a box's child, in its own mount namespace."""
    # A box and an exec may come at the same time. Not the image is locked: the loop device would keep the lock.
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        device = _attached(folder)
        if device is None:
            device = _configure(folder)
        try:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOATIME
            kernel.mount(f"/proc/self/fd/{device}", target, "ext4", flags, _OPTIONS)
        finally:
            os.close(device)
    finally:
        os.close(lock)
    if target.stat().st_uid != host_uid:  # made from the template, no guest was ever here
        os.rmdir(target / "lost+found")
        os.chown(target, host_uid, host_uid)
        os.chmod(target, 0o700)


def used(folder: Path) -> int:
    """Bytes of disk that the image takes."""
    return (folder / IMAGE).stat().st_blocks * 512


def _in_use(folder: Path, wait_seconds: float = 0.3) -> bool:
    """Whether a box has it mounted; the last one's unmount is still running when its process is gone."""
    deadline = time.monotonic() + wait_seconds
    while (device := _attached(folder)) is not None:
        os.close(device)
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.01)
    return False


def _attached(folder: Path) -> int | None:
    """An open descriptor of the loop device that has this image now."""
    try:
        number = int((folder / LOOP).read_text())
        device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        info = _LOOP_INFO.unpack(fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_LOOP_INFO.size)))
        stat = (folder / IMAGE).stat()
        if info[1] == stat.st_ino and info[0] == stat.st_dev:  # while we hold it open it stays so
            return device
    except OSError:
        pass  # free
    os.close(device)
    return None


def _configure(folder: Path) -> int:
    info = _LOOP_INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"agentk", b"", b"")
    image = os.open(folder / IMAGE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, struct.pack("II", image, _BLOCK) + info + bytes(64))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
                continue
            (folder / LOOP).write_text(str(number))
            return device
    finally:
        os.close(control)
        os.close(image)
    raise OSError(errno.EBUSY, "no loop device stays free")


def _run(argv: list[str], accepted: tuple[int, ...] = (0,)) -> None:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TOOLS_SECONDS, check=False, env={}
        )
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{argv[0]} took too long") from None
    if done.returncode not in accepted:
        words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise OSError(errno.EIO, f"{Path(argv[0]).name}: {words[-1] if words else done.returncode}")
