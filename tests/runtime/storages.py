"""A storage of images of a test's own, which every podman that it starts uses."""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def storage(folder: Path) -> Iterator[Mapping[str, str]]:
    """The variables that lead to it. Nothing of it is left."""
    config = folder / "storage.conf"
    places = dict.fromkeys(("graphroot", "rootless_storage_path"), f"{folder}/graph")
    told = {"driver": "overlay", "runroot": f"{folder}/run-root", **places}
    config.write_text("\n".join(["[storage]", *(f'{name}="{value}"' for name, value in told.items()), ""]))
    try:
        yield {"CONTAINERS_STORAGE_CONF": str(config)}
    finally:
        # overlay's own bind of its directory would keep the folder busy
        subprocess.run(["umount", "-l", f"{folder}/graph/overlay"], capture_output=True, check=False)


def shell() -> dict[str, bytes]:
    """Files of as little an image as a shell needs, for `registry.push`."""
    said = subprocess.run(["ldd", "/bin/dash"], capture_output=True, text=True, check=True).stdout
    files = [word for line in said.splitlines() for word in line.split() if word.startswith("/")]
    made = {f"{path.lstrip('/')}*": Path(path).read_bytes() for path in files}
    return {"bin/dash*": Path("/bin/dash").read_bytes(), "bin/sh": b"-> dash", **made}


def python() -> dict[str, bytes]:
    """Files of as little an image as the host's Python needs beside a shell, at the same places."""
    program = Path("/usr/bin/python3").resolve()
    library = Path(f"/usr/lib/{program.name}")
    packages = ("", "encodings", "collections", "ctypes", "importlib", "importlib/metadata", "re")
    kept = [one for name in packages for one in (library / name).glob("*.py")]
    native = list(library.glob("lib-dynload/_ctypes.*"))
    said = subprocess.run(["ldd", program, *native], capture_output=True, text=True, check=True).stdout
    needed = [Path(word) for line in said.splitlines() for word in line.split() if word.startswith("/lib")]
    files = {f"{path}".lstrip("/"): path.read_bytes() for path in [*kept, *native]}
    files |= {f"{path}*".lstrip("/"): path.read_bytes() for path in needed}
    links = dict.fromkeys(("usr/bin/python", "usr/bin/python3"), b"-> " + program.name.encode())
    return shell() | files | links | {f"{program}*".lstrip("/"): program.read_bytes()}
