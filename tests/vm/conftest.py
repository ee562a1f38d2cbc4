"""Tests below guest/ run only inside the machine, where in turn no second machine is booted."""

import os

collect_ignore_glob = ["test_vm.py"] if "AGENTK_VM" in os.environ else ["guest/*"]
