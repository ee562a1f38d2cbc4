"""Answers what it is asked by mail, and remembers the conversation with each who asks.

A question is acknowledged when all is done for it. Whoever kills this program in between finds it going on where it
was: the question comes again, and what was said to it before is said again, word for word.
"""

from agentk.sdk import client

SYSTEM = "You are a guide to the town of Lisbon. One or two sentences."

agent = client.connect()
while True:
    for question in agent.message_recv(max=1, wait_seconds=300, lease_seconds=10):
        talk = agent.state.get(question.from_, {"messages": [], "answers": {}})
        if question.id not in talk["answers"]:
            talk["messages"].append({"role": "user", "content": question.body})
            messages = [{"role": "system", "content": SYSTEM}, *talk["messages"]]
            answer = str(agent.think(messages=messages))
            talk["messages"].append({"role": "assistant", "content": answer})
            talk["answers"][question.id] = answer
            agent.state[question.from_] = talk
        agent.message_send(question.from_, talk["answers"][question.id], reply_to=question.id)
        agent.message_ack([question.id])
        agent.log("answered", fields={"who": question.from_, "turn": len(talk["answers"])})
