"""Finds a Skill and runs it, keeps a new one, and has a helper that imports it."""

from pathlib import Path

from agentk.sdk import client

TEXT = "The tram climbs the hill. Nobody hurries, for the harbour is worth looking at.\n"
LONGEST = '''\
"""The longest word of a text, with what text-statistics takes for a word."""

from skills.text_statistics.scripts import count


def longest(text):
    return max(count._WORD.findall(text), key=len)
'''
HELPER = """\
from agentk.sdk import client
from skills import longest_word

with client.connect() as agent:
    agent.exit(result=longest_word.longest(agent.skill_get("text-statistics").description))
"""

with client.connect() as agent:
    found = agent.skill_search("how long is this text").items[0]
    print("found:", found.name, "by", "an agent" if found.saved else "a person")
    print("reads:", agent.skill_get(found.name).text.partition("\n# ")[2].partition("\n")[0])

    Path("/workspace/tram.txt").write_text(TEXT)
    told = agent.skill_run(found.name, script="scripts/count.py", argv=["tram.txt"])
    print("counts:", told.stdout.strip())

    kept = agent.skill_save("longest-word", "Finds the longest word of a text.", code=LONGEST)
    print("keeps: version", kept.version)

    spec = {"command": ["python", "-c", HELPER], "skills": {"use": [{"name": "*"}]}, "restartPolicy": "Never"}
    helper = agent.agent_spawn(spec)
    print("helper:", agent.agent_wait(helper.name, wait_seconds=60).result)
