"""Images through a real launcher, a real podman with a storage of its own, and a registry on the loopback."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.api import errors
from agentk.runtime import box, jails
from agentk.runtime.launcher import image_verbs
from tests.runtime import launching, podmans, registry, storages
from tests.runtime.launching import Place
from tests.runtime.registry import Registry

pytestmark = podmans.needs_podman
KILLED = box.Intent("Killed", "a test did")
NO_IMAGE = "0" * 64
STAND_STILL = "echo up; kill -STOP $$"


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with storages.storage(tmp_path) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield tmp_path


@pytest.fixture
def there(storage: Path) -> Iterator[Place]:
    with launching.place() as made:
        made.launch()
        yield made
    podmans.assert_nothing_is_left(made)


@pytest.fixture
def served() -> Iterator[Registry]:
    with registry.registry() as made:
        yield made


Story = Callable[[jails.Jails], Coroutine[Any, Any, Any]]


def play(there: Place, story: Story) -> Any:
    async def flow() -> Any:
        async with launching.connected(there) as runtime:
            return await story(runtime)

    return asyncio.run(flow())


async def get(
    runtime: jails.Jails,
    reference: str,
    policy: str = "IfNotPresent",
    login: box.Login | None = None,
    told: Callable[[str], None] = lambda words: None,
) -> box.Image:
    return await runtime.image(reference, policy, login, told)


def test_an_image_is_pulled_once_and_then_here(there: Place, served: Registry) -> None:
    pushed = served.push("me/a", "1", storages.shell(), Env=["GREETING=hi", "bad-name=x"], WorkingDir="/srv/")
    name, words = f"{served.host}/me/a:1", []

    async def story(runtime: jails.Jails) -> None:
        with pytest.raises(errors.NotFound):
            await get(runtime, name, "Never")
        first = await get(runtime, name, told=words.append)
        assert (first.digest, first.env, first.cwd, first.pulled) == (
            pushed,
            {"GREETING": "hi"},
            "/srv",
            True,
        )
        assert words[0] == "layer 1"
        asked = len(served.asked)
        again = await get(runtime, name)
        assert (again.id, again.pulled, len(served.asked)) == (first.id, False, asked)
        assert (await get(runtime, name, "Never")).id == first.id

    play(there, story)


def test_a_tag_that_moved_is_followed_by_always_alone_and_never_by_a_digest(
    there: Place, served: Registry
) -> None:
    old = served.push("me/a", "1", {"version": b"1"})
    name = f"{served.host}/me/a:1"

    async def story(runtime: jails.Jails) -> None:
        first = await get(runtime, name)
        new = served.push("me/a", "1", {"version": b"2"})
        assert (await get(runtime, name)).id == first.id
        moved = await get(runtime, name, "Always")
        assert (moved.digest, moved.id != first.id) == (new, True)
        pinned = f"{served.host}/me/a@{old}"
        for policy in ("IfNotPresent", "Always"):
            found = await get(runtime, pinned, policy)
            assert (found.id, found.digest) == (first.id, old)

    play(there, story)


def test_what_a_registry_refuses_is_told_in_its_words(there: Place, served: Registry) -> None:
    served.push("me/a", "1", {"version": b"1"})

    async def story(runtime: jails.Jails) -> None:
        with pytest.raises(errors.UpstreamError, match="manifest unknown"):
            await get(runtime, f"{served.host}/me/a:2")
        served.login = "me:right"
        for login in (None, box.Login("me", "wrong")):
            with pytest.raises(errors.UpstreamError, match="authentication required") as refused:
                await get(runtime, f"{served.host}/me/a:1", login=login)
            assert "wrong" not in str(refused.value)
        assert (await get(runtime, f"{served.host}/me/a:1", login=box.Login("me", "right"))).pulled

    play(there, story)


def test_a_password_is_in_no_file_and_no_argv(there: Place, served: Registry, storage: Path) -> None:
    served.push("me/a", "1", {"version": b"1"})
    served.login, password = "me:pass-5up3r", "pass-5up3r"

    async def story(runtime: jails.Jails) -> None:
        served.go_on.clear()
        pulling = asyncio.create_task(get(runtime, f"{served.host}/me/a:1", login=box.Login("me", password)))
        await launching.holds(lambda: any("/blobs/" in line for line in served.asked))
        lines = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
        seen = [path for path in lines if _holds(path, password)]
        assert [path for path in seen if path.parent.name != str(os.getpid())] == []
        served.go_on.set()
        await pulling
        for folder in (there.state, storage, Path("/run/containers"), Path("/var/tmp")):
            found = [path for path in folder.rglob("*") if path.is_file() and _holds(path, password)]
            assert found == []

    play(there, story)


def _holds(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:
        return False


def test_a_registry_that_never_ends_keeps_no_box_waiting(there: Place, served: Registry) -> None:
    served.push("me/slow", "1", {"version": b"1"})
    served.go_on.clear()

    async def story(runtime: jails.Jails) -> None:
        pulls = [asyncio.create_task(get(runtime, f"{served.host}/me/slow:1", "Always")) for _ in range(12)]
        await launching.holds(lambda: any("/blobs/" in line for line in served.asked))
        seen = await runtime.start(there.python("print('here')", runtime="podman"))
        assert (await launching.ended(runtime, seen.id)).exit is not None
        served.go_on.set()
        await asyncio.gather(*pulls)

    play(there, story)


def test_a_pull_survives_the_worker_and_tells_of_the_end_of_the_service(
    there: Place, served: Registry
) -> None:
    served.push("me/a", "1", {"version": b"1"})
    name = f"{served.host}/me/a:1"

    async def begin(runtime: jails.Jails) -> "asyncio.Task[box.Image]":
        served.go_on.clear()
        served.asked.clear()
        pulling = asyncio.create_task(get(runtime, name, "Always"))
        await launching.holds(lambda: any("/blobs/" in line for line in served.asked))
        return pulling

    async def story(runtime: jails.Jails) -> None:
        pulling = await begin(runtime)
        _kill("system\0service", str(there.run))
        with pytest.raises(errors.UpstreamError, match="service ended"):
            await pulling
        pulling = await begin(runtime)
        _kill("agentk.runtime.podman.worker", str(there.run))
        served.go_on.set()
        assert (await pulling).pulled

    play(there, story)


def _kill(*words: str) -> None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if all(word.encode() in command for word in words):
                os.kill(int(pid), signal.SIGKILL)


# boxes


TELL = """
echo root is $(for one in /*; do echo -n "$one "; done)
echo version $(read -r it </version; echo "$it")
echo user $(while IFS=: read -r name _ uid _; do echo -n "$name=$uid "; done </etc/passwd)
echo python $(command -v python3 || echo none)
echo x >/version 2>/dev/null && echo wrote the image
: >/workspace/mine && echo workspace
[ -e /run/agentk/gate.sock ] && echo door
while read -r line; do echo "mount $line"; done </proc/self/mountinfo
"""


def test_a_box_shows_its_image_and_nothing_of_the_host(there: Place, served: Registry, storage: Path) -> None:
    files = {
        **storages.shell(),
        "version": b"7\n",
        "etc/passwd": b"root:x:0:0::/:/bin/sh\n",
        "opt": b"-> /etc",
    }
    served.push("me/a", "1", files)

    async def story(runtime: jails.Jails) -> list[str]:
        image = await get(runtime, f"{served.host}/me/a:1")
        made = there.make("sh", "-c", TELL, runtime="podman", image=image.id)
        seen = await runtime.start(made)
        await launching.ended(runtime, seen.id)
        return there.log()

    said = play(there, story)
    told = {line.split(" ", 1)[0]: line for line in said}
    assert "/usr" not in told["root"].split() and "/version" in told["root"]
    assert told["version"] == "version 7"
    assert told["user"] == "user root=0 agent=1000"
    assert told["python"] == "python none"
    assert {"workspace", "door"} <= set(said) and "wrote the image" not in said
    (root,) = [line for line in said if line.startswith("mount ") and line.split()[5] == "/"]
    assert {"ro", "nosuid", "nodev"} <= set(root.split()[6].split(",")), root
    assert str(storage) not in "\n".join(said)  # where the host keeps its images is nobody's business


def test_an_image_that_a_box_is_made_of_cannot_be_removed(there: Place, served: Registry) -> None:
    served.push("me/a", "1", storages.shell())
    name = f"{served.host}/me/a:1"

    async def story(runtime: jails.Jails) -> None:
        image = await get(runtime, name)
        seen = await runtime.start(there.make("sh", "-c", STAND_STILL, runtime="podman", image=image.id))
        await launching.logged(there, "up")
        assert "image is in use by a container" in _removed(name)
        await runtime.remove(seen.id)
        await launching.holds(lambda: not _removed(name))
        with pytest.raises(errors.RuntimeRefused, match=r"(?i)no such image|not known"):
            await runtime.start(there.make("sh", "-c", "echo x", attempt=2, runtime="podman", image=image.id))

    play(there, story)


def _removed(name: str) -> str:
    """What podman says against it, "" when it is gone."""
    done = subprocess.run(["podman", "rmi", name], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def test_an_image_is_let_go_after_the_launcher_died(there: Place, served: Registry) -> None:
    served.push("me/a", "1", storages.shell())
    name = f"{served.host}/me/a:1"

    async def begin(runtime: jails.Jails) -> str:
        image = await get(runtime, name)
        seen = await runtime.start(there.make("sh", "-c", STAND_STILL, runtime="podman", image=image.id))
        await launching.logged(there, "up")
        return seen.id

    box_id = play(there, begin)
    there.die()
    there.launch()

    async def go_on(runtime: jails.Jails) -> None:
        assert [seen.phase for seen in await runtime.list()] == ["Running"]
        assert "in use" in _removed(name)
        await runtime.remove(box_id)
        await launching.holds(lambda: not _removed(name))

    play(there, go_on)


@pytest.mark.parametrize("point", ["image.after-hold", "podman.after-stage", "podman.after-start"])
def test_no_image_is_held_for_a_box_that_died_with_its_launcher(
    there: Place, served: Registry, point: str
) -> None:
    served.push("me/a", "1", storages.shell())
    name = f"{served.host}/me/a:1"
    image = play(there, lambda runtime: get(runtime, name))
    there.die()
    there.launch(crash_at=point)
    made = there.make("sh", "-c", STAND_STILL, runtime="podman", image=image.id)

    async def begin(runtime: jails.Jails) -> None:
        starting = asyncio.create_task(runtime.start(made))
        assert there.process is not None
        await asyncio.to_thread(there.process.wait, launching.WAIT_SECONDS)
        there.launch()
        seen = await starting  # asked again, of the launcher that came after
        await launching.logged(there, "up")
        assert len(podmans.holders(there)) == 1
        await runtime.remove(seen.id)
        await launching.holds(lambda: not _removed(name))

    play(there, begin)


def test_an_image_without_a_shell_is_refused_in_words(there: Place, served: Registry) -> None:
    served.push("me/a", "1", {"version": b"1", "bin/sh": b"-> /proc/self/root/bin/sh"})

    async def story(runtime: jails.Jails) -> None:
        image = await get(runtime, f"{served.host}/me/a:1")
        with pytest.raises(errors.RuntimeRefused, match="the image has no /bin/sh"):
            await runtime.start(there.make("/version", runtime="podman", image=image.id))

    play(there, story)


@pytest.mark.parametrize(
    ("reference", "policy"),
    [
        ("python:3", "Always"),
        ("docker.io/library/python", "Always"),
        ("dir:/etc/x", "Always"),
        ("docker-archive:/etc/shadow", "IfNotPresent"),
        ("docker://127.0.0.1:1/x:1", "Always"),
        ("containers-storage:[overlay@/x]y:1", "Always"),
        ("127.0.0.1:1/../x:1", "Always"),
        ("127.0.0.1:1/x:1\n", "Always"),
        ("localhost/x:1", "Always"),
        ("127.0.0.1:1/x:1", "Sometimes"),
    ],
)
def test_the_launcher_takes_only_full_names(there: Place, reference: str, policy: str) -> None:
    async def story(runtime: jails.Jails) -> None:
        with pytest.raises(errors.BadRequest):
            await get(runtime, reference, policy)

    play(there, story)


@pytest.mark.parametrize(
    "login", ["x", {"other": "x"}, {"username": 1}, {"password": "a\0b"}, {"token": "x" * 20_000}]
)
def test_the_launcher_takes_only_plain_logins(login: Any) -> None:
    with pytest.raises(errors.BadRequest):
        image_verbs.check_login(login)


@pytest.mark.parametrize(
    "told", [{"image": "python"}, {"image": "a" * 63}, {"image": NO_IMAGE, "prefix": "/opt/x"}]
)
def test_the_launcher_takes_only_ids_of_images(there: Place, told: dict[str, str]) -> None:
    async def story(runtime: jails.Jails) -> None:
        with pytest.raises(errors.Invalid):
            await runtime.start(there.make("sh", runtime="podman", **told))

    play(there, story)
