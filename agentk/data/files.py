"""Where shipped data files are: inside the installed wheel, else in the checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = frozenset({"schemas", "runtimes", "manifests"})


def folder(name: str) -> Path:
    """Path of one data folder (`schemas`, `runtimes` or `manifests`)."""
    if name not in _FOLDERS:
        raise ValueError(f"no data folder named {name!r}")
    shipped = _PACKAGE / "_data" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / name
