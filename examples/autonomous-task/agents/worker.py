"""Works on a task until the model calls finish. Runs programs in a jail beside it; gives parts to helpers it spawns."""

import json
import os

from agentk.sdk import client

SYSTEM = "You work on a task by yourself. Use the tools, one step at a time, and call finish with the answer."
STEPS = 20
# A helper thinks once and ends with what it thought. It has the worker's limits, and uses the worker's budget.
HELPER = """
import os
from agentk.sdk import client
agent = client.connect()
thought = agent.think(os.environ["TASK"], system="You help with one part of a larger task.")
agent.exit(message="done", result=str(thought))
"""

agent = client.connect()


def run(code):
    done = agent.exec_python(code, timeout_seconds=30)
    return done.stdout.strip() if done.ok else f"exit code {done.exit_code}: {done.stderr[-2000:]}"


def delegate(task):
    spec = {"command": ["python", "-c", HELPER], "env": [{"name": "TASK", "value": task}]}
    helper = agent.agent_spawn(spec, labels={"role": "helper"})
    ended = agent.agent_wait(helper.name)
    return str(ended.result) if ended.reason == "Completed" else f"{ended.reason}: {ended.message}"


def tool(name, about, argument):
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {
        "type": "function",
        "function": {"name": name, "description": about, "parameters": parameters},
    }


TOOLS = [
    tool("run", "Run a Python program; answers with what it prints.", "code"),
    tool("delegate", "Let a helper think about one part; answers with its thought.", "task"),
    tool("finish", "The task is done.", "answer"),
]
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": os.environ["TASK"]}]
for _ in range(STEPS):
    thought = agent.think(messages=messages, tools=TOOLS)
    messages.append(thought.message)
    if thought.text:
        print("thinks:", thought.text, flush=True)
    for call in thought.tool_calls:
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        if name == "finish":
            print("finishes:", arguments["answer"], flush=True)
            agent.exit(message="the task is done", result=arguments["answer"])
            raise SystemExit
        answer = {"run": run, "delegate": delegate}[name](**arguments)
        print(f"{name}:", answer, flush=True)
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": answer})
agent.exit(code=1, message=f"not done after {STEPS} steps")
