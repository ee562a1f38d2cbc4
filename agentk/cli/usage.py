"""The one error for a command line that cannot be meant: main prints it and ends with 2."""

from agentk.api import errors


class Usage(errors.BadRequest):
    """What was typed is wrong in itself; nothing was asked of the daemon."""
