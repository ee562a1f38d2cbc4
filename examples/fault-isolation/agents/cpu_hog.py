"""Burns every CPU it can get for some seconds and says how much it got."""

import os
import time

SECONDS = float(os.environ.get("SECONDS", "6"))
end = time.monotonic() + SECONDS
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        while time.monotonic() < end:
            pass
        os._exit(0)
    children.append(pid)
while time.monotonic() < end:
    pass
for pid in children:
    os.waitpid(pid, 0)
used = sum(os.times()[:4])
print(f"burned {used:.2f} s of CPU in {SECONDS:.0f} s", flush=True)
