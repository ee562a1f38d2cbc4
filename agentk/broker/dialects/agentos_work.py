"""THINK, EXEC, READ, WRITE and HTTP of the AgentOS dialect, as calls of the gate.

Files are read and written by a program in a jail beside the agent's: no process of the host opens a path that a guest
names.
"""

import base64
import binascii
import json
import posixpath
from typing import Any

from agentk.api import errors
from agentk.broker.calling import execing
from agentk.broker.dialects import frames
from agentk.broker.dialects.agentos_session import Session
from agentk.broker.dialects.agentos_words import Asked, Json

_EFFORTS = frozenset({"none", "minimal", "low", "medium", "high"})

_FILE_SECONDS = 30
_OUTPUT_BYTES = frames.PAYLOAD_BYTES  # the longest that a frame can tell
_KEPT_BYTES = 256 * 1024  # of a command's output, and as much of its errors
# Every jail has a /tmp of its own that ends with it: what a program writes there it shall find again.
_TMP, _KEPT_TMP = "/tmp/", "/workspace/.tmp/"
_FOLDER = f'case "$1" in {_KEPT_TMP}*) mkdir -p -- "${{1%/*}}";; esac;'
# A path that begins with a dash is a path. `$1` is never a part of the program text.
_READ = 'exec cat -- "$1"'
_WRITE = {
    "write": f'{_FOLDER} exec cat > "$1"',
    "append": f'{_FOLDER} exec cat >> "$1"',
}


async def think(session: Session, asked: Asked) -> Json:
    params = thought(asked)
    max_tokens, max_calls, _ = session.kernel.rights.limits(session.guest)
    used = session.kernel.rights.used(session.guest)
    if max_calls is not None and used.calls >= max_calls:
        raise errors.Denied(f"permission denied: THINK (llm.max_calls is {max_calls})")
    if max_tokens is not None:
        left = max_tokens - used.tokens
        if left <= 0:
            raise errors.Denied(f"permission denied: THINK (llm.max_tokens is {max_tokens})")
        params["maxTokens"] = min(params.get("maxTokens", left), left)
    used.calls += 1
    told = await session.call("think", params)
    usage = told["usage"]
    tokens = usage["inputTokens"] + usage["outputTokens"]
    used.tokens += tokens
    reply = {
        "success": True,
        "content": told["text"],
        "tokens": tokens,
        "error": None,
        "model": told["model"],
    }
    calls = [_function_call(one) for one in told["toolCalls"]]
    return reply | ({"function_calls": calls} if calls else {})


def thought(asked: Asked) -> Json:
    """The parameters of `think`."""
    prompt = asked.text("prompt")
    params: Json = {}
    image = asked.part("image")
    if image.fields:
        params["messages"] = [{"role": "user", "content": [{"type": "text", "text": prompt}, _image(image)]}]
    else:
        params["prompt"] = prompt
    if system := asked.text("system_instruction", "system", default=""):
        params["system"] = system
    if level := asked.text("thinking_level", default="").lower():
        if level not in _EFFORTS:
            raise errors.BadRequest(f"thinking_level must be one of {', '.join(sorted(_EFFORTS))}")
        params["reasoningEffort"] = level
    if asked.get("temperature") is not None:
        params["temperature"] = asked.number("temperature", 1, 0, 2)
    if model := asked.text("model", default=""):
        params["model"] = model
    if asked.get("max_tokens") is not None:
        params["maxTokens"] = asked.whole("max_tokens", 1, 1, 10_000_000)
    if tools := asked.get("tools"):
        params["tools"] = _tools(tools)
    return params


def _image(image: Asked) -> Json:
    data, kind = image.text("data"), image.text("mime_type", default="image/jpeg")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise errors.BadRequest("image.data must be base64") from None
    if not kind.startswith("image/") or not kind.removeprefix("image/").replace("+", "").isalnum():
        raise errors.BadRequest("image.mime_type must be such as image/png")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def _tools(given: Any) -> list[Json]:
    """OpenAI's shape as it is; a bare declaration, or a list of them as Gemini has it, put into it."""
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise errors.BadRequest("tools must be a list of objects")
    found: list[Json] = []
    for one in given:
        declared = one.get("function_declarations", one.get("functionDeclarations"))
        if isinstance(declared, list) and all(isinstance(each, dict) for each in declared):
            found += [{"type": "function", "function": each} for each in declared]
        elif "type" in one:
            found.append(one)
        else:
            found.append({"type": "function", "function": one})
    return found


def _function_call(told: Any) -> Json:
    function = told.get("function") or {}
    text = function.get("arguments") or "{}"
    try:
        arguments = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        arguments = text  # as the model wrote it
    return {
        "id": told.get("id", ""),
        "name": function.get("name", ""),
        "args": arguments,
        "arguments": arguments,
    }


async def run(session: Session, asked: Asked) -> Json:
    """EXEC."""
    command = asked.text("command")
    seconds = asked.number("timeout", 30, 0.001, 86_400)
    _, _, most_ms = session.kernel.rights.limits(session.guest)
    if most_ms is not None:
        seconds = min(seconds, most_ms / 1000)
    params: Json = {
        "code": command,
        "language": "shell",
        "timeoutSeconds": seconds,
        "outputBytes": _KEPT_BYTES,
    }
    if cwd := asked.text("cwd", "working_dir", default=""):
        params["workingDir"] = cwd
    told = await session.call("exec", params)
    code, reason = told.get("exitCode", -1), told.get("reason", "")
    reply: Json = {
        "success": code == 0,
        "stdout": told.get("stdout", ""),
        "stderr": told.get("stderr", ""),
        "exit_code": code,
    }
    if told.get("stdoutTruncated") or told.get("stderrTruncated"):
        reply["truncated"] = True
    if reason == "DeadlineExceeded":
        reply["error"] = f"command timed out after {seconds:g} s"
    elif reason not in ("Completed", "Error", ""):
        reply["error"] = reason
    return reply


async def read(session: Session, asked: Asked) -> Json:
    told = await _beside(session, _READ, asked.text("path"), "")
    if told.get("stdoutTruncated"):
        raise errors.TooLarge(
            f"the file has more than {_OUTPUT_BYTES} bytes", hint="read a part of it with EXEC"
        )
    content = told.get("stdout", "")
    return {"success": True, "content": content, "size": len(content.encode(errors="replace"))}


async def write(session: Session, asked: Asked) -> Json:
    mode = asked.text("mode", default="write")
    if mode not in _WRITE:
        raise errors.BadRequest("mode must be write or append")
    content = asked.text("content", default="")
    form = execing.APPENDING if mode == "append" else execing.WRITING
    await _beside(session, _WRITE[mode], asked.text("path"), content, form)
    return {"success": True, "bytes_written": len(content.encode(errors="replace"))}


async def _beside(
    session: Session, program: str, path: str, stdin: str, form: str = execing.ON_A_FILE
) -> Any:
    """The result of a shell's one line about one path. Raises what went wrong as the shell tells it."""
    if "\0" in path or len(path) > 4096:
        raise errors.BadRequest("path must have at most 4096 letters, and no NUL")
    whole = posixpath.normpath(path)
    held = _KEPT_TMP + whole.removeprefix(_TMP) if whole.startswith(_TMP) else path
    params = {
        "argv": ["/bin/sh", "-c", program, "sh", held, path],  # the last is what a Policy judges
        "stdin": stdin,
        "timeoutSeconds": _FILE_SECONDS,
        "outputBytes": _OUTPUT_BYTES,
    }
    told = await session.call("exec", params, form=form)
    if told.get("exitCode") != 0:
        lines = str(told.get("stderr", "")).strip().splitlines()
        why = lines[-1].rpartition(": ")[2] if lines else told.get("reason", "it failed")
        raise errors.BadRequest(f"{path[:200]}: {why[:300]}")
    return told


async def http(session: Session, asked: Asked) -> Json:
    headers = asked.part("headers").fields
    body = asked.get("body")
    if body is not None and not isinstance(body, str):
        body = json.dumps(body)
    params: Json = {
        "url": asked.text("url"),
        "method": asked.text("method", default="GET").upper(),
        "headers": {name: str(value) for name, value in headers.items()},
        "timeoutSeconds": asked.number("timeout", 30, 0.001, 600),
        "maxBytes": _OUTPUT_BYTES,
        "followRedirects": True,
    }
    told = await session.call("http.request", params | ({"body": body} if body else {}))
    reply: Json = {
        "success": told["status"] < 400,
        "body": told["body"],
        "status_code": told["status"],
        "headers": told["headers"],
    }
    if told["encoding"] != "utf-8":
        reply["encoding"] = told["encoding"]
    if told["truncated"]:
        reply["truncated"] = True
    return reply
