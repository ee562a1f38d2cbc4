"""Takes all it can of one thing, and says where the kernel stopped it."""

import errno
import os
import resource
import sys
import threading
import time

from attempts import FACTS, answer, report

KIND, AMOUNT = FACTS["kind"], FACTS.get("amount", 0)
CHUNK = 64 * 1024


def memory():
    """On the heap, every page of it."""
    print("BEGUN", flush=True)
    held = []
    for _ in range(AMOUNT // CHUNK):
        held.append(b"x" * CHUNK)
    report(survived=len(held) * CHUNK)


def file():
    """Into one file until there is no room."""
    written, refused = 0, ""
    fd = os.open(FACTS["path"], os.O_CREAT | os.O_WRONLY)
    try:
        while written < AMOUNT:
            written += os.write(fd, b"x" * CHUNK)
    except OSError as error:
        refused = errno.errorcode[error.errno]
    report(written=written, refused=refused, after=answer(open, FACTS["path"] + "2", "x"))


def inodes():
    """Empty files until there is no room for another."""
    made, refused = 0, ""
    try:
        while made < AMOUNT:
            os.close(os.open(f"{FACTS['path']}/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        refused = errno.errorcode[error.errno]
    report(made=made, refused=refused)


def forks():
    """A bomb: every child goes on forking, for ever."""
    refused = ""
    made = 0
    while not refused:
        try:
            if os.fork() == 0:
                while True:
                    try:
                        os.fork()
                    except OSError:
                        time.sleep(0.01)
            made += 1
        except OSError as error:
            refused = errno.errorcode[error.errno]
    report(made=made, refused=refused)
    while True:
        time.sleep(0.01)


def threads():
    made, refused = 0, ""
    stop = threading.Event()
    threading.stack_size(256 * 1024)
    running = []
    try:
        while made < AMOUNT:
            thread = threading.Thread(target=stop.wait)
            thread.start()
            running.append(thread)
            made += 1
    except RuntimeError as error:
        refused = str(error)
    stop.set()
    for thread in running:
        thread.join()
    report(made=made, refused=refused)


def descriptors():
    made, refused = [], ""
    try:
        while len(made) < AMOUNT:
            made.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        refused = errno.errorcode[error.errno]
    highest = max(made)
    for fd in made:
        os.close(fd)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    report(refused=refused, highest=highest, hard=hard, raised=_raised(hard))


def _raised(hard):
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except (ValueError, OSError) as error:
        return f"refused: {error}"
    return "allowed"


def flood():
    """Numbered lines, as fast as they go."""
    rest = "x" * FACTS["width"]
    for number in range(AMOUNT):
        sys.stdout.write(f"LINE {number} {rest}\n")
    sys.stdout.flush()
    report(written=AMOUNT)


def cpu():
    """Burn so many microseconds of CPU on two threads of control, and say how long that took."""
    begun = time.monotonic()
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            while time.process_time() * 2_000_000 < AMOUNT:
                pass
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report(elapsed=time.monotonic() - begun, used=used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    {
        "memory": memory,
        "file": file,
        "inodes": inodes,
        "forks": forks,
        "threads": threads,
        "descriptors": descriptors,
        "flood": flood,
        "cpu": cpu,
    }[KIND]()
