"""Ten agents, one route that answers one call at a time, one of them asking from twenty threads.

Who was served how much is read from the journal, and put beside the same load on a plain first-come-first-served line,
measured here. Jain's index is 1 when all got the same and 0.1 when one got everything. Exits with 1 when turns were
not fair. Uses a state of its own and leaves nothing behind.
"""

import asyncio
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
AGENTK = Path(sys.executable).parent / "agentk"
NAMESPACE = "llm-contention"
LOAD = {"greedy": 20, **{f"polite-{number}": 1 for number in range(1, 10)}}  # calls at once, by agent
TOKENS, DELAY_SECONDS = 100, 0.02  # of one answer, as the manifest's rule has it
FAIR = 0.95
FIFO_SECONDS = 4.0

Call = dict[str, Any]


def jain(served: Mapping[str, float]) -> float:
    """Jain's fairness index (R. Jain et al., 1984)."""
    shares = list(served.values())
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares) or 1)


def contended(calls: Mapping[str, list[Call]]) -> tuple[Counter[str], float]:
    """Tokens by agent, and seconds, from when the last one began to ask until the first one stopped."""
    since = max(min(ended(one) for one in own) for own in calls.values())
    until = min(max(ended(one) for one in own) for own in calls.values())
    served = Counter(dict.fromkeys(calls, 0))
    for name, own in calls.items():
        served[name] += sum(one["used"]["tokens"] for one in own if since <= ended(one) <= until)
    return served, until - since


def ended(call: Call) -> float:
    return datetime.datetime.fromisoformat(call["time"]).timestamp() + float(call["durationSeconds"])


async def first_come() -> Counter[str]:
    """The same load on a line where who came first goes first."""
    line, served = asyncio.Semaphore(1), Counter(dict.fromkeys(LOAD, 0))

    async def ask(name: str) -> None:
        while True:
            async with line:
                await asyncio.sleep(DELAY_SECONDS)
                served[name] += TOKENS

    tasks = [asyncio.create_task(ask(name)) for name, at_once in LOAD.items() for _ in range(at_once)]
    await asyncio.wait(tasks, timeout=FIFO_SECONDS)
    for task in tasks:
        task.cancel()
    return served


def main() -> int:
    state = Path(tempfile.mkdtemp(prefix="agentk-contention-"))
    env = {**os.environ, "AGENTK_STATE_DIR": str(state)}
    try:
        say("$ agentk apply -f examples/llm-contention/manifest.yaml")
        say(agentk(env, "apply", "-f", str(HERE / "manifest.yaml")).rstrip())
        for name in LOAD:
            agentk(
                env,
                "wait",
                "--for=jsonpath={.status.phase}=Succeeded",
                f"agent/{name}",
                "-n",
                NAMESPACE,
                "--timeout",
                "120s",
            )
        return report(env)
    finally:
        subprocess.run([AGENTK, "daemon", "stop", "--agents"], env=env, capture_output=True, check=False)
        shutil.rmtree(state, ignore_errors=True)


def report(env: dict[str, str]) -> int:
    calls = {}
    for name in LOAD:
        told = json.loads(agentk(env, "audit", name, "-n", NAMESPACE, "-o", "json", "--limit", "0"))
        calls[name] = [one for one in told["items"] if one["method"] == "think" and one["status"] == "ok"]
    served, seconds = contended(calls)
    plain = asyncio.run(first_come())
    say(f"\n{'AGENT':<10} {'AT ONCE':>7} {'TOKENS':>8} {'SHARE':>7} {'FIRST COME':>11}")
    for name, at_once in LOAD.items():
        share, other = served[name] / served.total(), plain[name] / plain.total()
        say(f"{name:<10} {at_once:>7} {served[name]:>8} {share:>7.1%} {other:>11.1%}")
    fair, unfair = jain(served), jain(plain)
    say(
        f"\nJain's index over {seconds:.1f} s of contention: {fair:.3f}; first come, first served: {unfair:.3f}"
    )
    say("turns were fair" if fair >= FAIR else f"FAILED: below {FAIR}")
    return 0 if fair >= FAIR else 1


def agentk(env: dict[str, str], *words: str) -> str:
    """What the command prints. Raises SystemExit with its error."""
    done = subprocess.run([AGENTK, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"FAILED: agentk {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
