"""The house itself: who imports whom, what guests may import, what the wheel carries, what the papers say."""

import ast
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
FOLDERS = {"agentk", "examples", "manifests", "runtimes", "schemas", "tests"}
FILES = {"CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml", "requirements.lock"}


def tracked() -> list[str]:
    out = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True)
    if out.returncode:
        pytest.skip("not a git checkout")
    return out.stdout.splitlines()


def rooms() -> list[str]:
    return sorted(p.name for p in (TOP / "agentk").iterdir() if (p / "__init__.py").exists())


def test_top_level_holds_only_what_the_house_has() -> None:
    top = {name.split("/")[0] for name in tracked()}
    assert {name for name in top if not name.startswith(".")} <= FOLDERS | FILES


def test_every_floor_holds() -> None:
    out = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=TOP, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stdout


def test_package_markers_stay_empty() -> None:
    top = TOP / "agentk" / "__init__.py"
    full = [p for p in (TOP / "agentk").rglob("__init__.py") if p != top and p.stat().st_size]
    assert full == []


def test_the_package_itself_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import agentk; print(*set(sys.modules) - before)"
    out = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["agentk"]


def test_files_stay_small_enough_to_read() -> None:
    long = {str(p.relative_to(TOP)): n for p in (TOP / "agentk").rglob("*.py") if (n := _lines(p)) > 400}
    assert long == {}


def test_functions_stay_small_enough_to_read() -> None:
    long = []
    for path in (TOP / "agentk").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > 60:
                    long.append(f"{path.relative_to(TOP)}:{node.lineno} {node.name} {lines}")
    assert long == []


def test_guests_import_with_nothing_but_the_standard_library() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import agentk.sdk.heartbeat"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(TOP)], check=True)


def test_the_room_map_names_every_room() -> None:
    text = (TOP / "agentk" / "README.md").read_text()
    assert [room for room in rooms() if f"`{room}`" not in text] == []


def test_the_lock_has_hashes_and_no_addresses() -> None:
    lock = (TOP / "requirements.lock").read_text()
    assert "://" not in lock
    pins = [line for line in lock.splitlines() if re.match(r"[a-z0-9]", line)]
    assert pins and all("==" in pin for pin in pins)
    assert lock.count("--hash=sha256:") >= len(pins)


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^A-Za-z0-9_.-]", want)[0].lower().replace("_", "-") for want in wanted}
    locked = {
        line.split("==")[0] for line in (TOP / "requirements.lock").read_text().splitlines() if "==" in line
    }
    assert names <= locked


def test_an_installed_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    build = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=TOP, check=True, capture_output=True)
    wheel = next(tmp_path.glob("agentk-*.whl"))
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies are borrowed from this environment: only our own files are on trial.
    borrowed = next(p for p in sys.path if p.endswith("site-packages"))
    site = next((tmp_path / "env" / "lib").glob("python3*/site-packages"))
    (site / "borrowed.pth").write_text(borrowed + "\n")
    where = subprocess.run(
        [python, "-I", "-c", "from agentk.data import files; print(files.folder('schemas'))"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    assert where.startswith(str(site))
    for name in ("schemas/agent.json", "runtimes/nsjail", "manifests"):
        assert (Path(where).parent / name).exists(), name
    explain = [tmp_path / "env" / "bin" / "agentk", "explain", "agent.spec.resources"]
    said = subprocess.run(explain, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "limits" in said


def test_no_address_of_a_machine_or_registry_is_in_the_project() -> None:
    banned = re.compile(
        "pypi" + r"\.org|files\.python" + "hosted|registry\\.npm" + "js|deb\\.deb" + "ian\\.org"
    )
    found = []
    for name in tracked():
        path = TOP / name
        if path.is_file() and path.suffix in {".py", ".md", ".yaml", ".json", ".toml", ".lock", ".sh", ""}:
            found += [name] if banned.search(path.read_text(errors="replace")) else []
    assert found == []


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())
