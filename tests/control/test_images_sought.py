"""Images as the steward asks for them: sought once for all, held for one attempt, tried again with back-off."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from agentk.api import errors
from agentk.control import images, logins, plans
from agentk.runtime import box
from tests.control import virtual

PODMAN = {"type": "podman"}
FIRST = (0, 0)
SETTINGS = images.Settings(quick_seconds=0.001, first_retry_seconds=10, longest_retry_seconds=300)
Answer = tuple[images.Chosen | None, plans.Problem | None]


class Launcher:
    """Answers when it is told to: with an id, or an error."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, box.Login | None]] = []
        self._answers: list[asyncio.Future[box.Image]] = []
        self.tell: Callable[[str], None] = lambda words: None

    async def image(
        self, reference: str, policy: str, login: box.Login | None, told: Callable[[str], None]
    ) -> box.Image:
        self.asked.append((reference, policy, login))
        self._answers.append(asyncio.get_running_loop().create_future())
        self.tell = told
        return await self._answers[-1]

    def found(self, letter: str = "a") -> None:
        self._answers[-1].set_result(box.Image(letter * 64, f"sha256:{letter * 64}"))

    def fails(self, error: Exception) -> None:
        self._answers[-1].set_exception(error)


class Scene:
    def __init__(self, **settings: Any) -> None:
        self.launcher, self.clock, self.woken = Launcher(), virtual.Clock(), []  # type: ignore[var-annotated]
        chosen = images.Settings(**{**vars(SETTINGS), **settings})
        self.images = images.Images(self.launcher, self.clock, chosen)
        self.images.wake = self.woken.append

    async def ask(self, image: str = "python:3", uid: str = "u", life: Any = FIRST, **spec: Any) -> Answer:
        entries = spec.pop("entries", [])
        agent = {"metadata": {"uid": uid}, "spec": {"image": image, **spec}}
        return await self.images.prepare(agent, PODMAN, entries, life)

    async def reason(self, image: str = "python:3", **how: Any) -> str:
        return (await self.ask(image, **how))[1].reason  # type: ignore[union-attr]


def play(story: Callable[[Scene], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def flow() -> None:
        scene = Scene(**settings)
        try:
            await story(scene)
        finally:
            await scene.images.close()

    asyncio.run(flow())


def test_no_image_and_other_runtimes_ask_nobody() -> None:
    async def story(scene: Scene) -> None:
        agent = {"metadata": {"uid": "u"}, "spec": {}}
        assert await scene.images.prepare(agent, PODMAN, [], FIRST) == (None, None)
        agent = {"metadata": {"uid": "u"}, "spec": {"image": "python:3"}}
        assert await scene.images.prepare(agent, {"type": "nsjail"}, [], FIRST) == (None, None)
        assert scene.launcher.asked == []

    play(story)


def test_the_runtimes_own_image_serves_when_the_agent_names_none() -> None:
    assert images.wanted({}, {"type": "podman", "image": "a"}) == "a"
    assert images.wanted({"image": "b"}, {"type": "podman", "image": "a"}) == "b"
    assert images.wanted({"image": "b"}, {"type": "nsjail", "image": "a"}) == ""


def test_many_that_ask_the_same_are_served_by_one_pull() -> None:
    async def story(scene: Scene) -> None:
        for number in range(20):
            assert await scene.reason(uid=f"u{number}") == "Pulling"
        assert scene.launcher.asked == [("docker.io/library/python:3", "IfNotPresent", None)]
        scene.launcher.found()
        await virtual.settle()
        assert sorted(scene.woken) == sorted(f"u{number}" for number in range(20))
        chosen, problem = await scene.ask(uid="u7")
        assert problem is None and chosen is not None
        assert chosen.status == {
            "reference": "docker.io/library/python:3",
            "id": "sha256:" + "a" * 64,
            "digest": "sha256:" + "a" * 64,
        }

    play(story)


def test_what_is_here_is_found_at_the_first_look() -> None:
    async def story(scene: Scene) -> None:
        asking = asyncio.create_task(scene.ask())
        await virtual.settle()
        scene.launcher.found()
        chosen, problem = await asking
        assert chosen is not None and problem is None

    play(story, quick_seconds=30)


def test_an_answer_holds_for_one_attempt_and_not_for_long() -> None:
    async def story(scene: Scene) -> None:
        await scene.ask()
        scene.launcher.found()
        await virtual.settle()
        assert (await scene.ask())[0] is not None
        assert await scene.reason(life=(1, 0)) == "Pulling"  # the next attempt
        scene.launcher.found("b")
        await virtual.settle()
        chosen = (await scene.ask(life=(1, 0)))[0]
        assert chosen is not None and chosen.image.id == "b" * 64
        assert await scene.reason(life=(1, 1)) == "Pulling"  # the box was refused: perhaps the image has gone
        scene.launcher.found()
        await virtual.settle()
        await scene.clock.advance(61)
        assert await scene.reason(life=(1, 1)) == "Pulling"

    play(story)


def test_a_failure_is_told_as_kubernetes_does_and_tried_again_later_and_later() -> None:
    async def story(scene: Scene) -> None:
        assert await scene.reason() == "Pulling"
        scene.launcher.fails(errors.UpstreamError("manifest unknown"))
        await virtual.settle()
        assert await scene.ask() == (
            None,
            plans.Problem("ErrImagePull", "docker.io/library/python:3: manifest unknown"),
        )
        assert len(scene.launcher.asked) == 1
        scene.woken.clear()
        await scene.clock.advance(10)
        assert scene.woken == ["u"]
        assert await scene.reason() == "ErrImagePull"  # of the last time; this one has said nothing yet
        await virtual.settle()
        assert len(scene.launcher.asked) == 2
        scene.launcher.fails(errors.UpstreamError("manifest unknown"))
        await virtual.settle()
        assert await scene.reason() == "ImagePullBackOff"
        await scene.clock.advance(19)
        assert await scene.reason() == "ImagePullBackOff"
        assert len(scene.launcher.asked) == 2
        await scene.clock.advance(1)
        await scene.ask()
        await virtual.settle()
        scene.launcher.found()
        await virtual.settle()
        assert (await scene.ask())[0] is not None

    play(story)


def test_never_means_that_only_what_is_here_serves() -> None:
    async def story(scene: Scene) -> None:
        await scene.ask(imagePullPolicy="Never")
        assert scene.launcher.asked[0][1] == "Never"
        scene.launcher.fails(errors.NotFound("no such image"))
        await virtual.settle()
        assert await scene.reason(imagePullPolicy="Never") == "ErrImageNeverPull"
        await scene.ask("localhost/mine", imagePullPolicy="Always")
        assert scene.launcher.asked[1][:2] == ("localhost/mine:latest", "Never")
        scene.launcher.fails(errors.NotFound("no such image"))
        await virtual.settle()
        _, problem = await scene.ask("localhost/mine", imagePullPolicy="Always")
        assert problem is not None and "agentk image build" in problem.message

    play(story)


def test_how_far_it_is_becomes_the_message_but_not_an_event_each_time() -> None:
    async def story(scene: Scene) -> None:
        await scene.ask()
        scene.launcher.tell("3 of 5 layers")
        assert scene.woken == ["u"]
        _, problem = await scene.ask()
        assert problem == plans.Problem(
            "Pulling", "pulling docker.io/library/python:3: 3 of 5 layers", usual=True
        )
        scene.launcher.tell("4 of 5 layers")
        assert scene.woken == ["u"]  # not more often than once a second
        await scene.clock.advance(1)
        scene.launcher.tell("5 of 5 layers")
        assert scene.woken == ["u", "u"]

    play(story)


def test_another_login_is_another_try_at_once() -> None:
    async def story(scene: Scene) -> None:
        wrong = [logins.Entry("docker.io", box.Login("me", "wrong"))]
        await scene.ask(entries=wrong)
        scene.launcher.fails(errors.UpstreamError("unauthorized"))
        await virtual.settle()
        assert await scene.reason(entries=wrong) == "ErrImagePull"
        right = [logins.Entry("docker.io", box.Login("me", "right"))]
        assert await scene.reason(entries=right) == "Pulling"
        assert scene.launcher.asked[-1][2] == box.Login("me", "right")

    play(story)


def test_a_launcher_that_cannot_be_asked_is_no_fault_of_the_image() -> None:
    async def story(scene: Scene) -> None:
        await scene.ask()
        scene.launcher.fails(errors.Unavailable("there is no podman"))
        await virtual.settle()
        assert await scene.reason() == "SandboxUnavailable"

    play(story)


def test_what_nobody_wants_any_more_is_forgotten() -> None:
    async def story(scene: Scene) -> None:
        await scene.ask()
        scene.launcher.fails(errors.UpstreamError("no"))
        await virtual.settle()
        await scene.clock.advance(400)
        assert scene.images._pulls == {}
        assert len(scene.launcher.asked) == 1

    play(story)
