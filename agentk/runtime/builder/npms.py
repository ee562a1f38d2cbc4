"""npm packages, fetched in one jail and installed in another. This file is the whole program of both.

Given to the jail's Python as text (`python -I -c`), so it knows the standard library and nothing of ours. npm is the
host's own. What is told goes to stdout, one JSON object a line; what npm says goes to stderr.

It must never run a line of what it fetches: npm is told to run no scripts and has no git, and what is neither of the
registry nor has an integrity is refused before any of it is unpacked.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Callable, Dict, List, NoReturn

REQUEST = "/request"  # package.json, npmrc, and package-lock.json where there is one
CACHE = "/workspace/npm-cache"
PROJECT = "/workspace/project"
TARGET = "/node_modules"
WORDS_MAX = 1500
SETTINGS = {
    "audit": "false",
    "cache": CACHE,
    "fetch_retry_maxtimeout": "5000",
    "fetch_retry_mintimeout": "500",
    "fund": "false",
    "git": "/bin/false",
    "globalconfig": "/dev/null",
    "ignore_scripts": "true",
    "install_links": "false",
    "logs_max": "0",
    "progress": "false",
    "update_notifier": "false",
    "userconfig": f"{REQUEST}/npmrc",
}


def tell(**what: Any) -> None:
    """One line for the daemon."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def fail(words: str) -> NoReturn:
    """The reason, and the end."""
    tell(error=re.sub(r"://[^/@\s]+@", "://****@", words)[-WORDS_MAX:])
    sys.exit(1)


def npm(arguments: List[str], heard: Callable[[str], None]) -> None:
    """Run the host's npm in the project. Ends with its own last words when it fails."""
    program = shutil.which("npm")
    if program is None or shutil.which("node") is None:
        fail("boxes have no node and npm: install them below /usr, as with apt-get install nodejs npm")
    env = {"PATH": os.environ["PATH"], "HOME": "/workspace"}
    env.update(
        {name: os.environ[name] for name in os.environ if name.lower().endswith(("_proxy", "_ca_certs"))}
    )
    env.update({f"npm_config_{name}": value for name, value in SETTINGS.items()})
    lines: List[str] = []
    with subprocess.Popen(
        [program, *arguments],
        cwd=PROJECT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            sys.stderr.write(line)
            lines.append(line.rstrip())
            del lines[:-500]
            heard(lines[-1])
    if running.returncode:
        said = [
            re.sub(r"^npm (?:error|ERR!) ?", "", line) for line in lines if re.match("npm (error|ERR!)", line)
        ]
        told = [
            line for line in said if line.strip() and "complete log" not in line and "Log files" not in line
        ]
        about = [line for line in lines if "seems to be corrupted" in line]  # names what the error does not
        fail(" ".join(" ".join(about[-1:] + (told or lines[-5:])).split()))


def begin() -> None:
    """A project with nothing in it but the request."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    os.makedirs(PROJECT)
    for name in ("package.json", "package-lock.json"):
        if os.path.exists(f"{REQUEST}/{name}"):
            shutil.copyfile(f"{REQUEST}/{name}", f"{PROJECT}/{name}")


def packages() -> Dict[str, Dict[str, Any]]:
    """Of the lock, by path. Ends for one that is not of a registry."""
    with open(f"{PROJECT}/package-lock.json") as file:
        found: Dict[str, Dict[str, Any]] = json.load(file)["packages"]
    wanted = {path: one for path, one in found.items() if path and not one.get("inBundle")}
    for path, one in wanted.items():
        source = str(one.get("resolved") or "https:")
        if (
            one.get("link")
            or not one.get("integrity")
            or not source.startswith(("https:", "http:", "file:///"))
        ):
            fail(f"{path.rpartition('node_modules/')[2]} is no package of the registry: {source}")
    return wanted


def fetch() -> None:
    """Resolve, then fetch exactly what was resolved into the cache."""
    tell(stage="Resolving")
    begin()
    names: Dict[str, None] = {}

    def resolving(line: str) -> None:
        found = re.search(r"http fetch GET 200 \S*/([^/\s]+) ", line)
        if found:
            names[found[1]] = None
            tell(stage="Resolving", done=len(names), what=found[1].replace("%2f", "/")[:100])

    if not os.path.exists(f"{PROJECT}/package-lock.json"):
        npm(["install", "--package-lock-only", "--loglevel", "http"], resolving)
    wanted = packages()
    done: Dict[str, None] = {}
    tell(stage="Fetching", done=0, of=len(wanted))

    def fetching(line: str) -> None:
        found = re.search(r"http fetch GET 200 \S*/([^/\s]+\.tgz)", line)
        if found:
            done[found[1]] = None
            tell(stage="Fetching", done=min(len(done), len(wanted)), of=len(wanted), what=found[1][:100])

    npm(["ci", "--loglevel", "http"], fetching)
    for path, one in sorted(wanted.items()):
        name = path.rpartition("node_modules/")[2]
        tell(package={"name": name, "version": str(one.get("version")), "integrity": one["integrity"]})
    with open(f"{PROJECT}/package-lock.json") as file:
        tell(lock=file.read())


def install() -> None:
    """From the cache, checked against the lock, with no network to fetch anything else."""
    begin()
    tell(stage="Installing", of=len(packages()))
    npm(["ci", "--offline"], lambda _: None)
    made = f"{PROJECT}/node_modules"
    if os.path.isdir(made):  # with optional packages alone there may be none
        shutil.copytree(made, TARGET, symlinks=True, dirs_exist_ok=True)
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
        install()
    tell(ok=True)
