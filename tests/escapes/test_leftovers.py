"""A launcher that dies leaves nothing but what the next one finds. What boxes leave is checked after every test."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentk.api import errors
from agentk.runtime import box as words
from tests.escapes import outside, ways
from tests.escapes import prison as prisons

pytestmark = pytest.mark.jail

VICTIM = {"secret": "", "name": "v", "port": 9999}


@ways.by("", "typed")
def test_a_box_outlives_its_launcher_and_is_ended_by_the_next(prison: prisons.Prison, how: str) -> None:
    made = (prison.start_typed if how else prison.start)("victim", VICTIM)
    prison.said(made, b"VICTIM")
    prison.murder()
    assert made.process and outside.owners(made.process.pid)
    prison.launch()
    assert prison.see(made.id).process == made.process
    ended = prison.kill(made)
    assert (ended.exit.signal, ended.exit.intent) == (signal.SIGKILL, words.Intent("Killed"))


@ways.by("hand")
def test_what_was_put_into_a_box_ends_with_its_launcher(prison: prisons.Prison, how: str) -> None:
    """And the box itself does not."""
    made = prison.start_box(prison.box(["sleep", "1000"]))
    with ThreadPoolExecutor() as pool:
        put = pool.submit(prison.put, made, "victim", {**VICTIM, "name": made.uid})
        prisons.until("it is in the box", lambda: _named(made.uid))
        prison.murder()
        assert isinstance(put.exception(), ConnectionError)
    prisons.until("it has ended", lambda: not _named(made.uid))
    prison.launch()
    assert prison.see(made.id).phase == "Running"
    assert prison.kill(made).exit.intent == words.Intent("Killed")


def test_a_launcher_dead_in_the_middle_leaves_no_process(prison: prisons.Prison) -> None:
    """A half-made box leaves by itself, before anybody looks; the next launcher takes away the rest.

    Here at the moment when the box stands ready; the launcher's own tests go through every other.
    """
    prison.end_launcher()
    podman = prison.runtime == "podman"
    prison.launch(crash_at="podman.after-start" if podman else "start.after-ready")
    agent = prison.agent()
    before = set(outside.processes())
    with pytest.raises(errors.Unavailable):
        prison.start("victim", VICTIM, agent=agent)
    prison.process.wait(prisons.PATIENCE_SECONDS)
    if not podman:  # there its conmon may wait with it for the next launcher
        prisons.until("its processes are gone", lambda: not _new_guests(prison, before))
    prison.launch()
    prisons.until("its processes are gone", lambda: not _new_guests(prison, before))
    prisons.until("no box runs", lambda: not _running(prison))


def _running(prison: prisons.Prison) -> list[str]:
    return [told["id"] for told in prison.ask("list")["boxes"] if told["phase"] in ("Starting", "Running")]


def _named(uid: str) -> list[int]:
    """Processes of the host's whose command line begins as the victim's of that name does."""
    return [
        pid
        for pid in outside.processes()
        if outside.command_of(pid).startswith("python") and f'"name": "{uid}"' in outside.command_of(pid)
    ]


def _new_guests(prison: prisons.Prison, before: set[int]) -> list[int]:
    """Processes since then that are a box's of this prison, or on the way to be one."""
    return [
        pid
        for pid in set(outside.processes()) - before
        if outside.status(pid).get("Name") in ("nsjail", "sh", "init", "python")
        and len(outside.status(pid).get("NSpid", "").split()) > 1
        and not _is_anothers(prison, outside.groups_of(pid))
    ]


def _is_anothers(prison: prisons.Prison, groups: str) -> bool:
    """Whether it stands in a group of another instance: other tests make boxes at the same time."""
    return "/agentk" in groups and f"/agentk-{prison.instance}/" not in groups
