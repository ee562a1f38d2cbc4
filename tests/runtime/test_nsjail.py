"""The pure part of a jail: the same box gives the same configuration, and nothing in it can break out of its quotes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentk.data import files
from agentk.runtime import finding, nsjail

HOST = nsjail.Host(links={"/bin": "usr/bin"}, folders=["/usr"], hard_open_files=4096, hard_stack_bytes=-1)
JAIL = nsjail.Jail(
    argv=["python", "main.py"],
    hostname="agent",
    cwd="/app",
    env={"LOG_LEVEL": "info"},
    outside_uid=1_900_000_001,
    open_files=256,
    tmp_bytes=1 << 20,
    seccomp=nsjail.quote("POLICY p {} USE p DEFAULT ALLOW"),
    groups=2,
    entries=[nsjail.Entry("/stage/w", "/workspace", read_only=False)],
    tmpfs=[("/cache", 4096)],
)
DATA = files.folder("runtimes") / "nsjail"


def values(text: str, field: str) -> list[str]:
    return re.findall(rf"^{field}: (.*)$", text, re.M)


def test_golden() -> None:
    golden = Path(__file__).parent / "nsjail.golden.cfg"
    assert nsjail.render(JAIL, HOST, "# base") == golden.read_text()


def test_guest_is_not_root_and_maps_to_one_uid() -> None:
    text = nsjail.render(JAIL, HOST, "")
    assert re.findall(r"^uidmap .*$", text, re.M) == [
        'uidmap { inside_id: "1000" outside_id: "1900000001" count: 1 }'
    ]


def test_what_could_run_code_in_the_shell_is_set_after_it_is_in_its_cgroup() -> None:
    env = {"LD_PRELOAD": "/workspace/evil.so", "SHELLOPTS": "xtrace", "PS4": "$(touch x)", "A": "b"}
    jail = nsjail.Jail(["true"], "h", "/", env, 1, 1, 1, groups=1)
    set_early = [value.strip('"').split("=")[0] for value in values(nsjail.render(jail, HOST, ""), "envar")]
    assert "A" in set_early
    assert not {"LD_PRELOAD", "SHELLOPTS", "PS4"} & set(set_early)
    script = nsjail.bootstrap(jail)[2]
    assert script.index("echo 0 >&4") < script.index("read -r _") < script.index("export LD_PRELOAD=")


def test_our_tools_come_first_whatever_path_the_agent_has() -> None:
    assert nsjail.environment({"PATH": "/usr/bin"})["PATH"] == "/opt/agentk/bin:/usr/bin"
    assert nsjail.environment({"PATH": nsjail.DEFAULT_PATH})["PATH"] == nsjail.DEFAULT_PATH
    assert nsjail.environment({"PYTHONPATH": "/app"})["PYTHONPATH"] == "/opt/agentk/lib:/app"


def test_open_files_are_no_more_than_the_host_allows() -> None:
    jail = nsjail.Jail(["true"], "h", "/", {}, 1, 1 << 30, 1)
    assert values(nsjail.render(jail, HOST, ""), "rlimit_nofile") == ["4096"]


@given(st.text(st.characters(codec="utf-8")))
def test_quoted_text_is_one_line_and_comes_back(text: str) -> None:
    quoted = nsjail.quote(text)
    assert "\n" not in quoted
    inner = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), quoted[1:-1].encode())
    assert inner.decode() == text


def test_every_default_of_nsjail_that_kills_agents_is_overridden() -> None:
    base = (DATA / "base.cfg").read_text()
    for limit in ("time_limit: 0", "rlimit_as_type: INF", "rlimit_cpu_type: INF", "rlimit_fsize_type: INF"):
        assert limit in base
    assert not re.search(r"^clone_new(user|ns|pid|ipc|uts): false", base, re.M)


@pytest.mark.parametrize("name", nsjail.POLICIES)
@pytest.mark.skipif(finding.nsjail() is None, reason="no nsjail")
def test_policies_compile(name: str, tmp_path: Path) -> None:
    text = nsjail.policy(DATA, name, "x86_64" if shutil.os.uname().machine == "x86_64" else "aarch64")
    config = tmp_path / "config"
    config.write_text(f'mode: ONCE\nseccomp_string: {text}\nexec_bin {{ path: "/nowhere" }}\n')
    done = subprocess.run(
        [str(finding.nsjail()), "--config", config], capture_output=True, text=True, check=False
    )
    assert "compile policy" not in done.stderr


@pytest.mark.parametrize("name", nsjail.POLICIES)
def test_common_policies_name_nothing_that_aarch64_lacks(name: str) -> None:
    only_old = "open|creat|stat|lstat|newstat|newlstat|access|pipe|dup2|select|poll|fork|vfork|rename|mkdir|rmdir|link"
    only_old += (
        "|unlink|symlink|readlink|chmod|chown|lchown|iopl|ioperm|modify_ldt|uselib|ustat|sysfs|getdents|pause"
    )
    text = re.sub(r"//.*", "", (DATA / f"seccomp-{name}.kafel").read_text())
    assert not re.search(rf"[{{,]\s*({only_old})\s*[,}}]", text)
