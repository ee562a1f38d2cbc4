"""A program for the OpenAI SDK that knows nothing of agentk, and nothing of contexts: it appends to a list."""

import os

from openai import OpenAI

TURNS = int(os.environ.get("TURNS", "500"))
TOPICS = ("the weather", "a recipe", "a film", "the garden", "a book", "the news", "a walk", "the neighbours")

client = OpenAI()
messages = [{"role": "system", "content": "You are a friend who listens."}]


def say(text):
    messages.append({"role": "user", "content": text})
    told = client.chat.completions.create(model="model", messages=messages)
    messages.append({"role": "assistant", "content": told.choices[0].message.content})
    return told


for turn in range(1, TURNS):
    if turn == 3:
        text = "By the way, my boat is called Halcyon, and it is moored in Faro."
    else:
        text = (
            f"Turn {turn}: let me tell you about {TOPICS[turn % 8]}; it went on for {turn * 7} minutes or so."
        )
    told = say(text)

told = say("Where did I say that my boat is?")
sent = sum(len(message["content"]) for message in messages)
print(
    f"{len(messages)} messages, {sent:,} characters; the model was shown {told.usage.prompt_tokens:,} tokens"
)
print(told.choices[0].message.content)
