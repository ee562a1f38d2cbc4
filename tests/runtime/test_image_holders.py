"""What holds an image holds that one and no other."""

from typing import Any

import pytest

pytest.importorskip("podman")

from agentk.runtime.podman import images, service


class Service:
    """Containers by name, each mounted where its image is."""

    def __init__(self) -> None:
        self.images: dict[str, str] = {}

    def __call__(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        if path.endswith("/create"):
            self.images[body["name"]] = body["image"]
            return {}
        name = path.split("/")[2]
        if name not in self.images:
            raise service.Refused(images.MISSING, "no such container")
        return f"/mounted/{self.images[name]}"


def test_an_image_whose_id_begins_as_anothers_is_not_shown_in_its_place() -> None:
    one, other = "0" * 64, "0" * 63 + "1"
    ask = Service()
    assert images.hold(ask, one, "i") == f"/mounted/{one}"
    assert images.hold(ask, other, "i") == f"/mounted/{other}"
    assert images.hold(ask, one, "i") == f"/mounted/{one}"
