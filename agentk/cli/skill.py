"""`agentk skill`: what people do with Skills besides applying them."""

import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agentk.api import errors, kinds, manifest, skillspecs
from agentk.cli import columns, connect, manifests, options, running, show, usage
from agentk.cli import run as running_one
from agentk.client import client, outcome, skillfolders

app = typer.Typer(
    **options.APP,
    help="""Work with Skills.

    Example:

    \b
      agentk skill test examples/skills/text-statistics && agentk apply -f examples/skills/text-statistics
    """,
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="A Skill; NAME.v2 is an older version.")]
_TEST_SECONDS = 300
_LIMITS = {"memory": "256Mi", "cpu": "1", "pids": 64}
# In the jail: its tests as unittest has them, and plain functions too.
_TESTS = """\
import importlib.util, inspect, pathlib, sys, unittest
home = pathlib.Path(sys.argv[1])
sys.path[:0] = [str(home)]
loader, suite = unittest.TestLoader(), unittest.TestSuite()
for at, path in enumerate(sorted([*home.glob("tests/**/*.py"), *home.glob("test_*.py")])):
    if not path.name.startswith("test_"):
        continue
    spec = importlib.util.spec_from_file_location(f"{path.stem}_{at}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    suite.addTests(loader.loadTestsFromModule(module))
    for name, found in sorted(vars(module).items()):
        if name.startswith("test") and inspect.isfunction(found) and found.__module__ == module.__name__:
            suite.addTest(unittest.FunctionTestCase(found, description=f"{path.relative_to(home)}: {name}"))
if not suite.countTestCases():
    sys.exit("it has no tests: tests/test_NAME.py with functions that are named test_…")
ran = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
sys.exit(not ran.wasSuccessful())
"""


@app.callback()
def skill() -> None:
    """Makes each word one of its own."""


@app.command("list")
def list_(
    versions: Annotated[bool, typer.Option("--versions", help="Older ones too.")] = False,
    namespace: options.Namespace = "",
    output: options.Output = "",
    no_headers: options.NoHeaders = False,
) -> int:
    """List Skills: those that people applied and those that agents saved.

    Examples:

    \b
      agentk skill list
      agentk skill list --versions -o json
    """
    form = show.parse(output, ("json", "yaml", "name"))
    where, api = options.namespace(namespace), connect.connect()
    asked = client.Selection(kinds.SKILL, where)
    if not form.is_table:
        found = [one for one in api.list(asked).items if versions or not _is_version(one)]
        show.write(show.objects(found, form, single=False))
        return 0
    table = api.table(asked)  # without their files
    at = {one["name"]: number for number, one in enumerate(table["columnDefinitions"])}
    rows = [
        (
            row["object"]["metadata"]["name"],
            str(row["cells"][at["Version"]]),
            "agent"
            if skillspecs.SAVED_BY in (row["object"]["metadata"].get("annotations") or {})
            else "person",
            row["cells"][at["Description"]],
        )
        for row in table["rows"]
        if versions or not _is_version(row["object"])
    ]
    if not rows:
        show.say(f"No skills found in {where} namespace.")
        return 0
    show.write(columns.draw(("Name", "Version", "By", "Description"), rows, show=not no_headers))
    return 0


@app.command("show")
def show_(
    name: _Name,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="One of its files.")] = "",
    namespace: options.Namespace = "",
) -> int:
    """Print the SKILL.md of a Skill and the names of its files, or one of these.

    Examples:

    \b
      agentk skill show text-statistics
      agentk skill show text-statistics scripts/count.py
      agentk skill show fib.v1 __init__.py
    """
    api = connect.connect()
    files = skillspecs.contents(api.get(kinds.SKILL, options.namespace(namespace), name))
    wanted = file or skillspecs.FILE
    if wanted not in files:
        raise errors.NotFound(
            f"{name} has no file {wanted}", hint=kinds.did_you_mean(wanted, sorted(files), "files")
        )
    data = files[wanted]
    if file and not sys.stdout.isatty():
        sys.stdout.buffer.write(data)
        return 0
    for line in data.decode("utf-8", "replace").splitlines():
        print(columns.safe(line))
    if not file:
        for other, content in sorted(files.items()):
            show.say(f"{len(content):>9} {columns.safe(other)}")
    return 0


@app.command()
def test(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A Skill, or a folder with a SKILL.md.")],
    runtime: Annotated[str, typer.Option("--runtime", metavar="NAME", help="A Runtime object.")] = "",
    timeout: options.Timeout = "",
    namespace: options.Namespace = "",
) -> int:
    """Run the tests of a Skill in a jail that reaches nothing: functions and classes of unittest in tests/test_*.py.

    They import it as agents do, with '_' for '-': from skills.text_statistics.scripts import count.

    A folder is tested in a daemon of its own, so CI needs no other. Ends with 1 when a test fails.

    Examples:

    \b
      agentk skill test text-statistics
      agentk skill test examples/skills/text-statistics
    """
    where, folder = options.namespace(namespace), Path(name)
    alone = skillfolders.is_skill(folder)
    if not alone and ("/" in name or name in (".", "..")):
        raise usage.Usage(f"{name} is no folder with a {skillspecs.FILE}")
    found: list[dict[str, Any]] = [skillfolders.read(folder)] if alone else []
    called = (found or [connect.connect().get(kinds.SKILL, where, name)])[0]["metadata"]["name"]
    wanted = [*found, _tester(called, runtime, options.seconds(timeout, "--timeout") or _TEST_SECONDS)]
    resolved = [manifests.resolve(manifest.Manifest(one, "command line"), namespace, where) for one in wanted]
    result = running.run(resolved, use_daemon=not alone, keep=False, logs_to_stderr=False)
    if result.exit_code not in (0, 1):
        show.say(f"agentk: {result.reason}: {result.message}")
    return 1 if result.exit_code not in (0, outcome.AGENTK) else result.exit_code


@app.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Skills.", show_default=False)],
    namespace: options.Namespace = "",
) -> int:
    """Delete Skills, with the versions before them. Boxes that have them mounted keep them until they end.

    Examples:

    \b
      agentk skill rm fib
      agentk skill rm fib.v1
    """
    where, api = options.namespace(namespace), connect.connect()
    for name in names:
        api.delete(kinds.SKILL, where, name)
        print(f"skill.agentk.dev/{name} deleted")
        chosen = f"{skillspecs.VERSION_OF}={name[:63].rstrip('-')}"
        for row in api.table(client.Selection(kinds.SKILL, where, chosen))["rows"]:
            version = row["object"]["metadata"]["name"]
            if version != name and skillspecs.base(version) == name:
                api.delete(kinds.SKILL, where, version)
                print(f"skill.agentk.dev/{version} deleted")
    return 0


def _is_version(skill: dict[str, Any]) -> bool:
    name = skill["metadata"]["name"]
    return bool(skillspecs.base(name) != name)


def _tester(name: str, runtime: str, seconds: int) -> dict[str, Any]:
    """The agent that runs them: it reaches no host, starts nothing and asks nobody."""
    place = f"{skillspecs.FOLDER}/{skillspecs.PACKAGE}/{skillspecs.module(name)}"
    command = ["python3", "-c", _TESTS, place]
    made = running_one.agent(command, f"skill-test-{secrets.token_hex(4)}", _LIMITS, [], "", runtime)
    made["spec"] |= {
        "skills": {"use": [{"name": name}]},
        "policyRef": {"name": "restricted"},
        "activeDeadlineSeconds": max(1, seconds),
    }
    return made
