"""Skills as guardrails see them: code, when one is saved and again when it runs, and texts that others will read.

What runs may have been saved under a Policy that let more pass, so to have been looked at once is not enough.
"""

from collections.abc import Mapping
from typing import Any

from agentk.api import errors
from agentk.broker.guarding.lookouts import Lookouts
from agentk.broker.guarding.masking import Masking
from agentk.broker.guarding.masking import check_code as check
from agentk.broker.guarding.rails import Code, Rails

_LANGUAGES = {".py": "python", ".sh": "shell", ".js": "node", ".mjs": "node"}


async def check_code(uid: str, code: Code, files: Mapping[str, bytes], lookouts: Lookouts) -> None:
    """Raises Denied, saying what and in which file."""
    for name, data in sorted(files.items()):
        language = _LANGUAGES.get(name[name.rfind(".") :] if "." in name else "")
        if language is None:
            continue
        try:
            await check(uid, code, {"language": language, "code": data.decode("utf-8", "replace")}, lookouts)
        except errors.Denied as error:
            raise errors.Denied(f"{error.message} ({name})", causes=error.causes, hint=error.hint) from None


async def saved(
    uid: str, rails: Rails, params: Mapping[str, Any], mask: Masking, lookouts: Lookouts
) -> Mapping[str, Any]:
    """The parameters as they may be kept. Raises Denied."""
    if rails.code is not None:
        files = {name: text.encode("utf-8", "surrogatepass") for name, text in params["files"].items()}
        if "code" in params:
            files["__init__.py"] = params["code"].encode("utf-8", "surrogatepass")
        await check_code(uid, rails.code, files, lookouts)
    texts = {key: one for key, one in params.items() if key != "name"}
    named = {"names": [params["name"], *params["files"]]}
    told = await mask.searched("message", {**texts, **named})
    if rails.pii is not None and "message" in rails.pii.mask:
        told = await mask.whole(told)
    if told["names"] != named["names"]:
        raise errors.Denied("guardrails: what is not to be told is in the name of a file")
    return {**params, **{key: told[key] for key in texts}}
