"""Objects as people asked for them with `-o`. Fetching is the verbs' business, drawing is done here."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentk.api import kinds
from agentk.cli import columns, targets, usage

if TYPE_CHECKING:
    from agentk.cli import jsonpath

Object = dict[str, Any]

PLAIN = ("json", "yaml", "name", "wide")
WITH_ARGUMENT = ("jsonpath", "custom-columns")


@dataclass(frozen=True)
class Format:
    """`-o` taken apart: `name` is "" for the usual table."""

    name: str = ""
    argument: str = ""

    @property
    def is_table(self) -> bool:
        return self.name in ("", "wide")


def parse(option: str, allowed: Sequence[str] = PLAIN + WITH_ARGUMENT) -> Format:
    """Read `-o`. Raises Usage with the nearest format that is known; templates are read once here, too."""
    text = option.removeprefix("=")
    name, equals, argument = text.partition("=")
    if not text:
        return Format()
    if name not in allowed:
        import difflib  # heavy, and only for errors

        near = difflib.get_close_matches(name, allowed, n=1)
        hint = f"did you mean '-o {near[0]}'?" if near else f"use {', '.join(allowed)}"
        raise usage.Usage(f"unknown output format {name!r}", hint=hint)
    if name in WITH_ARGUMENT and not argument:
        example = {
            "jsonpath": "'{.status.phase}'",
            "custom-columns": "NAME:.metadata.name,PHASE:.status.phase",
        }
        raise usage.Usage(f"-o {name} needs a template", hint=f"for example -o {name}={example[name]}")
    if name in PLAIN and equals:
        raise usage.Usage(f"-o {name} takes no argument")
    if name == "jsonpath":
        _template(argument)
    if name == "custom-columns":
        _custom_columns(argument)
    return Format(name, argument)


def objects(found: Sequence[Object], form: Format, *, single: bool, headers: bool = True) -> str:
    """Objects in any format but a table. `single`: one object was asked for by name, so it stands alone."""
    if form.name == "name":
        return "".join(f"{name_of(obj)}\n" for obj in found)
    if form.name == "custom-columns":
        return custom(found, form.argument, headers)
    shown = [without_managed_fields(obj) for obj in found]
    content: Any = shown[0] if single and len(shown) == 1 else list_of(shown)
    if form.name == "jsonpath":
        return _template(form.argument).render(content)
    return document(content, form)


def custom(found: Sequence[Object], template: str, headers: bool = True) -> str:
    """`NAME:.metadata.name,…`; what is not there is `<none>`."""
    from agentk.cli import jsonpath

    pairs = _custom_columns(template)
    rows = [[",".join(map(jsonpath.words, path.find(obj, obj))) for _, path in pairs] for obj in found]
    return columns.draw([name for name, _ in pairs], rows, show=headers)


def list_of(items: Sequence[Object]) -> Object:
    return {"apiVersion": "v1", "items": list(items), "kind": "List", "metadata": {"resourceVersion": ""}}


def name_of(obj: Object) -> str:
    """`agent.agentk.dev/web`."""
    kind = kinds.find(obj["apiVersion"], obj["kind"])
    return str(targets.Target(kind, obj["metadata"]["name"]))


def without_managed_fields(obj: Object) -> Object:
    """As kubectl shows objects: who owns which field is noise to people."""
    if "managedFields" not in obj.get("metadata", {}):
        return obj
    return obj | {
        "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    }


def json_text(content: Any) -> str:
    text = json.dumps(content, indent=4, ensure_ascii=False)
    return columns.marked(text, lambda letter: json.dumps(letter)[1:-1]) + "\n"


def document(content: Any, form: Format) -> str:
    """As YAML when that was asked for, else as JSON. No letter of it drives a terminal, or cannot be seen there."""
    if form.name != "yaml":
        return json_text(content)
    text = yaml_text(content)
    return columns.marked(text, columns.safe) if sys.stdout.isatty() else text


def yaml_text(content: Any) -> str:
    """YAML with long texts as blocks, keys in the order the API gave them."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return str(
        yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    )


def write(text: str) -> None:
    """Data for stdout; a template's last line keeps the prompt off it only on a terminal."""
    sys.stdout.write(text)
    if text and not text.endswith("\n") and sys.stdout.isatty():
        sys.stdout.write("\n")


def say(text: str) -> None:
    """Words for people: stderr, so that data stays clean."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def _template(text: str) -> "jsonpath.Template":
    """kubectl takes `-o jsonpath=.a.b` for `{.a.b}`."""
    from agentk.cli import jsonpath  # its grammar costs 6 ms

    if "{" not in text:
        text = "{" + (text if text[:1] in ".[$@" else f".{text}") + "}"
    return jsonpath.parse(text)


def _custom_columns(template: str) -> list[tuple[str, "jsonpath.Path"]]:
    from agentk.cli import jsonpath

    pairs = []
    for column in template.split(","):
        name, colon, path = column.partition(":")
        if not (name and colon and path):
            raise usage.Usage(
                f"custom-columns: {column!r} is not NAME:PATH",
                hint="for example NAME:.metadata.name,PHASE:.status.phase",
            )
        pairs.append((name.strip(), jsonpath.compile_path(path)))
    return pairs
