"""Looks for the tools it needs, calls them, and is told no once."""

from agentk.sdk import client, errors

ORDERS = "ada: pen, pen, book\ngrace: lamp\nada: lamp\n"

with client.connect() as agent:
    names = [one.name for one in agent.tool_list("write a file, what items cost").items]
    print("found:", ", ".join(sorted(names)))

    agent.tool_call("files__write", {"path": "orders/today.txt", "text": ORDERS})
    print(
        "ada ordered:",
        agent.tool_call("count", {"text": "ada", "file": "orders/today.txt"}).structured,
        "times",
    )

    items = [item.strip() for line in ORDERS.splitlines() for item in line.partition(":")[2].split(",")]
    cost = agent.tool_call("prices__total", {"items": items}).structured
    print("all of it:", agent.tool_call("calculator", {"expression": f"{cost['total']} * 1.2"}))

    long = agent.tool_call("prices__catalogue", {"times": 1000})
    assert long.file is not None
    print("the catalogue:", long.file["kind"], "in a file; lamp is there", end=" ")
    print(agent.tool_call("count", {"text": "lamp", "file": long.file["path"]}).structured, "times")

    try:
        agent.tool_call("files__write", {"path": "notes.txt", "text": "mine"})
    except errors.Denied as refused:
        print("no:", refused)
