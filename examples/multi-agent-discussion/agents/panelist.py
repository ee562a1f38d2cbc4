"""Says what it thinks, from its own point of view, whenever the moderator asks. Ends when the moderator is done."""

import os

from agentk.sdk import client

agent = client.connect()
me = agent.hello().agent
while True:
    for asked in agent.message_recv(max=1, wait_seconds=300):
        if asked.body.get("over"):
            agent.message_ack([asked.id])
            raise SystemExit
        others = "\n".join(f"{who}: {said}" for who, said in asked.body["said"].items() if who != me)
        prompt = f"Topic: {asked.body['topic']}\nRound {asked.body['round']}.\n{others}"
        said = str(agent.think(prompt, system=os.environ["POINT_OF_VIEW"]))
        agent.message_send(asked.from_, {"round": asked.body["round"], "said": said}, reply_to=asked.id)
        agent.message_ack([asked.id])
