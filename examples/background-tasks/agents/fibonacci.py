"""Counts up to the number that its Task names."""

from agentk.sdk import client

agent = client.connect()
wanted = int(agent.task())
before, number = 0, 1
for step in range(2, wanted + 1):
    before, number = number, before + number
    if step % 100 == 0:
        print(f"{step} of {wanted}", flush=True)
agent.exit(message=f"fibonacci({wanted})", result={"n": wanted, "value": str(number)})
