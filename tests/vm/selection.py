"""What is tried in the machine: what it alone has. The host tries all the rest, and most of this too.

It alone has unified cgroups, a systemd that delegates them, crun as root, and an ordinary user with jails and Podman of
its own. Emulated, everything takes ten times longer: a line here says what it alone can catch.

A pytest plugin (`-p tests.vm.selection`). A line that fits no test is an error, and so is a skip (`must_run`): the
machine has whatever these need.
"""

import os
import re

import pytest

# Begins with `test_`: a test's name begins so. Begins with `[`: its parameters do. `root:` and `user:` name an account.
# Cold boxes with the usual policy: another policy is another filter, and no other machine.
_BASELINE = ("user:[baseline-nsjail", "[baseline-podman")
_EACH = ("[nsjail", "[podman")
# Boxes that waited first, and other ways into one: the host tries them, but where a line says so.
_OTHER_WAYS = {"claimed", "beside", "hand", "typed"}

WANTED: dict[str, tuple[str, ...]] = {
    # The machine's own promises, Podman's among them.
    "tests/vm/guest/test_guest.py": ("test_",),
    # The v2 driver: limits bite, an OOM takes the leaf, freeze, kill, and who was moved aside.
    "tests/runtime/test_cgroup.py": ("test_",),
    # Workspaces: a file system with quotas, and a limit without root.
    "tests/runtime/test_workspace.py": ("root:test_project_quota", "user:test_without_root_a_limit"),
    # A launcher without root: jails whose keeper lives between two user namespaces.
    "tests/runtime/test_launcher.py": (
        "user:test_kill_takes_the_whole_tree",
        "user:test_workspace_survives",
        "test_frozen_box_does_nothing",
        "user:test_release_forgets_everything",
    ),
    "tests/runtime/test_launcher_adopting.py": (
        "user:test_exit_code_of_a_box_that_ended_meanwhile",
        "user:test_no_line_is_lost_or_doubled_by_deaths",
        "user:test_doors_are_made_anew",
    ),
    # Podman with crun, and rootless: starts, limits, exec, secrets, ends.
    "tests/runtime/test_launcher_podman.py": ("test_",),
    # Deaths around the container, its handle and its end, and of all that serves it.
    "tests/runtime/test_launcher_podman_deaths.py": (
        "test_death_while_starting_leaves_all_of_a_box_or_nothing[podman.after-start",
        "test_death_while_ending_loses_no_exit[end.after-drain",
        "test_running_box_is_found_again",
        "test_boxes_outlive_what_speaks_with_podman[ system service",
        "user:test_boxes_outlive_what_keeps_podmans_namespaces",
        "test_death_of_everything_at_once",
    ),
    # What is put into a box joins its namespaces, and a group of its own in the box's.
    "tests/runtime/test_launcher_entering.py": (
        "user:test_it_is_what_the_box_is[nsjail-baseline",
        "test_it_is_what_the_box_is[podman-baseline",
        "test_its_end_is_the_end_of_all_that_it_started[box-podman",
        "user:test_it_stands_still_with_its_box[nsjail",
        "test_the_agents_limits_hold_them_all[podman",
    ),
    # Every hard limit and every leftover; of the other escapes a sample.
    "tests/escapes/test_limits.py": (
        *_EACH,
        "test_memory_kills_the_box_and_is_counted[podman-hand",
        "user:test_the_workspace_is_full_at_its_size[nsjail-claimed",
    ),
    "tests/escapes/test_leftovers.py": (
        *_EACH,
        "test_what_was_put_into_a_box_ends_with_its_launcher[podman-hand",
    ),
    "tests/escapes/test_kernel_calls.py": _BASELINE,
    "tests/escapes/test_others.py": (*_BASELINE, "user:[nsjail", "[podman"),
    "tests/escapes/test_sight.py": _BASELINE,
    # A person's way through a daemon in a scope of its own, on both runtimes.
    "tests/flows/test_life.py": (
        "test_from_apply_to_delete[",
        "test_suspend_and_resume_stop_and_go_on[podman",
    ),
    # A workspace that a box in a cgroup v2 froze for, and one that is a user's own, out and in again.
    "tests/flows/test_checkpoints.py": (
        "root:test_after_a_failure_it_begins_with_the_last_one[podman",
        "user:test_after_a_failure_it_begins_with_the_last_one[nsjail",
    ),
    "tests/flows/test_runtimes.py": ("test_an_end_is_told_the_same",),
}


def arguments() -> list[str]:
    """pytest's."""
    return ["-p", "tests.vm.selection", "-v", "--durations=15", *WANTED]


def must_run() -> list[str]:
    """Of each file, for whom something is tried of it."""
    accounts = {file: {_account(wish)[0] for wish in wishes} for file, wishes in WANTED.items()}
    return [
        f"{min(whose)}:{file}" if whose in ({"root"}, {"user"}) else file for file, whose in accounts.items()
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    who = os.environ.get("AGENTK_VM", "")
    lines = [
        (file, line)
        for file, wishes in WANTED.items()
        for account, line in map(_account, wishes)
        if account in ("", who)
    ]
    fitting = {item: [line for line in lines if _fits(item, *line)] for item in items}
    files = {item.nodeid.partition("::")[0] for item in items}
    idle = {line for line in lines if line[0] in files} - {
        line for found in fitting.values() for line in found
    }
    if idle and not config.getoption("lf"):  # what failed, once more, is a few of them
        raise pytest.UsageError(f"tests/vm/selection.py names what is not there: {sorted(idle)}")
    config.hook.pytest_deselected(items=[item for item in items if not fitting[item]])
    items[:] = [item for item in items if fitting[item]]


def _account(wish: str) -> tuple[str, str]:
    """Whose it is, nobody's for both, and the line."""
    who, colon, line = wish.partition(":")
    return (who, line) if colon and who in ("root", "user") else ("", wish)


def _fits(item: pytest.Item, file: str, line: str) -> bool:
    _, bracket, values = item.name.partition("[")
    told = item.name if line.startswith("test_") else f"{bracket}{values}"
    other = _OTHER_WAYS & set(re.split(r"[- \]]", values)) - set(re.split(r"[- \[]", line))
    return item.nodeid.startswith(f"{file}::") and told.startswith(line) and not other
