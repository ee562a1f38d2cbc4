"""An agent with secrets, that only wants to live: its own files, socket and listener."""

import os
import signal
import socket

from attempts import FACTS

for folder in ("/workspace", "/tmp", "/dev/shm"):
    with open(folder + "/secret", "w") as file:
        file.write(FACTS["secret"])
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0" + FACTS["name"])
abstract.listen()
inside = socket.create_server(("127.0.0.1", FACTS["port"]))
print("VICTIM", os.getpid(), flush=True)
signal.pause()
