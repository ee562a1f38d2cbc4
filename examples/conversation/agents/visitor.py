"""Asks the guide a few questions, one after the other, and prints the conversation."""

from agentk.sdk import client

QUESTIONS = ("What should I see first?", "How do I get there?", "And where do I eat afterwards?")

agent = client.connect()
for question in QUESTIONS:
    print("visitor:", question, flush=True)
    asked = agent.message_send("guide", question)
    answered = False
    while not answered:
        for answer in agent.message_recv(wait_seconds=60):
            if answer.reply_to == asked:  # an answer may come twice; only the first is news
                print("guide:  ", answer.body, flush=True)
                answered = True
            agent.message_ack([answer.id])
