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
