"""Corrects a text."""

from agentk.sdk import client

agent = client.connect()
task = agent.task()
said = agent.think(f"Correct this, {task.get('style', 'plain')}: {task['text']}", max_tokens=200).text
agent.exit(result={"text": said, "changed": said != task["text"]})
