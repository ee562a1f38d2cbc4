"""What a schema cannot say of a Tool, and what an Agent's `spec.tools` cannot say twice. Pure."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any
from urllib import parse

from agentk.api import errors, inputs, mcptools, quantities, templates
from agentk.api.problems import Path, Problem

Spec = Mapping[str, Any]
Found = Iterator[Problem]
Names = frozenset[str] | None  # of arguments; None: there may be any

KINDS = ("command", "python", "http", "mcp", "agent")
EVERYWHERE = "default"  # the namespace whose Tools may be for everybody
LABEL = "agentk.dev/tool"  # of a box of a Tool's own: whose it is


def label(name: str) -> str:
    """A Tool's name as a value of LABEL, which is shorter."""
    return name[:63].rstrip("-.")


def kind(spec: Spec) -> str:
    """command, python, http, mcp or agent; "" when it is none."""
    return next((one for one in KINDS if one in spec), "")


def problems(metadata: Mapping[str, Any], spec: Spec) -> Found:
    """Everything wrong across the fields of a Tool."""
    own = _BY_KIND.get(kind(spec))
    if own is not None:
        yield from own(spec[kind(spec)], ("spec", kind(spec)))
    if "mcp" in spec:
        yield from mcptools.problems(spec)
    if "http" in spec and "jail" in spec:
        yield Problem(("spec", "jail"), "a request is sent by the gate: it needs no jail", at_key=True)
    if "agent" in spec and "jail" in spec:
        yield Problem(("spec", "jail"), "its agent has a jail of its own", at_key=True)
    if "python" in spec and not (spec["python"].get("source") or (spec.get("jail") or {})):
        yield Problem(("spec", "python", "source"), "is required without a jail", reason="FieldValueRequired")
    if (spec.get("python") or {}).get("source") and (spec.get("jail") or {}).get("source"):
        yield Problem(("spec", "jail", "source"), "is spec.python.source already", at_key=True)
    if spec.get("everywhere") and metadata.get("namespace", EVERYWHERE) != EVERYWHERE:
        told = f'only Tools of the namespace "{EVERYWHERE}" are for everybody'
        yield Problem(("spec", "everywhere"), told)
    seconds = _parsed(quantities.parse_duration, spec.get("timeout"))
    if seconds is not None and not 0 < seconds <= 86400:
        yield Problem(
            ("spec", "timeout"), f'expected more than nothing and at most 24h, found "{spec["timeout"]}"'
        )


def grants(spec: Spec) -> Found:
    """What is wrong with an Agent's list of tools."""
    first: dict[Any, int] = {}
    for at, one in enumerate(spec.get("tools") or ()):
        name = (one.get("ref") or {}).get("name")
        if name is not None and name in first:
            told = f'tools[{first[name]}] is about "{name}" too'
            yield Problem(("spec", "tools", at, "ref", "name"), told, "write one entry for each Tool")
        first.setdefault(name, at)
        for index, rule in enumerate(one.get("arguments") or ()):
            if "allow" not in rule and "deny" not in rule:
                path: Path = ("spec", "tools", at, "arguments", index)
                yield Problem(path, "expected allow or deny", reason="FieldValueRequired")


def _command(command: Spec, path: Path) -> Found:
    known = yield from _parameters(command, path)
    argv = command.get("argv") or []
    for at, item in enumerate(argv):
        template = yield from _template(item, known, (*path, "argv", at))
        if at == 0 and (not item.strip() or templates.names(template) or templates.ALL in _holes(template)):
            yield Problem((*path, "argv", 0), "the program is named in the manifest, not by the call")
    if "stdin" in command:
        yield from _template(command["stdin"], known, (*path, "stdin"))


def _python(python: Spec, path: Path) -> Found:
    seen: set[str] = set()
    for at, function in enumerate(python.get("functions") or ()):
        name = str(function).rpartition(":")[2]
        if name in seen:
            yield Problem((*path, "functions", at), f'another function is named "{name}" too')
        if name.startswith("_"):
            yield Problem((*path, "functions", at), "a name that begins with '_' is not offered to anybody")
        seen.add(name)


def _http(http: Spec, path: Path) -> Found:
    if "openapi" in http:
        for field in ("query", "body", "parameters", "method"):
            if http.get(field, "GET") != "GET":
                yield Problem((*path, field), "the operation of spec.http.openapi says it", at_key=True)
        yield from _document(http, (*path, "openapi"))
        known: Names = None
    else:
        known = yield from _parameters(http, path)
        url = yield from _template(http.get("url", ""), known, (*path, "url"))
        yield from _address(http.get("url", ""), url, http, (*path, "url"))
    for name, text in (http.get("query") or {}).items():
        yield from _template(text, known, (*path, "query", name))
    for at, header in enumerate(http.get("headers") or ()):
        where: Path = (*path, "headers", at)
        if "value" in header:
            yield from _template(header["value"], known, (*where, "value"))
            if "prefix" in header:
                yield Problem((*where, "prefix"), "is only for the value of a Secret", at_key=True)
        elif "valueFrom" not in header:
            yield Problem((*where, "value"), "is required", reason="FieldValueRequired")
    if "body" in http:
        yield from _template(http["body"], known, (*path, "body"))
        if http.get("method", "GET") in ("GET", "HEAD"):
            yield Problem((*path, "body"), f"a {http.get('method', 'GET')} has no body", "method: POST", True)


def _document(http: Spec, path: Path) -> Found:
    """A document is somebody else's: it does not say where Secrets go, nor what of this machine's network is asked."""
    if (http.get("openapi") or {}).get("server"):
        return
    secret = any("valueFrom" in header for header in http.get("headers") or ())
    if secret or http.get("privateAddresses"):
        told = "is required: " + (
            "no Secret is sent to where a document says"
            if secret
            else "a document names no private addresses"
        )
        yield Problem((*path, "server"), told, "https://…", reason="FieldValueRequired")


def _address(text: str, template: templates.Template, http: Spec, path: Path) -> Found:
    """Where a request goes is written in the manifest, whole, or left to the caller and its rights, whole."""
    if templates.whole(template) not in ("", templates.ALL):
        if any("valueFrom" in header for header in http.get("headers") or ()):
            yield Problem((*path[:-1], "headers"), "no Secret is sent to an address that the caller names")
        return
    beginning = template[0] if template and isinstance(template[0], str) else ""
    scheme, found, rest = beginning.partition("://")
    authority = rest.partition("/")[0].partition("?")[0]
    ends_in_it = len(template) > 1 and "/" not in rest and "?" not in rest
    if scheme not in ("http", "https") or not found or not authority or "@" in authority or ends_in_it:
        told = "expected http:// or https:// and a host without placeholders, or one placeholder whole"
        yield Problem(path, told)
        return
    try:
        _ = parse.urlsplit(f"{scheme}://{authority}").port
    except ValueError:
        yield Problem(path, f"{authority[:64]!r} has no port that there is")


def _parameters(held: Spec, path: Path) -> Generator[Problem, None, Names]:
    """Yields what is wrong; answers the names there are, None when any may be given."""
    schema = held.get("parameters")
    if schema is None:
        return frozenset()
    if why := inputs.problem(schema, ours=True):
        yield Problem((*path, "parameters"), why)
        return None
    if schema.get("additionalProperties") not in (None, False):
        return None
    return frozenset(schema.get("properties") or ())


def _template(text: Any, known: Names, path: Path) -> Generator[Problem, None, templates.Template]:
    """Yields what is wrong; answers the template."""
    if not isinstance(text, str):
        return ()
    try:
        template = templates.parse(text)
    except errors.Invalid as error:
        yield Problem(path, error.message, error.hint)
        return ()
    for name in sorted(templates.names(template) - known) if known is not None else ():
        hint = f"parameters has {', '.join(sorted(known))}" if known else "parameters names none"
        yield Problem(path, f"{{{name}}} is no parameter", hint, reason="FieldValueNotFound")
    return template


def _holes(template: templates.Template) -> frozenset[str]:
    return frozenset(part.name for part in template if isinstance(part, templates.Hole))


def _parsed(parse_text: Callable[[str], float], text: Any) -> float | None:
    try:
        return parse_text(text) if isinstance(text, str) else None
    except errors.Invalid:  # told already, by its format
        return None


def of_manifest(parameters: Any) -> dict[str, Any]:
    """The schema of what a person wrote as `parameters`: nothing that it does not name, unless it says so."""
    made = json.loads(json.dumps(parameters or {}))
    made.setdefault("type", "object")
    made.setdefault("properties", {})
    made.setdefault("additionalProperties", False)
    return dict(made)


def _agent(agent: Spec, path: Path) -> Found:
    yield from _parameters(agent, path)


_BY_KIND: Mapping[str, Callable[[Spec, Path], Found]] = {
    "command": _command,
    "python": _python,
    "http": _http,
    "agent": _agent,
}
