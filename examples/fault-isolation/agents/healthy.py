"""Does its work beside all the others: a beat every 50 ms, and the longest gap it ever saw."""

import os
import time

SECONDS = float(os.environ.get("SECONDS", "10"))
start = last = time.monotonic()
beats, longest = 0, 0.0
while last - start < SECONDS:
    time.sleep(0.05)
    now = time.monotonic()
    longest, last, beats = max(longest, now - last), now, beats + 1
    with open("/workspace/.heartbeat", "w") as file:
        file.write(str(beats))
print(f"beats={beats} longest_gap_ms={longest * 1000:.0f}", flush=True)
