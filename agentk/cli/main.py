"""`agentk`: finds the verb, imports only that verb's file, and prints every error in this one place."""

import importlib
import os
import sys
from collections.abc import Sequence

from agentk.api import errors
from agentk.cli import telling, usage

# Verb → what it does, in the order people meet them. The file is `agentk/cli/VERB.py` with an `app`.
VERBS: dict[str, dict[str, str]] = {
    "Everyday": {
        "apply": "Create or change objects from manifests",
        "diff": "Tell what apply would change",
        "get": "List objects, or show some",
        "describe": "Tell everything about an object, with its events",
        "logs": "Print what agents wrote",
        "events": "List what happened",
        "delete": "Delete objects",
    },
    "Agents": {
        "run": "Run one agent to its end and take over its exit code",
        "kill": "End agents: SIGTERM, grace, SIGKILL of the whole tree",
        "restart": "Start agents again in a new box",
        "checkpoint": "Keep agents as they are now: memory, workspace and object",
        "suspend": "Stop agents until they are resumed",
        "resume": "Let suspended agents go on",
        "task": "Send work to agents, wait for it, and read what came of it",
        "exec": "Run a command in the box of an agent",
        "attach": "Look on at an agent's own program, and type to it",
        "cp": "Copy files into a box and out of it",
        "port-forward": "Reach a port in the box of an agent from here",
        "wait": "Wait for a condition, a value or a deletion",
        "top": "Show what agents use now",
    },
    "Gate": {
        "audit": "Print what an agent did, and prove that the journal is whole",
        "trace": "Print a run as a tree of calls, with durations, tokens and cost",
        "approve": "Let calls through that wait for a person",
        "deny": "Refuse calls that wait for a person",
        "answer": "Answer a question of an agent",
        "tool": "Call Tools by hand, test and accept them, and propose some for programs of this machine",
        "skill": "List, show, test and delete Skills",
        "machine": "Make code of a routine of an agent that is a machine",
        "memory": "Look through what agents remember and are shown, add to it, move it and forget it",
        "auth": "Ask what an agent may do, and by which rule",
        "budget": "Show budgets, and give more to one",
    },
    "House": {
        "mcp": "Offer agentk to editors and other programs that speak MCP",
        "import": "Make Tools of a file of MCP servers",
        "compat": "Let programs written for AgentOS use the gate",
        "image": "Make images for agents, list and remove them",
        "doctor": "Check what this host can enforce, and how to mend the rest",
        "daemon": "Start, stop and look after the daemon",
        "backup": "Save all objects and memories to a file",
        "restore": "Bring back an agent from a Checkpoint, or all that backup saved",
    },
    "Words": {
        "explain": "Tell what a field means",
        "api-resources": "List the kinds",
        "version": "Print the versions",
        "completion": "Print a completion script for a shell",
    },
}
# What people type who know kubectl, and what does it here.
ELSEWHERE = {
    **dict.fromkeys(("create", "replace"), "agentk apply -f FILE"),
    **dict.fromkeys(
        ("edit", "patch", "set", "label", "annotate"),
        "agentk get KIND/NAME -o yaml > FILE, change it, agentk apply -f FILE",
    ),
    "scale": "agentk task run AGENT --each FILE  # or a Pool: agentk explain pool",
    "rollout": "agentk restart AGENT",
    "stop": "agentk suspend AGENT, or agentk kill AGENT",
    **dict.fromkeys(("ps", "ls", "list", "status"), "agentk get all"),
    **dict.fromkeys(("config", "cluster-info"), "agentk daemon status; AGENTK_NAMESPACE names the namespace"),
}
HIDDEN = frozenset({"complete"})  # asked by the completion scripts
NAMES = tuple(name for group in VERBS.values() for name in group)
# Codes of these mean something else, so their own failures need one that does not.
FAILURE = {"run": 125, "exec": 125, "attach": 125, "diff": 2}

HELP = """agentk: kubectl for AI agents, without the cluster.

Usage: agentk VERB [ARGUMENTS] [OPTIONS]
{verbs}
Example:
  agentk apply -f examples/quickstart && agentk logs -f hello

agentk VERB --help tells more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line. 0 is well, 1 an error, 2 a wrong command line; `run` has codes of its own."""
    words = _namespace_after_verb(list(sys.argv[1:] if arguments is None else arguments))
    if not words or words[0] in ("--help", "-h", "help"):
        if len(words) > 1 and words[0] == "help":
            return main([*words[1:], "--help"])
        sys.stdout.write(help_text())
        return 0 if words else 2
    verb = "version" if words[0] == "--version" else words[0]
    if verb not in NAMES and verb not in HIDDEN:
        return _unknown(verb)
    return _run(verb, words[1:])


def help_text() -> str:
    lines = []
    for group, verbs in VERBS.items():
        lines += ["", f"{group}:", *(f"  {name:<15}{about}" for name, about in verbs.items())]
    return HELP.format(verbs="\n".join(lines[0:]) + "\n")


def _run(verb: str, words: list[str]) -> int:
    import typer

    failure = FAILURE.get(verb, 1)
    try:
        app = importlib.import_module(f"agentk.cli.{verb.replace('-', '_')}").app
        code = app(words, prog_name=f"agentk {verb}", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except typer.TyperException as error:
        telling.error(usage.Usage(error.format_message(), hint=f"agentk {verb} --help"))
        return error.exit_code if verb not in FAILURE else failure
    except errors.AgentkError as error:
        telling.error(error, words)
        return 2 if isinstance(error, usage.Usage) and verb not in FAILURE else failure
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; do not complain again when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        telling.error(errors.Unavailable(f"{error.strerror or error}{where}"))
        return failure


def _unknown(verb: str) -> int:
    import difflib  # heavy, and only for errors

    near = difflib.get_close_matches(verb, NAMES, n=1)
    if verb in ELSEWHERE:
        telling.error(usage.Usage(f"unknown verb {verb!r}", hint=ELSEWHERE[verb]))
        return 2
    hint = f"did you mean 'agentk {near[0]}'?" if near else "agentk --help lists the verbs"
    what = "option" if verb.startswith("-") else "verb"
    telling.error(usage.Usage(f"unknown {what} {verb!r}", hint=hint))
    return 2


def _namespace_after_verb(words: list[str]) -> list[str]:
    """kubectl takes `-n NAMESPACE` before the verb too."""
    if len(words) > 2 and words[0] in ("-n", "--namespace"):
        return [words[2], words[0], words[1], *words[3:]]
    if len(words) > 1 and words[0].startswith("--namespace="):
        return [words[1], words[0], *words[2:]]
    return words


if __name__ == "__main__":
    sys.exit(main())
