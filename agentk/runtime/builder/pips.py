"""Python packages, fetched in one jail and installed in another. This file is the whole program of both.

Given to the jail's own interpreter as text (`python -I -c`), so it knows the standard library and nothing of ours.
What it tells goes to stdout, one JSON object a line; what pip says goes to stderr.

It must never run a line of what it fetches. pip takes wheels only, and the process that is pip cannot start another
one: a hook set before pip is loaded, which nothing can take off again, refuses, so that no requirement hidden in a
package (a URL, a repository) gets its build script run.
"""

import glob
import hashlib
import json
import os
import re
import sys
import zipfile
from typing import Any, Callable, Dict, List, NoReturn, Tuple

REQUEST = "/request"  # requirements.txt or lock.txt of a person, or the resolved set
WHEELS = "/workspace/wheels"
CACHE = "/workspace/cache"
REPORT = "/workspace/report.json"
PINS = "/workspace/pins.txt"
TARGET = "/opt/env/python"
PIP = "/opt/pip"
UNPACKED_MAX_BYTES = 24 << 30
MEMBERS_MAX = 2_000_000
WORDS_MAX = 1500
NOTHING_IS_RUN = "only wheels of an index are installed, and nothing is built or run for them"
USUAL = ["--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar", "off"]
STARTS_PROGRAMS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "subprocess.Popen",
}


def tell(**what: Any) -> None:
    """One line for the daemon."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def fail(words: str) -> NoReturn:
    """The reason, and the end."""
    tell(error=re.sub(r"://[^/@\s]+@", "://****@", words)[-WORDS_MAX:])
    sys.exit(1)


def refuse_programs(event: str, _: Tuple[Any, ...]) -> None:
    """An audit hook. pip itself takes this error for a program that is not there."""
    if event in STARTS_PROGRAMS:
        raise PermissionError(NOTHING_IS_RUN)


def pip(arguments: List[str], heard: Callable[[str], None]) -> None:
    """Run pip in a child of ours; every line it says is heard. Ends with pip's own last words when it fails."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(write, 1)
        os.dup2(write, 2)
        become_pip(arguments)
    os.close(write)
    lines: List[str] = []
    with os.fdopen(read, errors="replace") as said:
        for line in said:
            sys.stderr.write(line)
            lines.append(line.rstrip())
            del lines[:-500]
            heard(lines[-1])
    if os.waitpid(child, 0)[1]:
        fail(last_words(lines))


def become_pip(arguments: List[str]) -> NoReturn:
    """Never returns."""
    code = 3
    try:
        sys.addaudithook(refuse_programs)
        wheels = glob.glob(f"{PIP}/*.whl")
        sys.path.insert(0, wheels[0] if wheels else PIP)
        from pip._internal.cli.main import main

        code = main(arguments)
    except BaseException as error:  # noqa: BLE001 (nothing may return into our own code)
        print(f"ERROR: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def last_words(lines: List[str]) -> str:
    """From the first thing that pip calls an error; before it, why it could not reach an index."""
    at = next((number for number, line in enumerate(lines) if line.startswith("ERROR:")), None)
    said = lines[-5:] if at is None else [line for line in lines[at:] if not line.startswith("WARNING: ")]
    if at is not None and not re.search(
        "requirement|matching distribution|HASHES|resolution", " ".join(said)
    ):
        about = [line for line in lines[:at] if line.lstrip().startswith(("Collecting", "Processing"))]
        said = about[-1:] + said  # pip names no package in what its own programs and files fail with
    lost = [unreached(line) for line in lines if "Retrying" in line and "connection broken" in line]
    words = " ".join(" ".join(lost[-1:] + said).split())
    return words.replace("ERROR: ", "").replace("WARNING: ", "")


def unreached(line: str) -> str:
    """What pip says of an index that it cannot reach, without the names of its own objects."""
    why = line.partition("connection broken by ")[2]
    why, _, page = why.rpartition(": ")
    why = re.sub(r"<[^<>]*>[:,] ['\"]?", "", why.strip("'\""))
    why = re.sub(r"^\w+\(['\"]?(.*?)['\"]?\)$", r"\1", why)
    return f"an index of pip's configuration cannot be reached: {why} ({page});" if why else line


def fetch() -> None:
    """Resolve, then fetch exactly what was resolved."""
    tell(stage="Resolving")
    locked = os.path.exists(f"{REQUEST}/lock.txt")
    asked = ["-r", f"{REQUEST}/{'lock' if locked else 'requirements'}.txt"]
    asked += ["--require-hashes"] if locked else []
    names: Dict[str, None] = {}

    def collecting(line: str) -> None:
        found = re.match(r"(?:Collecting|Processing) (\S+)", line)
        if found:
            names[found[1]] = None
            tell(stage="Resolving", done=len(names), what=os.path.basename(found[1])[:100])

    usual = [*USUAL, "--only-binary", ":all:", "--cache-dir", CACHE]
    pip(["install", "--dry-run", "--ignore-installed", "--report", REPORT, *usual, *asked], collecting)
    pins, verified = resolved()
    with open(PINS, "w") as file:
        file.write("\n".join(pins) + "\n")
    done: Dict[str, None] = {}
    tell(stage="Fetching", done=0, of=len(pins))

    def fetching(line: str) -> None:
        found = re.match(r"(?:Collecting|Processing) (\S+)", line)
        if found:
            done[found[1]] = None
            tell(stage="Fetching", done=len(done), of=len(pins), what=os.path.basename(found[1])[:100])

    os.makedirs(WHEELS, exist_ok=True)
    usual += ["--require-hashes"] if verified else []
    pip(["download", "--no-deps", "--dest", WHEELS, *usual, "-r", PINS], fetching)
    told = [describe(path) for path in sorted(glob.glob(f"{WHEELS}/*.whl"))]
    if len(told) != len(pins):
        fail(f"{len(pins)} packages were resolved and {len(told)} fetched")
    if sum(size for _, size in told) > UNPACKED_MAX_BYTES:
        fail(f"the packages unpack to more than {UNPACKED_MAX_BYTES >> 30} GiB")
    for package, _ in told:
        tell(package=package)


def resolved() -> Tuple[List[str], bool]:
    """One pin a package; True when an index gave a strong hash of every one."""
    with open(REPORT) as file:
        found = json.load(file)["install"]
    pins, verified = [], True
    for one in found:
        name, version = one["metadata"]["name"], one["metadata"]["version"]
        info = one["download_info"]
        direct = one.get("is_direct")  # named by its URL: no index of the owner answered for it
        if direct or "archive_info" not in info or not info["url"].split("#")[0].endswith(".whl"):
            fail(f"{name} {version} is no wheel of an index: {info['url']}")
        hashes = info["archive_info"].get("hashes") or {}
        strong = [
            f"--hash={kind}:{hashes[kind]}" for kind in ("sha256", "sha384", "sha512") if kind in hashes
        ]
        verified = verified and bool(strong)
        pins.append(" ".join([f"{name}=={version}", *strong[:1]]))
    if not verified:
        pins = [pin.split(" ")[0] for pin in pins]
    return sorted(pins), verified


def describe(path: str) -> Tuple[Dict[str, str], int]:
    """A wheel, and how much it unpacks to. Ends for one that would write outside of its place."""
    name = os.path.basename(path)
    size, members = 0, 0
    try:
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.infolist():
                members += 1
                size += member.file_size
                parts = member.filename.replace("\\", "/").split("/")
                if member.filename.startswith("/") or ".." in parts or members > MEMBERS_MAX:
                    fail(f"{name} holds {member.filename[:200]!r}, which leads out of it")
    except (zipfile.BadZipFile, OSError) as error:
        fail(f"{name} is not a wheel: {error}")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    distribution, version = name.split("-")[:2]
    return {"name": distribution, "version": version, "file": name, "sha256": digest.hexdigest()}, size


def make_target(text: str) -> NoReturn:
    """A virtual environment of this interpreter; and go on as its Python, so that scripts name it."""
    python = os.path.realpath(sys.executable)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    os.makedirs(f"{TARGET}/bin", exist_ok=True)
    os.makedirs(f"{TARGET}/lib/python{version}/site-packages", exist_ok=True)
    for name, leads in (("python3", python), ("python", "python3"), (f"python{version}", "python3")):
        if not os.path.lexists(f"{TARGET}/bin/{name}"):
            os.symlink(leads, f"{TARGET}/bin/{name}")
    if not os.path.lexists(f"{TARGET}/lib64"):
        os.symlink("lib", f"{TARGET}/lib64")
    with open(f"{TARGET}/pyvenv.cfg", "w") as file:
        file.write(
            f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\nversion = {version}\n"
        )
    # It finds out where it is by the name it is called by.
    python = f"{TARGET}/bin/python3"
    os.execv(python, [python, "-I", "-c", text, "install", text])


def install(text: str) -> None:
    """What was fetched, checked against the lock, with no network to fetch anything else."""
    if sys.prefix != TARGET:
        make_target(text)
    with open(f"{REQUEST}/lock.txt") as file:
        count = sum(1 for line in file if line.strip())
    tell(stage="Installing", of=count)
    usual = [*USUAL, "--no-index", "--find-links", WHEELS, "--no-deps", "--require-hashes", "--no-cache-dir"]
    pip(["install", *usual, "--no-warn-script-location", "-r", f"{REQUEST}/lock.txt"], lambda _: None)
    size = 0
    for folder, _, names in os.walk(TARGET):
        os.chmod(folder, 0o755)
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                seen = os.stat(path)
                size += seen.st_size
                os.chmod(path, 0o755 if seen.st_mode & 0o100 else 0o644)
    os.sync()
    tell(bytes=size)


if __name__ == "__main__":
    if sys.argv[1] == "fetch":
        fetch()
    else:
        install(sys.argv[2])
    tell(ok=True)
