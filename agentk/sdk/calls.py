"""Every call of the gate as a function: its parameters in, a `Call` out. Nothing is sent here.

Both fronts send what these make, so a call is written once:

    agent = client.connect()
    agent.state_put("seen", 3)                        # the short way
    agent.call(calls.state_put("seen", 3), key="k1")  # the same, with a key of your own

A parameter that is not given is not sent: its default is the gate's, written in `schemas/syscalls.json`, which also
says what each means. A test holds this file equal to that one. Runs in jails: Python 3.9, standard library only.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Union

from agentk.sdk import answers, results
from agentk.sdk.answers import Call, Streaming, Subscription, as_tuple, given
from agentk.sdk.granted import skill_delete as skill_delete
from agentk.sdk.granted import skill_get as skill_get
from agentk.sdk.granted import skill_run as skill_run
from agentk.sdk.granted import skill_save as skill_save
from agentk.sdk.granted import skill_search as skill_search
from agentk.sdk.granted import tool_call as tool_call
from agentk.sdk.granted import tool_describe as tool_describe
from agentk.sdk.granted import tool_list as tool_list
from agentk.sdk.remembering import memory_forget as memory_forget
from agentk.sdk.remembering import memory_recall as memory_recall
from agentk.sdk.remembering import memory_remember as memory_remember
from agentk.sdk.remembering import memory_search as memory_search

Json = Any


# This agent, and nothing at all


def hello(client: Optional[str] = None) -> Call[results.Me]:
    """Who am I?  `agent.hello().agent` → "triage" """
    return Call("hello", given(client=client), as_tuple(results.Me))


def task() -> Call[Json]:
    """What am I to do?  `agent.task()` → "Sort new issues by severity."; None when nothing was said."""
    return Call("task", {}, lambda raw: raw.get("task"))


def noop(payload: Json = None) -> Call[Json]:
    """There and back: answers with the payload.  `agent.noop("ping")` → "ping" """
    return Call("noop", given(payload=payload), lambda raw: raw.get("payload"))


def log(message: str, *, level: Optional[str] = None, fields: Optional[Dict[str, Json]] = None) -> Call[None]:
    """A line for the agent's log.  `agent.log("sorted", fields={"issues": 12})`"""
    return Call("log", {"message": message, **given(level=level, fields=fields)}, answers.nothing)


def exit(
    code: Optional[int] = None, *, message: Optional[str] = None, result: Json = None,
    reason: Optional[str] = None, steps: Optional[int] = None,
) -> Call[None]:  # fmt: skip
    """How this agent ends, and what for; the box is stopped.  `agent.exit(result={"answer": 42})`"""
    params = given(code=code, message=message, result=result, reason=reason, steps=steps)
    return Call("exit", params, answers.nothing)


# Models


def think(
    prompt: Optional[str] = None,
    *,
    messages: Optional[Sequence[Dict[str, Any]]] = None,
    system: Optional[str] = None,
    model: Optional[str] = None,
    max_tokens: Optional[int] = None,
    temperature: Optional[float] = None,
    top_p: Optional[float] = None,
    stop: Optional[Sequence[str]] = None,
    seed: Optional[int] = None,
    tools: Optional[Sequence[Dict[str, Any]]] = None,
    tool_choice: Union[str, Dict[str, Any], None] = None,
    response_format: Optional[Dict[str, Any]] = None,
    reasoning_effort: Optional[str] = None,
    timeout_seconds: Optional[float] = None,
) -> Streaming[results.Thought, results.Piece]:
    """Asks a model: one prompt, or messages as OpenAI has them.

    answer = agent.think("Which of these is urgent?", max_tokens=200)
    print(answer, answer.usage.cost_usd)
    """
    params = given(
        prompt=prompt, messages=messages, system=system, model=model, maxTokens=max_tokens,
        temperature=temperature, topP=top_p, stop=stop, seed=seed, tools=tools, toolChoice=tool_choice,
        responseFormat=response_format, reasoningEffort=reasoning_effort, timeoutSeconds=timeout_seconds,
    )  # fmt: skip
    return Streaming("think", params, answers.thought, as_tuple(results.Piece))


def embed(
    input: Union[str, Sequence[str]],
    *,
    model: Optional[str] = None,
    dimensions: Optional[int] = None,
    timeout_seconds: Optional[float] = None,
) -> Call[results.Embedded]:
    """Texts to vectors.  `agent.embed(["a cat", "a dog"]).embeddings[0]` → [0.01, …]"""
    texts = [input] if isinstance(input, str) else list(input)
    rest = given(model=model, dimensions=dimensions, timeoutSeconds=timeout_seconds)
    return Call("embed", {"input": texts, "encoding": "base64", **rest}, answers.embedded)


# Running programs


def exec(
    code: Optional[str] = None,
    *,
    language: Optional[str] = None,
    argv: Optional[Sequence[str]] = None,
    stdin: Optional[str] = None,
    encoding: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    working_dir: Optional[str] = None,
    timeout_seconds: Optional[float] = None,
    output_bytes: Optional[int] = None,
    limits: Optional[Dict[str, Any]] = None,
    background: Optional[bool] = None,
    session: Optional[str] = None,
) -> Streaming[results.Ran, results.Piece]:
    """Runs code, or a program, in a jail beside this one. One that fails is no error: look at exit_code.

    ran = agent.exec(argv=["wc", "-l", "notes.txt"], timeout_seconds=5); print(ran.exit_code, ran.stdout)
    """
    params = given(
        code=code, language=language, argv=argv, stdin=stdin, encoding=encoding, env=env,
        workingDir=working_dir, timeoutSeconds=timeout_seconds, outputBytes=output_bytes, limits=limits,
        background=background, session=session,
    )  # fmt: skip
    return Streaming("exec", params, as_tuple(results.Ran), as_tuple(results.Piece))


def exec_python(
    code: str, *, stdin: Optional[str] = None, timeout_seconds: Optional[float] = None
) -> Streaming[results.Ran, results.Piece]:
    """Python in a jail.  `agent.exec_python("print(6 * 7)").stdout` → "42\\n" """
    return exec(code, language="python", stdin=stdin, timeout_seconds=timeout_seconds)


def exec_shell(
    code: str, *, stdin: Optional[str] = None, timeout_seconds: Optional[float] = None
) -> Streaming[results.Ran, results.Piece]:
    """Shell in a jail.  `agent.exec_shell("ls -l").stdout`"""
    return exec(code, language="shell", stdin=stdin, timeout_seconds=timeout_seconds)


def exec_poll(id: str, *, wait_seconds: Optional[float] = None) -> Call[results.Ran]:
    """How an exec in the background stands.  `agent.exec_poll(ran.id, wait_seconds=10).state`"""
    return Call("exec.poll", {"id": id, **given(waitSeconds=wait_seconds)}, as_tuple(results.Ran))


def exec_cancel(id: str) -> Call[bool]:
    """Ends an exec in the background; False when it had ended before."""
    return Call("exec.cancel", {"id": id}, answers.a_bool("cancelled"))


# Agents that this one makes


def agent_spawn(
    spec: Dict[str, Any],
    *,
    name: Optional[str] = None,
    labels: Optional[Dict[str, str]] = None,
    detached: Optional[bool] = None,
) -> Call[results.Spawned]:
    """Makes an agent within this one's budget and rights.

    worker = agent.agent_spawn({"command": ["python3", "/workspace/worker.py"]})
    print(agent.agent_wait(worker.name).result)
    """
    rest = given(name=name, labels=labels, detached=detached)
    return Call("agent.spawn", {"spec": spec, **rest}, as_tuple(results.Spawned))


def agent_kill(name: str, *, grace_period_seconds: Optional[int] = None) -> Call[bool]:
    """Ends an agent that this one spawned; False when it had finished before."""
    return Call(
        "agent.kill",
        {"name": name, **given(gracePeriodSeconds=grace_period_seconds)},
        answers.a_bool("killed"),
    )


def agent_pause(name: str) -> Call[bool]:
    """Lets an agent that this one spawned stand still; False when it did already, or had finished."""
    return Call("agent.pause", {"name": name}, answers.a_bool("paused"))


def agent_resume(name: str) -> Call[bool]:
    """Lets a paused agent go on; False when it was not paused."""
    return Call("agent.resume", {"name": name}, answers.a_bool("resumed"))


def agent_list(
    *, label_selector: Optional[str] = None, limit: Optional[int] = None, continue_: Optional[str] = None
) -> Call[results.Members]:
    """This agent and those below it.  `[one.name for one in agent.agent_list().items]`"""
    params = given(labelSelector=label_selector, limit=limit, **{"continue": continue_})
    return Call("agent.list", params, answers.a_page(results.Members, results.Member))


def agent_wait(name: str, *, wait_seconds: Optional[float] = None) -> Call[results.Ended]:
    """Waits for an agent's end.  `agent.agent_wait("worker-1", wait_seconds=60).finished`"""
    return Call("agent.wait", {"name": name, **given(waitSeconds=wait_seconds)}, as_tuple(results.Ended))


# Messages and events


def message_send(to: str, body: Json, *, reply_to: Optional[str] = None) -> Call[str]:
    """Into another agent's mailbox; answers with the id.  `agent.message_send("boss", {"done": 3})`"""
    return Call("message.send", {"to": to, "body": body, **given(replyTo=reply_to)}, answers.a_text("id"))


def message_recv(
    *, max: Optional[int] = None, wait_seconds: Optional[float] = None, lease_seconds: Optional[float] = None
) -> Call[List[results.Message]]:
    """From this agent's mailbox. What is not acknowledged comes again.

    for message in agent.message_recv(wait_seconds=30):
        print(message.from_, message.body)
        agent.message_ack([message.id])
    """
    params = given(max=max, waitSeconds=wait_seconds, leaseSeconds=lease_seconds)
    return Call("message.recv", params, answers.a_list("messages", results.Message))


def message_ack(ids: Sequence[str]) -> Call[int]:
    """Done with these messages; answers how many were still there."""
    return Call("message.ack", {"ids": list(ids)}, answers.an_int("acknowledged"))


def message_broadcast(
    body: Json, *, label_selector: Optional[str] = None, include_self: Optional[bool] = None
) -> Call[results.Delivered]:
    """To every agent that this one may write to.  `agent.message_broadcast("hello").delivered`"""
    rest = given(labelSelector=label_selector, includeSelf=include_self)
    return Call("message.broadcast", {"body": body, **rest}, as_tuple(results.Delivered))


def event_emit(type: str, data: Json = None) -> Call[int]:
    """Tells whoever listens.  `agent.event_emit("build.done", {"ok": True})`"""
    return Call("event.emit", {"type": type, **given(data=data)}, answers.an_int("id"))


def event_subscribe(
    types: Optional[Sequence[str]] = None,
    *,
    after: Optional[int] = None,
    max: Optional[int] = None,
    wait_seconds: Optional[float] = None,
) -> Subscription:
    """Listens.  `for event in agent.events(["build.*"]): print(event.type, event.data)`"""
    params = given(types=types, after=after, max=max, waitSeconds=wait_seconds)
    return Subscription("event.subscribe", params, as_tuple(results.Heard), as_tuple(results.Event))


# What agents keep and share


def state_put(
    key: str, value: Json, *, ttl_seconds: Optional[float] = None, scope: Optional[str] = None
) -> Call[int]:
    """Keeps a value; answers with its version.  `agent.state_put("seen", [1, 2])`"""
    rest = given(ttlSeconds=ttl_seconds, scope=scope)
    return Call("state.put", {"key": key, "value": value, **rest}, answers.an_int("version"))


def state_get(key: str, *, scope: Optional[str] = None) -> Call[results.Value]:
    """A value, and whether there is one.  `agent.state_get("seen").value`"""
    return Call("state.get", {"key": key, **given(scope=scope)}, as_tuple(results.Value))


def state_delete(key: str, *, scope: Optional[str] = None) -> Call[bool]:
    """Forgets a value; False when there was none."""
    return Call("state.delete", {"key": key, **given(scope=scope)}, answers.a_bool("deleted"))


def state_list(
    prefix: Optional[str] = None,
    *,
    scope: Optional[str] = None,
    limit: Optional[int] = None,
    continue_: Optional[str] = None,
) -> Call[results.Keys]:
    """Keys that begin so.  `[one.key for one in agent.state_list("user/").items]`"""
    params = given(prefix=prefix, scope=scope, limit=limit, **{"continue": continue_})
    return Call("state.list", params, answers.a_page(results.Keys, results.Key))


def state_cas(
    key: str, value: Json, version: int, *, ttl_seconds: Optional[float] = None,
    scope: Optional[str] = None,
) -> Call[results.Swap]:  # fmt: skip
    """Keeps a value if nobody wrote since you read it (0: if there is none).

    seen = agent.state_get("n")
    agent.state_cas("n", seen.value + 1, seen.version).swapped
    """
    rest = given(ttlSeconds=ttl_seconds, scope=scope)
    return Call("state.cas", {"key": key, "value": value, "version": version, **rest}, as_tuple(results.Swap))


def lock_acquire(
    name: str, *, scope: Optional[str] = None, lease_seconds: Optional[float] = None,
    wait_seconds: Optional[float] = None, token: Optional[str] = None,
) -> Call[results.Lock]:  # fmt: skip
    """Takes a lock, or renews it by its token.  `agent.lock_acquire("db", wait_seconds=10).acquired`"""
    rest = given(scope=scope, leaseSeconds=lease_seconds, waitSeconds=wait_seconds, token=token)
    return Call("lock.acquire", {"name": name, **rest}, as_tuple(results.Lock))


def lock_release(name: str, token: str, *, scope: Optional[str] = None) -> Call[bool]:
    """Gives a lock back; False when it was no longer yours."""
    return Call(
        "lock.release", {"name": name, "token": token, **given(scope=scope)}, answers.a_bool("released")
    )


def queue_put(
    queue: str, item: Json, *, delay_seconds: Optional[float] = None, scope: Optional[str] = None
) -> Call[str]:
    """To the end of a queue; answers with the id.  `agent.queue_put("todo", {"issue": 7})`"""
    rest = given(delaySeconds=delay_seconds, scope=scope)
    return Call("queue.put", {"queue": queue, "item": item, **rest}, answers.a_text("id"))


def queue_get(
    queue: str, *, max: Optional[int] = None, wait_seconds: Optional[float] = None,
    lease_seconds: Optional[float] = None, scope: Optional[str] = None,
) -> Call[List[results.Item]]:  # fmt: skip
    """From the front of a queue. What is not acknowledged comes again.

    for one in agent.queue_get("todo", wait_seconds=30):
        print(one.item)
        agent.queue_ack("todo", [one.id])
    """
    rest = given(max=max, waitSeconds=wait_seconds, leaseSeconds=lease_seconds, scope=scope)
    return Call("queue.get", {"queue": queue, **rest}, answers.a_list("items", results.Item))


def queue_ack(queue: str, ids: Sequence[str], *, scope: Optional[str] = None) -> Call[int]:
    """Done with these items; answers how many were still there."""
    return Call(
        "queue.ack", {"queue": queue, "ids": list(ids), **given(scope=scope)}, answers.an_int("acknowledged")
    )


# People


def human_ask(
    question: str, *, choices: Optional[Sequence[str]] = None, default: Optional[str] = None,
    timeout_seconds: Optional[float] = None,
) -> Call[str]:  # fmt: skip
    """Asks a person, and waits for the answer. Raises ApprovalRequired when nobody gave one in time.

    agent.human_ask("Which one goes first?", choices=["a", "b"], default="a", timeout_seconds=600)
    """
    picks = None if choices is None else list(choices)
    rest = given(choices=picks, default=default, timeoutSeconds=timeout_seconds)
    return Call("human.ask", {"question": question, **rest}, answers.a_text("answer"))


# The world outside


def http_request(
    url: str, *, method: Optional[str] = None, headers: Optional[Dict[str, str]] = None,
    body: Optional[str] = None, encoding: Optional[str] = None, timeout_seconds: Optional[float] = None,
    max_bytes: Optional[int] = None, follow_redirects: Optional[bool] = None,
) -> Call[results.Reply]:  # fmt: skip
    """One request to a host the Policy allows, with its secrets put in on the way.

    print(agent.http_request("https://api.example.com/v1/me").status)
    """
    rest = given(
        method=method, headers=headers, body=body, encoding=encoding, timeoutSeconds=timeout_seconds,
        maxBytes=max_bytes, followRedirects=follow_redirects,
    )  # fmt: skip
    return Call("http.request", {"url": url, **rest}, as_tuple(results.Reply))
