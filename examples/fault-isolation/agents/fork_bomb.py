"""Forks as fast as it can for some seconds and says how far it came."""

import os
import time

end = time.monotonic() + float(os.environ.get("SECONDS", "3"))
alive, refused, most = [], 0, 0
while time.monotonic() < end:
    try:
        pid = os.fork()
    except OSError:
        refused += 1
        time.sleep(0.001)
        continue
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    alive.append(pid)
    most = max(most, len(alive))
print(f"had {most} children; fork was refused {refused} times", flush=True)
