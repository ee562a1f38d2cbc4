"""Says hello as soon as it runs, with what was bound to it when it was handed its box."""

import os
import sys

from agentk.sdk import client

agent = client.connect()
loaded = "was loaded already" if "email.message" in sys.modules else "was not loaded"
print(f"{os.environ['GREETING']} from {os.environ['AGENTK_AGENT']}; email.message {loaded}")
print(f"the gate answers: {agent.noop('yes')}")
