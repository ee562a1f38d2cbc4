"""An agent loop as in the OpenAI SDK's own documentation. Nothing in it knows of agentk."""

import json

from openai import OpenAI

client = OpenAI()
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def weather(city: str) -> str:
    return f"21 degrees and sunny in {city}"


messages = [{"role": "user", "content": "What is the weather in Lisbon?"}]
while True:
    answer = client.chat.completions.create(model="gpt", messages=messages, tools=TOOLS)
    message = answer.choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    if not message.tool_calls:
        print("answer:", message.content, flush=True)
        break
    for call in message.tool_calls:
        print("calls:", call.function.name, call.function.arguments, flush=True)
        result = weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

print("streamed: ", end="")
stream = client.chat.completions.create(model="gpt", messages=messages[:-1], stream=True)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="")
print(flush=True)
