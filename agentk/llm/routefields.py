"""Reads a ModelRoute object into a `routes.Route`, telling every problem with its field.

LiteLLM's own spelling (`model_list`, `model_name`, `litellm_params`) and ours (`modelList`, …) mean the same. A secret
never stands in a route: a value is refused where LiteLLM would take a credential, and so is `os.environ/…`, which
would let a manifest read the daemon's environment.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from agentk.api import problems, quantities
from agentk.api.errors import AgentkError
from agentk.api.problems import Path, Problem
from agentk.llm import routes, scriptedrules

_CREDENTIAL = re.compile(
    r"(api_key|_secret|secret_|_token$|password|credential|private_key|_key_id$|access_key)"
)
_SECRET_HEADER = re.compile(r"(?i)auth|key|token|cookie|secret")
_NOT_CREDENTIALS = frozenset({"max_token"})
_ENVIRON = "os.environ/… is not read: it would be the daemon's environment"
# Parameters that would make LiteLLM call out, log elsewhere or pick another provider than the one that is written.
_REFUSED = {
    "fallbacks": "write spec.fallbacks",
    "order": "write spec.fallbacks",
    "timeout": "write spec.timeouts",
    "stream_timeout": "write spec.timeouts",
    "request_timeout": "write spec.timeouts",
    "num_retries": "write spec.retries",
    "max_retries": "write spec.retries",
    "callbacks": "what a call said is in the journal",
    "success_callback": "what a call said is in the journal",
    "failure_callback": "what a call said is in the journal",
    "mock_response": "write spec.scripted",
    "litellm_credential_name": "write apiKeySecretRef",
}
PRICES = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
)
SCRIPTED_GROUPS = ("scripted", "*")


def read(obj: Mapping[str, Any]) -> tuple[routes.Route | None, list[Problem]]:
    """The route, or None and what is wrong. Never raises for anything a manifest may say."""
    found: list[Problem] = []
    meta, spec = obj.get("metadata", {}), obj.get("spec") or {}
    deployments = _deployments(spec, found)
    scripted = spec.get("scripted")
    if isinstance(scripted, Mapping):
        found += scriptedrules.problems_of(scripted)
        if not deployments:
            deployments = [
                routes.Deployment(f"scripted-{n}", group, {"model": "scripted/rules"})
                for n, group in enumerate(SCRIPTED_GROUPS)
            ]
    elif any(d.provider == "scripted" for d in deployments):
        found.append(Problem(("spec", "scripted"), "is needed by a scripted/ model", at_key=True))
    if not deployments and not found:
        found.append(Problem(("spec",), "needs modelList or scripted"))
    route = routes.Route(str(meta.get("namespace", "default")), str(meta.get("name", "")), tuple(deployments))
    route = replace(
        route,
        digest=hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode()).hexdigest()[:16],
        strategy=_strategy(spec, found),
        fallbacks=_fallbacks(spec, {d.group for d in deployments}, found),
        retries=_whole(spec, ("spec", "retries"), 2, found),
        cooldown=_cooldown(spec, found),
        timeouts=_timeouts(spec, found),
        cache=_cache(spec, found),
        max_concurrent=_whole(spec, ("spec", "maxConcurrent"), 0, found),
        rpm=_whole(spec, ("spec", "rpm"), 0, found),
        tpm=_whole(spec, ("spec", "tpm"), 0, found),
        max_tokens=_whole(_below(spec, "defaults"), ("spec", "defaults", "maxTokens"), 0, found),
        scripted=scripted if isinstance(scripted, Mapping) else {},
    )
    return (None if found else route), found


def _deployments(spec: Mapping[str, Any], found: list[Problem]) -> list[routes.Deployment]:
    key, items = _either(spec, "modelList", "model_list", ("spec",), found)
    if not isinstance(items, list):
        if items is not None:
            found.append(Problem(("spec", key), "must be a list"))
        return []
    made = [_deployment(item, ("spec", key, n), n, found) for n, item in enumerate(items)]
    return [deployment for deployment in made if deployment]


def _deployment(item: Any, path: Path, n: int, found: list[Problem]) -> routes.Deployment | None:
    if not isinstance(item, Mapping):
        found.append(Problem(path, "must be an object with modelName and litellmParams"))
        return None
    name_key, name = _either(item, "modelName", "model_name", path, found)
    params_key, written = _either(item, "litellmParams", "litellm_params", path, found)
    before = len(found)
    if not isinstance(name, str) or not name:
        found.append(Problem((*path, name_key), "is required: the name guests use"))
    elif name.count("*") > 1:
        found.append(Problem((*path, name_key), "may hold one * at most"))
    if not isinstance(written, Mapping) or not isinstance(written.get("model"), str) or not written["model"]:
        found.append(Problem((*path, params_key), "needs model, such as openai/gpt-4o"))
        return None
    params, secrets = _params(written, (*path, params_key), found)
    model = str(params["model"])
    _check_star(str(name), model, (*path, params_key, "model"), found)
    if len(found) > before:
        return None
    _, info = _either(item, "modelInfo", "model_info", path, found)
    info = _snake(info) if isinstance(info, Mapping) else {}
    prices = {key: (params.get(key), info.get(key)) for key in PRICES}
    return routes.Deployment(
        id=f"{n}-{re.sub(r'[^a-zA-Z0-9._-]+', '-', str(name))[:60]}",
        group=str(name),
        params=params,
        secrets=secrets,
        rpm=_positive(item, params, "rpm"),
        tpm=_positive(item, params, "tpm"),
        weight=_positive(item, params, "weight") or 1,
        prices={key: a if a is not None else b for key, (a, b) in prices.items() if (a, b) != (None, None)},
    )


def _params(
    written: Mapping[str, Any], path: Path, found: list[Problem]
) -> tuple[dict[str, Any], dict[str, routes.SecretRef]]:
    params: dict[str, Any] = {}
    secrets: dict[str, routes.SecretRef] = {}
    for key, value in written.items():
        name, at = _snake_name(str(key)), (*path, str(key))
        target, ref = _secret_ref(name, value)
        if target:
            if ref is None:
                found.append(Problem(at, "needs name and key of a Secret"))
            elif target in secrets:
                found.append(Problem(at, f"{target} is given twice"))
            else:
                secrets[target] = ref
        elif name in _REFUSED:
            found.append(Problem(at, "is not read here", _REFUSED[name], at_key=True))
        elif name in params:
            found.append(Problem(at, "is given in both spellings", at_key=True))
        elif _is_credential(name) and value not in (None, ""):
            hint = f"{key}: {{secretKeyRef: {{name: …, key: …}}}} takes it from a Secret"
            told = isinstance(value, str) and value.startswith("os.environ/")
            found.append(Problem(at, _ENVIRON if told else "a credential must not stand in a manifest", hint))
        else:
            if name == "extra_headers":
                found += _secret_headers(value, at)
            found += [
                Problem((*at, *below), _ENVIRON)
                for below, text in _texts(value)
                if text.startswith("os.environ/")
            ]
            params[name] = value
    return params, secrets


def _secret_headers(value: Any, path: Path) -> list[Problem]:
    told = value if isinstance(value, Mapping) else {}
    return [
        Problem((*path, str(header)), "a credential must not stand in a manifest", "write apiKeySecretRef")
        for header in told
        if _SECRET_HEADER.search(str(header))
    ]


def _secret_ref(name: str, value: Any) -> tuple[str, routes.SecretRef | None]:
    """`api_key_secret_ref: {name, key}` or `anything: {secretKeyRef: {name, key}}`: which parameter, and from where."""
    target = name.removesuffix("_secret_ref")
    if target == name:
        if not isinstance(value, Mapping) or set(value) != {"secretKeyRef"}:
            return "", None
        value = value["secretKeyRef"]
    if not isinstance(value, Mapping) or not value.get("name") or not value.get("key"):
        return target, None
    return target, routes.SecretRef(str(value["name"]), str(value["key"]))


def _check_star(name: str, model: str, path: Path, found: list[Problem]) -> None:
    if "*" not in model:
        return
    if "*" not in name:
        found.append(Problem(path, "has a * but its name has none to fill it from"))
    elif "/" not in model.partition("*")[0]:
        found.append(
            Problem(path, "would let a guest choose the provider", "write it before the *: openai/*")
        )


def _strategy(spec: Mapping[str, Any], found: list[Problem]) -> routes.Strategy:
    told = spec.get("strategy", "simple-shuffle")
    for known in get_args(routes.Strategy):
        if told == known:
            return known  # type: ignore[no-any-return]  # of the Literal's own values
    found.append(Problem(("spec", "strategy"), f"must be one of {', '.join(get_args(routes.Strategy))}"))
    return "simple-shuffle"


def _fallbacks(
    spec: Mapping[str, Any], groups: set[str], found: list[Problem]
) -> Mapping[str, tuple[str, ...]]:
    """LiteLLM's form: a list of `{name: [names]}`; "*" stands for every name without an entry of its own."""
    made: dict[str, tuple[str, ...]] = {}
    for n, entry in enumerate(spec.get("fallbacks") or ()):
        for name, targets in entry.items() if isinstance(entry, Mapping) else ():
            path: Path = ("spec", "fallbacks", n, str(name))
            if name != "*" and name not in groups:
                found.append(Problem(path, "no such modelName", at_key=True))
            for m, target in enumerate(targets if isinstance(targets, list) else ()):
                if target not in groups:
                    found.append(Problem((*path, m), "no such modelName"))
            made[str(name)] = tuple(str(target) for target in targets or ())
    return made


def _cooldown(spec: Mapping[str, Any], found: list[Problem]) -> routes.Cooldown:
    told = _below(spec, "cooldown")
    return routes.Cooldown(
        _whole(told, ("spec", "cooldown", "allowedFails"), routes.Cooldown.allowed_fails, found),
        _seconds(told, ("spec", "cooldown", "time"), routes.Cooldown.seconds, found),
    )


def _timeouts(spec: Mapping[str, Any], found: list[Problem]) -> routes.Timeouts:
    told, standard = _below(spec, "timeouts"), routes.Timeouts
    return routes.Timeouts(
        _seconds(told, ("spec", "timeouts", "connect"), standard.connect, found),
        _seconds(told, ("spec", "timeouts", "firstByte"), standard.first_byte, found),
        _seconds(told, ("spec", "timeouts", "total"), standard.total, found),
    )


def _cache(spec: Mapping[str, Any], found: list[Problem]) -> routes.Cache | None:
    told = spec.get("cache")
    if not isinstance(told, Mapping):
        return None
    size = told.get("maxSize", "16Mi")
    try:
        most = quantities.parse_quantity(size)
    except AgentkError as wrong:
        found.append(Problem(("spec", "cache", "maxSize"), wrong.message))
        most = 0
    return routes.Cache(_seconds(told, ("spec", "cache", "ttl"), 300.0, found), most)


def _below(spec: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    told = spec.get(key)
    return told if isinstance(told, Mapping) else {}


def _whole(told: Mapping[str, Any], path: Path, standard: int, found: list[Problem]) -> int:
    value = told.get(str(path[-1]), standard)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        found.append(Problem(path, f"must be a whole number from 0, not {problems.shown(value)}"))
        return standard
    return value


def _seconds(told: Mapping[str, Any], path: Path, standard: float, found: list[Problem]) -> float:
    if str(path[-1]) not in told:
        return standard
    try:
        seconds = quantities.parse_duration(told[str(path[-1])])
    except AgentkError as wrong:
        found.append(Problem(path, wrong.message, wrong.hint))
        return standard
    if seconds <= 0:
        found.append(Problem(path, "must be more than 0"))
        return standard
    return seconds


def _positive(item: Mapping[str, Any], params: Mapping[str, Any], key: str) -> int:
    value = params.get(key, item.get(key, 0))
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _either(
    item: Mapping[str, Any], ours: str, theirs: str, path: Path, found: list[Problem]
) -> tuple[str, Any]:
    """The key that is written, and its value. Both at once is a mistake, not a merge."""
    if ours in item and theirs in item:
        found.append(Problem((*path, theirs), f"is given beside {ours}", at_key=True))
    key = theirs if theirs in item else ours
    return key, item.get(key)


def _snake(written: Mapping[str, Any]) -> dict[str, Any]:
    return {_snake_name(str(key)): value for key, value in written.items()}


def _snake_name(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"_{found[1].lower()}", name)


def _is_credential(name: str) -> bool:
    return bool(_CREDENTIAL.search(name)) and name not in _NOT_CREDENTIALS and not name.endswith("_per_token")


def _texts(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from _texts(below, (*path, str(key)))
    elif isinstance(value, list):
        for n, below in enumerate(value):
            yield from _texts(below, (*path, n))
