"""Small Python packages and an index of them, made for a test: files that anybody may read."""

import contextlib
import hashlib
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Index:
    """`url` is what pip is told: a folder of pages that link to their neighbours."""

    folder: Path

    @property
    def url(self) -> str:
        return f"file://{self.folder}/simple"

    def add(self, file: str, data: bytes, *, digest: str = "") -> str:
        """Its sha256; the page tells `digest` instead when one is given."""
        true = hashlib.sha256(data).hexdigest()
        (self.folder / "files").mkdir(exist_ok=True)
        (self.folder / "files" / file).write_bytes(data)
        name = file.split("-")[0].replace("_", "-").lower()
        page = self.folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as out:
            out.write(f'<a href="../../files/{file}#sha256={digest or true}">{file}</a><br>\n')
        return true

    def wheel(self, name: str, version: str = "1.0", **told: object) -> str:
        return self.add(f"{name}-{version}-py3-none-any.whl", wheel(name, version, **told))  # type: ignore[arg-type]

    def sdist(self, name: str, setup: str) -> None:
        """A source package whose setup.py is `setup`."""
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz") as tar:
            for file, text in {"setup.py": setup, "PKG-INFO": f"Name: {name}\nVersion: 1.0\n"}.items():
                member = tarfile.TarInfo(f"{name}-1.0/{file}")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        self.add(f"{name}-1.0.tar.gz", data.getvalue())


def wheel(
    name: str,
    version: str,
    files: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    scripts: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """A pure one. `extra`: members that its RECORD does not name."""
    info = f"{name}-{version}.dist-info"
    held = dict(
        files or {f"{name}.py": f"VERSION = {version!r}\ndef main():\n    print('script', VERSION)\n"}
    )
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    held[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    held[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if scripts:
        held[f"{info}/entry_points.txt"] = "[console_scripts]\n" + "".join(
            f"{one}={name}:main\n" for one in scripts
        )
    record = "".join(f"{path},,\n" for path in held) + f"{info}/RECORD,,\n"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as out:
        for path, text in {**held, f"{info}/RECORD": record, **(extra or {})}.items():
            out.writestr(path, text)
    return data.getvalue()


@contextlib.contextmanager
def index() -> Iterator[Index]:
    """An empty one."""
    folder = Path(tempfile.mkdtemp(prefix="aki-"))
    folder.chmod(0o755)
    (folder / "simple").mkdir()
    try:
        yield Index(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
