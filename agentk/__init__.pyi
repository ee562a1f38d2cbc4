from agentk.api.errors import AgentkError as AgentkError
from agentk.client.programs import Client as Client

__all__ = ["AgentkError", "Client"]
