"""Backup, changes, restore: objects and memories are as they were, and whoever watched is told to list again."""

import json
from pathlib import Path

from agentk.api import kinds
from tests.flows import household
from tests.flows.household import Space, agent, manifest

pytestmark = household.needs


def test_restore_brings_objects_back_and_expires_watchers(alone: Space, tmp_path: Path) -> None:
    home = alone.home
    alone.apply(manifest("ConfigMap", "c", data={"k": "old"}), manifest("Secret", "s", stringData={"k": "v"}))
    alone.apply(agent("a", memory={}))
    alone.agentk("memory", "put", "a", "the kumquats are ripe")
    saved = tmp_path / "saved.tar"
    alone.agentk("backup", str(saved))
    alone.agentk("memory", "put", "a", "the plums are, too")
    assert saved.stat().st_mode & 0o077 == 0
    alone.apply(manifest("ConfigMap", "c", data={"k": "new"}))
    alone.agentk("delete", "secret", "s")
    version = alone.get("c", kinds.CONFIGMAP)["metadata"]["resourceVersion"]
    assert "runs" in alone.agentk("restore", str(saved), code=1).err
    home.agentk("daemon", "stop")
    alone.agentk("restore", "--yes", str(saved))
    home.start()
    assert alone.get("c", kinds.CONFIGMAP)["data"] == {"k": "old"}
    assert alone.get("s", kinds.SECRET)["data"]
    found = json.loads(alone.agentk("memory", "search", "a", "what is ripe", "-o", "json").out)
    assert [page["snippet"] for page in found["items"]] == ["the kumquats are ripe"]
    query = {"watch": "true", "resourceVersion": version}
    stream = alone.api.stream(kinds.CONFIGMAP.path(alone.name), query=query)
    told = json.loads(next(stream.lines()))  # as Kubernetes tells it: an event in the stream
    stream.close()
    assert (told["type"], told["object"]["code"]) == ("ERROR", 410)


def test_agents_made_since_the_backup_are_gone_with_all_they_had(alone: Space, tmp_path: Path) -> None:
    home = alone.home
    alone.apply(agent("before"))
    before = alone.running("before")
    alone.agentk("backup", str(tmp_path / "saved.tar"))
    alone.apply(agent("since"))
    alone.running("since")
    uid = alone.get("since")["metadata"]["uid"]
    home.agentk("daemon", "stop")
    alone.agentk("restore", "--yes", str(tmp_path / "saved.tar"))
    home.start()
    assert "not found" in alone.agentk("get", "agent", "since", code=1).err
    home.clean(uid)
    assert alone.running("before")["boxID"] == before["boxID"]
