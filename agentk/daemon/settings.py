"""The daemon's settings: a YAML file checked like a manifest, each field overridden by the variable it names.

Read once at the start and passed down. `schemas/config.json` says what each means.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentk.api import admit, errors, manifest, quantities, schemas
from agentk.store.journal_retention import Retention

_JOURNAL_BYTES_MIN = 16 * 1024 * 1024
_TIME_SLICE_MIN_SECONDS = 1.0


@dataclass(frozen=True)
class Settings:
    log_level: str
    log_format: str
    max_agents: int  # 0: what this host's limits allow
    max_cpu_millis: int | None  # of the limits of all that run; None: no bound
    max_memory_bytes: int | None
    time_slice_seconds: float  # 0: no turns
    max_starts_at_once: int
    event_retention_seconds: float
    change_retention_seconds: float
    shutdown_grace_seconds: int
    journal: Retention
    checkpoint_bytes: int  # of a namespace whose Quotas say nothing
    ca_file: str = ""
    sentence_model: str = ""

    def ca_pem(self) -> str:
        """What is in `caFile`. Raises Invalid when it cannot be read."""
        if not self.ca_file:
            return ""
        try:
            return Path(self.ca_file).read_text(encoding="utf-8").rstrip() + "\n"
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise errors.Invalid(f"caFile {self.ca_file} cannot be read: {why}") from None


def load(text: str, name: str, env: Mapping[str, str]) -> Settings:
    """Settings from the text of file `name` (may be empty) and `env`. Raises Invalid with every problem."""
    written = manifest.parse(text, name) if text.strip() else []
    if len(written) > 1:
        raise errors.Invalid(f"{name} holds {len(written)} documents", hint="keep one")
    obj: dict[str, Any] = dict(written[0].obj) if written else {}
    for field, schema in schemas.load("config.json")["properties"].items():
        variable = schema.get("x-agentk-env", "")
        if env.get(variable):
            obj[field] = _value(env[variable], schema, variable)
    made = admit.admit_config(obj, written[0] if written else None)
    return Settings(
        log_level=made["logLevel"],
        log_format=made["logFormat"],
        max_agents=made["maxAgents"],
        max_cpu_millis=quantities.parse_cpu(made["maxCpu"]) or None,
        max_memory_bytes=quantities.parse_quantity(made["maxMemory"]) or None,
        time_slice_seconds=_time_slice(made),
        max_starts_at_once=made["maxStartsAtOnce"],
        event_retention_seconds=quantities.parse_duration(made["eventRetention"]),
        change_retention_seconds=quantities.parse_duration(made["changeRetention"]),
        shutdown_grace_seconds=made["shutdownGraceSeconds"],
        journal=_journal(made),
        checkpoint_bytes=int(quantities.parse_quantity(made["checkpointMaxSize"])),
        ca_file=made["caFile"],
        sentence_model=made["sentenceModel"],
    )


def _time_slice(made: Mapping[str, Any]) -> float:
    seconds = quantities.parse_duration(made["timeSlice"])
    if 0 < seconds < _TIME_SLICE_MIN_SECONDS:
        raise errors.Invalid("timeSlice must be at least 1s, or 0s for none", field="timeSlice")
    return seconds


def _journal(made: Mapping[str, Any]) -> Retention:
    size = quantities.parse_quantity(made["journalMaxSize"])
    if size < _JOURNAL_BYTES_MIN:
        least = quantities.format_quantity(_JOURNAL_BYTES_MIN)
        raise errors.Invalid(f"journalMaxSize must be at least {least}", field="journalMaxSize")
    return Retention(
        bodies_seconds=quantities.parse_duration(made["journalBodyRetention"]),
        records_seconds=quantities.parse_duration(made["journalRetention"]),
        total_bytes=size,
    )


def _value(text: str, schema: Mapping[str, Any], variable: str) -> Any:
    if schema.get("type") != "integer":
        return text
    try:
        return int(text)
    except ValueError:
        raise errors.Invalid(f"the variable {variable} must be a whole number, not {text!r}") from None
