"""Asks every panelist, round by round: each hears what the others said in the round before. Then sums up.

Whoever is on the panel is found by a label; a broadcast reaches them all, and says how many they are.
"""

from agentk.sdk import client

TOPIC = "Should the town close its centre to cars?"
ROUNDS = 2

agent = client.connect()
said = {}
for number in range(1, ROUNDS + 1):
    print(f"round {number}", flush=True)
    question = {"topic": TOPIC, "round": number, "said": said}
    asked = agent.message_broadcast(question, label_selector="role=panelist")
    answers = {}
    while len(answers) < asked.delivered:
        for answer in agent.message_recv(wait_seconds=60):
            if answer.body["round"] == number:
                answers[answer.from_.partition("/")[2]] = answer.body["said"]
            agent.message_ack([answer.id])
    said = dict(sorted(answers.items()))
    for who, what in said.items():
        print(f"  {who}: {what}", flush=True)
agent.message_broadcast({"over": True}, label_selector="role=panelist")
text = "\n".join(f"{who}: {what}" for who, what in said.items())
summary = str(agent.think(f"Sum up what they agree on:\n{text}", system="You moderate a panel."))
print("summary:", summary, flush=True)
agent.log("discussed", fields={"rounds": ROUNDS, "panelists": len(said)})
