"""agentk for programs of one's own: `from agentk import Client`.

Every command and every guest imports this file first, so it imports nothing by itself. Its types are in the stub.
"""

_PUBLIC = {"Client": "agentk.client.programs", "AgentkError": "agentk.api.errors"}
__all__ = list(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'agentk' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
