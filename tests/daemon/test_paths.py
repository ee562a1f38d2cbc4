import pytest

from agentk.api import errors, kinds
from agentk.daemon import paths

AGENTS = "/apis/agentk.dev/v1alpha1"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (f"{AGENTS}/agents", paths.Target(kinds.AGENT)),
        (f"{AGENTS}/namespaces/team/agents", paths.Target(kinds.AGENT, "team")),
        (f"{AGENTS}/namespaces/team/agents/a", paths.Target(kinds.AGENT, "team", "a")),
        (f"{AGENTS}/namespaces/team/agents/a/status", paths.Target(kinds.AGENT, "team", "a", "status")),
        (f"{AGENTS}/namespaces/team/agents/a/log", paths.Target(kinds.AGENT, "team", "a", "log")),
        (f"{AGENTS}/runtimes/nsjail", paths.Target(kinds.RUNTIME, "", "nsjail")),
        ("/api/v1/namespaces", paths.Target(kinds.NAMESPACE)),
        ("/api/v1/namespaces/team", paths.Target(kinds.NAMESPACE, "", "team")),
        ("/api/v1/namespaces/team/status", paths.Target(kinds.NAMESPACE, "", "team", "status")),
        ("/api/v1/namespaces/team/secrets", paths.Target(kinds.SECRET, "team")),
        ("/api/v1/namespaces/status/secrets/x", paths.Target(kinds.SECRET, "status", "x")),
    ],
)
def test_path_is_understood(path: str, target: paths.Target) -> None:
    assert paths.find(path) == target


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_paths_that_kinds_give_are_understood(kind: kinds.Kind) -> None:
    target = paths.find(kind.path("team", "x"))
    assert (target.kind, target.name) == (kind, "x")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (f"{AGENTS}/agnets", "did you mean 'agents'"),
        (f"{AGENTS}/agents/a", "name the namespace"),
        (f"{AGENTS}/namespaces/team/runtimes", "belong to no namespace"),
        (f"{AGENTS}/namespaces/team/agents/a/logs", "parts of agents"),
        ("/apis/agentk.dev/v2/agents", "served API versions"),
        ("/apis/apps/v1/deployments", "served API versions"),
        ("/api/v1/namespaces//secrets", "/api and /apis"),
        ("/api", "served"),
        ("/", "/api and /apis"),
        ("/nothing", "/api and /apis"),
    ],
)
def test_unknown_path_says_what_is_there(path: str, hint: str) -> None:
    with pytest.raises(errors.NotFound) as raised:
        paths.find(path)
    assert hint in raised.value.hint
