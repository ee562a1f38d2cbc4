"""Writes one report of what its Task names."""

import json

from agentk.sdk import client

agent = client.connect()
deliveries = agent.task()["deliveries"]
said = agent.think(f"One sentence on these deliveries (days late): {json.dumps(deliveries)}", max_tokens=200)
print(said.text, flush=True)
agent.exit(result={"deliveries": len(deliveries), "report": said.text})
