"""What runs a Skill's function or script, in the caller's jail, and what it answered. Pure but for the text it sends.

The files come by standard input, so that what was saved a moment ago runs too; the program that takes them is the
guest's own from its first line on, and nothing that it says is believed further than its own answer.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from agentk.api import errors, skillspecs
from agentk.broker import exec_orders
from agentk.broker.methods import Params
from agentk.runtime import box
from agentk.tools import speaking

_WORKSPACE = "/workspace"
_INTERPRETERS = {".py": "python3", ".sh": "sh", ".js": "node", ".mjs": "node"}
_RUNNER = """\
import sys
sys.path = [one for one in sys.path if one]  # not what lies where it starts
import atexit, base64, importlib, json, os, shutil, subprocess, tempfile
told = json.loads(sys.stdin.buffer.read())
root = tempfile.mkdtemp(prefix="skill-")
atexit.register(shutil.rmtree, root, True)
home = os.path.join(root, "skills", told["module"])
for name, data in told["files"].items():
    path = os.path.join(home, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(base64.b64decode(data))
nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(nothing, 0)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
if "script" in told:
    code = subprocess.call([told["interpreter"], os.path.join(home, told["script"]), *told["argv"]])
    sys.exit(code if code >= 0 else 128 - code)
sys.path.insert(0, root)
answer = os.dup(1)
os.dup2(2, 1)
module, _, function = told["function"].rpartition(":")
found = importlib.import_module(".".join(filter(None, ("skills", told["module"], module))))
for step in function.split("."):
    found = getattr(found, step)
if (getattr(found, "__module__", None) or "").split(".")[:2] != ["skills", told["module"]]:
    sys.exit(told["function"] + " is no function of this Skill: its code uses it, and that is all")
data = json.dumps(found(**told["arguments"]), default=str).encode()
sys.stdout.flush()
while data:
    data = data[os.write(answer, data):]
"""


def order(skill: Mapping[str, Any], files: Mapping[str, bytes], params: Params) -> exec_orders.Order:
    """Raises BadRequest for what the Skill does not have."""
    told: dict[str, Any] = {"module": skillspecs.module(str(skill["metadata"]["name"]))}
    if "script" in params:
        script = params["script"]
        if script not in files:
            raise errors.BadRequest(f"it has no file {json.dumps(script[:100])}", field="params.script")
        suffix = script[script.rfind(".") :]
        if suffix not in _INTERPRETERS:
            known = ", ".join(_INTERPRETERS)
            raise errors.BadRequest(f"expected a script that ends in {known}", field="params.script")
        told |= {"script": script, "interpreter": _INTERPRETERS[suffix], "argv": params["argv"]}
    else:
        told |= {"function": params["function"], "arguments": params["arguments"]}
    told["files"] = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return exec_orders.Order(
        argv=("python3", "-c", _RUNNER),
        language="argv",
        stdin=json.dumps(told).encode(),
        env={},
        cwd=_WORKSPACE,
        timeout_seconds=float(params["timeoutSeconds"]),
        output_bytes=params["outputBytes"],
        limits=box.Limits(),
        encoding="utf-8",
    )


def answer(told: dict[str, Any], params: Params) -> dict[str, Any]:
    """As exec answers; of a function what it returned, when that is JSON."""
    made = {key: value for key, value in told.items() if key not in ("id", "state")}
    if "script" in params:
        return made
    text = made.pop("stdout")
    cut = made.pop("stdoutTruncated")
    if made["exitCode"] == 0 and cut:
        raise errors.TooLarge(
            "what it returned is longer than outputBytes",
            hint="raise outputBytes, or let it write a file into the workspace",
            field="params.outputBytes",
        )
    made["stdout"], made["stdoutTruncated"] = "", False
    if made["exitCode"] == 0:
        try:
            made["result"] = speaking.parsed(text)
        except ValueError:
            made["stdout"] = text
    return made
