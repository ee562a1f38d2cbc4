"""The named moments of a call at which a test ends the daemon, to prove that no effect is done twice or lost.

Test-only; a name that is not in POINTS is a programming error.
"""

from agentk.runtime.launcher import crash

# Its intent is on the disk · its handler has done it · its result is on the disk · a local call's transaction is.
POINTS = ("call.intended", "call.handled", "call.settled", "call.local")
# A box of a tool's own is about to be made · is there · a call is counted · a tool has answered · a long answer is a
# file of the caller's.
TOOLING = ("tool.making", "tool.made", "tool.counted", "tool.ran", "tool.kept")
# Of a call that a person is asked about: the Approval is on the disk · who answers is on record · the answer is on the
# disk · so is that a call has had it, and nothing of the call is yet.
ASKING = ("approval.made", "approval.answering", "approval.answered", "approval.used")
# A Skill is about to be saved · the version before it is kept · one has run.
SKILLS = ("skill.saving", "skill.kept", "skill.ran")
# Of a managed context: who leaves is decided, and nothing is written · what left is about to be told of in a note · the
# note is written · nothing of the turn is on the disk yet · all of it is, uncommitted · it is committed, and the model
# was not asked · the model has answered, and what it read is not noted.
CONTEXT = (
    "context.paged",
    "context.folding",
    "context.folded",
    "context.keeping",
    "context.written",
    "context.kept",
    "context.answered",
)

# A page is kept · pages are forgotten and still in the log · they are gone from the log and not from the journal · some
# of a room are embedded anew.
MEMORY = ("memory.kept", "memory.forgotten", "memory.truncated", "memory.embedded")
# Of a checkpoint: its pages are taken · all of it is on the disk and not yet kept · it is kept and nobody was told ·
# its pages are gone and its files are not. Of a restore: the workspace is back · so is the memory · so is it noted.
CHECKPOINTS = (
    "checkpoint.memory",
    "checkpoint.written",
    "checkpoint.kept",
    "checkpoint.dropped",
    "restore.workspace",
    "restore.memory",
    "restore.done",
)

_folder = ""


def arm_once(folder: str) -> None:
    """Die where `folder` has a file of the point's name, which is taken away first. "" for never."""
    global _folder
    _folder = folder


def crashpoint(name: str) -> None:
    """Die here when told to."""
    if _folder:
        crash.once(_folder, name)
