"""Looks at a series of numbers: its mean, and what stands out."""

import statistics

from agentk.sdk import client

agent = client.connect()
task = agent.task()
values = task["values"]
mean, spread = statistics.fmean(values), statistics.pstdev(values)
peaks = [at for at, value in enumerate(values) if value > mean + 2 * spread]
print(f"{task['title']}: {len(values)} values, mean {mean:.1f}", flush=True)
agent.exit(result={"title": task["title"], "mean": round(mean, 2), "peaks": peaks})
