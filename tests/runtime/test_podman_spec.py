"""Boxes as Podman hears of them, and what its lacks are called: pure, so it runs everywhere."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from agentk.runtime import box
from agentk.runtime.podman import probing, service, spec

PLACE = spec.Place(
    name="agentk-x-u-1",
    stage="/run/stage/u-1",
    instance="x",
    cgroup_parent="/agentk/default/u",
    ids=spec.Ids(70001, 70000),
    seccomp="/run/seccomp.json",
    hard_open_files=100,
    hard_processes=32768,
)


def made(**told: object) -> box.Box:
    wanted = {"argv": ["python", "-c", "print('a b')"], "env": {"TOKEN": "canary", "A.B": "odd"}, **told}
    return box.Box(id="u-1", uid="u", namespace="default", attempt=1, runtime="podman", **wanted)  # type: ignore[arg-type]


def test_nothing_of_the_agents_is_told_to_podman() -> None:
    told = spec.render(made(), PLACE)
    assert "canary" not in str(told) and "print" not in str(told)
    assert (told["env"], told["entrypoint"]) == ({}, ["/bin/sh", "/run/agentk-start"])


def test_it_has_no_right_and_two_numbers() -> None:
    told = spec.render(made(), PLACE)
    assert (told["cap_drop"], told["no_new_privileges"], told["user"]) == (["ALL"], True, "1000:1000")
    assert [(one["container_id"], one["host_id"]) for one in told["idmappings"]["UIDMap"]] == [
        (0, 70000),
        (1000, 70001),
    ]
    assert (told["netns"], told["read_only_filesystem"]) == ({"nsmode": "none"}, True)


def test_limits_are_told_and_never_above_what_may_be_given() -> None:
    limits = box.Limits(memory_bytes=1 << 20, pids=7, open_files=1000)
    told = spec.render(made(limits=limits), PLACE)
    assert told["resource_limits"] == {"memory": {"limit": 1 << 20}, "pids": {"limit": 7}}
    assert {one["type"]: one["hard"] for one in told["r_limits"]} == {
        "nofile": 100,
        "nproc": 32768,
        "core": 0,
    }


def test_one_that_waits_is_held_by_its_group_alone_for_its_agent_may_have_more() -> None:
    waits = made(waits=True, argv=["python"], limits=box.Limits(memory_bytes=1 << 20, pids=7))
    told = spec.render(waits, PLACE)
    assert (told["resource_limits"], told["cgroup_parent"]) == ({}, PLACE.cgroup_parent)
    assert "\ncd / " in spec.start_script(waits, "/run/agentk/u-1").decode(), "it is in no agent's directory"


def test_the_start_script_is_a_shells_whatever_is_in_it(tmp_path: Path) -> None:
    """Odd names, quotes and newlines come out as they went in."""
    env = {"QUOTED": 'it\'s "so"\n$HOME `id`', "LATE": "x", "A.B": "odd"}
    text = spec.start_script(made(env=env, argv=["sh", "-c", "it's"], cwd="/tmp"), str(tmp_path)).decode()
    checked = subprocess.run(["/bin/sh", "-n"], input=text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert "export A.B" not in text and "env A.B=odd " in text
    script = "\n".join(
        line for line in text.splitlines() if line.startswith(("export", "set --", "it", "$HOME"))
    )
    done = subprocess.run(["/bin/sh", "-c", script + '\nprintf %s "$QUOTED"'], capture_output=True, text=True)
    assert done.stdout == env["QUOTED"]


def test_a_waiting_first_process_is_known() -> None:
    assert spec.is_waiting(b"/bin/sh\0/run/agentk-start\0")
    assert not spec.is_waiting(b"/opt/agentk/bin/init\0--\0sh\0")


def test_settings_keep_the_runtimes_that_a_machine_names(tmp_path: Path) -> None:
    file = tmp_path / "containers.conf"
    file.write_text('[engine]\nruntime="crun"\n[engine.runtimes]\nmine=["/opt/mine", "/usr/bin/mine"]\n')
    broken = tmp_path / "broken.conf"
    broken.write_text("[engine")
    known = service.known_runtimes([tmp_path / "none.conf", broken, file])
    told = tomllib.loads(service.settings(["runc"], known))
    assert told["engine"]["runtimes"] == {"mine": ["/opt/mine", "/usr/bin/mine"]}
    assert (told["engine"]["runtime"], told["engine"]["cgroup_manager"]) == ("runc", "cgroupfs")


def test_a_user_without_numbers_is_told_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "subuid").write_text("somebody:100000:65536\n")
    found = probing.uids(True, "nobody-here", tmp_path)
    assert not found.ok and "sudo usermod --add-subuids 100000-165535" in found.fix
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("nobody-here:100000:65536\n")
    assert probing.uids(True, "nobody-here", tmp_path).ok
