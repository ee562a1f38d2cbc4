"""Asks one colleague for facts and another to put them right."""

from agentk.sdk import client

agent = client.connect()
facts = agent.tool_call("researcher", {"input": "storks"})
print("researcher:", facts, flush=True)
text = agent.tool_call("proofreader", {"text": str(facts), "style": "plain"})
print("proofreader:", text.structured["text"], flush=True)
agent.exit(result=text.structured)
