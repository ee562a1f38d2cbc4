"""`make bench`: every measurement of tests/bench/README.md, one after the other."""

import subprocess
import sys

NAMES = (
    "first_output",
    "waiting",
    "podman_start",
    "cli_start",
    "store_writes",
    "thousand",
    "mounts",
    "room",
    "gate_noop",
    "gate_journal",
    "gate_models",
    "gate_neighbours",
    "code_tokens",
    "context",
    "pages",
    "checkpoints",
    "memory_search",
    "memory_meaning",
    "audit_query",
    "scheduling",
    "promises",
)

if __name__ == "__main__":
    for name in NAMES:
        print(f"\n== python -m tests.bench.{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=True)
