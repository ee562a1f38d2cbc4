import json

from tests.daemon.conftest import AGENTS, Api, agent, config

CONFIGS = "/api/v1/namespaces/default/configmaps"
MERGE = {"Content-Type": "application/merge-patch+json"}


def _name(event: tuple[str, dict[str, dict[str, str]]]) -> tuple[str, str]:
    return event[0], event[1]["metadata"]["name"]


def test_watch_tells_what_is_there_then_what_happens(api: Api) -> None:
    api.ok("POST", CONFIGS, config("a"))
    with api.watch(CONFIGS) as following:
        assert _name(following()) == ("ADDED", "a")
        api.ok("POST", CONFIGS, config("b"))
        assert _name(following()) == ("ADDED", "b")
        api.ok("PATCH", f"{CONFIGS}/a", {"data": {"k": "v"}}, headers=MERGE)
        assert _name(following()) == ("MODIFIED", "a")
        api.ok("DELETE", f"{CONFIGS}/b")
        assert _name(following()) == ("DELETED", "b")


def test_watch_goes_on_from_a_list(api: Api) -> None:
    api.ok("POST", CONFIGS, config("a"))
    version = api.ok("GET", CONFIGS)["metadata"]["resourceVersion"]
    api.ok("POST", CONFIGS, config("b"))
    with api.watch(CONFIGS, resourceVersion=version) as following:
        assert _name(following()) == ("ADDED", "b")


def test_selected_objects_come_and_go(api: Api) -> None:
    with api.watch(CONFIGS, labelSelector="on=yes") as following:
        api.ok("POST", CONFIGS, config("a"))
        api.ok("PATCH", f"{CONFIGS}/a", {"metadata": {"labels": {"on": "yes"}}}, headers=MERGE)
        assert _name(following()) == ("ADDED", "a")
        api.ok("PATCH", f"{CONFIGS}/a", {"metadata": {"labels": {"on": "no"}}}, headers=MERGE)
        assert _name(following()) == ("DELETED", "a")


def test_single_object_is_watched_by_its_path(api: Api) -> None:
    api.ok("POST", CONFIGS, config("a"))
    api.ok("POST", CONFIGS, config("b"))
    with api.watch(f"{CONFIGS}/b") as following:
        assert _name(following()) == ("ADDED", "b")


def test_too_old_version_gets_410_as_an_event(api: Api) -> None:
    with api.watch(CONFIGS, resourceVersion="9" * 15) as following:
        kind, told = following()
        assert (kind, told["code"], told["reason"]) == ("ERROR", 410, "Expired")
        assert following() == ("", None)


def test_watch_ends_at_its_time(api: Api) -> None:
    with api.watch(CONFIGS, timeoutSeconds=1) as following:
        assert following() == ("", None)


def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    api.ok("POST", CONFIGS, config("a"))
    query = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    with api.watch(CONFIGS, **query) as following:
        assert _name(following()) == ("ADDED", "a")
        kind, told = following()
        assert kind == "BOOKMARK"
        assert told["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    api.fails(422, "GET", CONFIGS, query={"watch": "true", "sendInitialEvents": "true"})
    api.fails(422, "GET", CONFIGS, query={"watch": "true", "resourceVersionMatch": "NotOlderThan"})


def test_bad_selector_fails_before_the_stream(api: Api) -> None:
    api.fails(400, "GET", CONFIGS, query={"watch": "true", "fieldSelector": "nonsense"})


def test_watch_draws_tables_with_columns_once(api: Api) -> None:
    api.ok("POST", AGENTS, agent("a"))
    api.ok("POST", AGENTS, agent("b"))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    connection = api.connect()
    connection.request("GET", f"{AGENTS}?watch=true", headers=accept)
    response = connection.getresponse()
    first, second = (json.loads(response.readline())["object"] for _ in range(2))
    connection.close()
    assert first["kind"] == "Table" and first["columnDefinitions"] and first["rows"][0]["cells"][0] == "a"
    assert second["columnDefinitions"] is None and second["rows"][0]["cells"][0] == "b"


def test_watcher_that_leaves_frees_its_tasks(api: Api) -> None:
    import asyncio

    before = len(api.run(_tasks()))
    for _ in range(5):
        with api.watch(CONFIGS):
            pass
    assert api.settled(lambda: len(asyncio.all_tasks(api.loop)) <= before + 1)


async def _tasks() -> list[str]:
    import asyncio

    return [task.get_name() for task in asyncio.all_tasks()]


def test_watcher_that_does_not_read_holds_up_nobody(api: Api) -> None:
    big = "x" * 200_000
    connection = api.connect()
    connection.request("GET", f"{CONFIGS}?watch=true")
    for number in range(20):
        api.ok("POST", CONFIGS, config(f"c{number}", k=big))
    with api.watch(
        CONFIGS, resourceVersion=api.ok("GET", CONFIGS)["metadata"]["resourceVersion"]
    ) as following:
        api.ok("POST", CONFIGS, config("last"))
        assert _name(following()) == ("ADDED", "last")
    response = connection.getresponse()
    names = [json.loads(response.readline())["object"]["metadata"]["name"] for _ in range(21)]
    connection.close()
    assert names[-1] == "last"


def test_ending_daemon_ends_its_watches(api: Api) -> None:
    with api.watch(CONFIGS) as following:
        api.loop.call_soon_threadsafe(api.services.ending.set)
        assert following() == ("", None)
