"""Answers a question from the documents beside it, keeps notes that outlive this process, and cites what it used."""

import json
import os
import pathlib
import re

from agentk.sdk import client

SHELF = pathlib.Path("/app/documents")
SYSTEM = "You answer from the documents alone. Search, read, note each fact with its document, then answer and cite."
STEPS = 20

agent = client.connect()


def search(words):
    """Documents with the most of the words, and the line that holds most of them."""
    wanted = set(re.findall(r"\w+", words.lower()))

    def hits(text):
        return len(wanted & set(re.findall(r"\w+", text.lower())))

    found = sorted(SHELF.glob("*.md"), key=lambda path: (-hits(path.read_text()), path.name))
    lines = [
        f"{path.name}: {max(path.read_text().splitlines(), key=hits)}"
        for path in found[:5]
        if hits(path.read_text())
    ]
    return "\n".join(lines) or "nothing"


def read(document):
    path = SHELF / pathlib.Path(document).name
    return path.read_text() if path.is_file() else f"there is no {document}"


def note(fact, document):
    """Kept by agentk, not by this process."""
    notes = agent.state.get("notes", [])
    if {"fact": fact, "document": document} not in notes:
        agent.state["notes"] = [*notes, {"fact": fact, "document": document}]
    return "noted"


def tool(name, about, **arguments):
    fields = {key: {"type": "string", "description": what} for key, what in arguments.items()}
    parameters = {"type": "object", "properties": fields, "required": list(fields)}
    return {
        "type": "function",
        "function": {"name": name, "description": about, "parameters": parameters},
    }


TOOLS = [
    tool("search", "Find documents.", words="Words to look for."),
    tool("read", "Read one document.", document="Its name."),
    tool("note", "Keep a fact for the answer.", fact="One sentence.", document="Where it is from."),
]
question = os.environ["QUESTION"]
known = "".join(f"\n- {one['fact']} [{one['document']}]" for one in agent.state.get("notes", []))
asked = question + (f"\n\nNoted before:{known}" if known else "")
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
for _ in range(STEPS):
    thought = agent.think(messages=messages, tools=TOOLS)
    messages.append(thought.message)
    if not thought.tool_calls:
        print("answer:", thought.text, flush=True)
        for one in agent.state.get("notes", []):
            print(f"  [{one['document']}] {one['fact']}", flush=True)
        agent.exit(message="answered", result=thought.text)
        raise SystemExit
    for call in thought.tool_calls:
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        print(f"{name}:", ", ".join(arguments.values()), flush=True)
        answer = {"search": search, "read": read, "note": note}[name](**arguments)
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": answer})
agent.exit(code=1, message=f"no answer after {STEPS} steps")
