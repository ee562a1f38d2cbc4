"""Answers with facts on the subject it is given."""

from agentk.sdk import client

agent = client.connect()
agent.exit(result=agent.think(f"One line of facts on {agent.task()}", max_tokens=200).text)
