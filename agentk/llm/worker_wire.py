"""What the daemon and its LiteLLM worker say to each other, in frames (`apart/frames`). `t` says what a message is:

    daemon → worker   ask {id, route, models, settings, dialect, body, stream} · more {id, n} · stop {id}
    worker → daemon   data {id, text, usage?, cost?} · end {id, cost} · refused {id, message, …}

`text` is one server-sent event, or a piece of a whole answer, whose `usage` and `cost` come with the first piece.

`more` gives a call leave to send so many further characters: a guest that reads slowly holds up its own upstream and
nobody else. After `stop` nothing is said of a call any more.
"""

PIECE_CHARS = 64 * 1024  # of a whole answer in one frame: no answer keeps the others waiting
WINDOW_CHARS = 256 * 1024  # what a call may send ahead of its reader
