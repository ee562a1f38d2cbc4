"""What the daemon and its MCP worker say to each other, in frames (`apart/frames`).

Both ends import this file, so it knows neither the SDK nor the daemon. `t` says what a message is:

    daemon → worker   open {id, url?, seconds} · close {id}
                      call {id, session, name, arguments, seconds, progress, key} · cancel {id}
                      answer {id, status, headers} · body {id, text} · over {id, why?}
    worker → daemon   opened {id, offers, refused, server, version} · changed {id, offers, refused}
                      closed {id, why, kind}
                      progress {id, done, total, text} · result {id, content, structured, error} · wrong {id, kind, why}
                      fetch {id, session, method, headers, body} · more {id, bytes} · stop {id}

The pipes of a server travel on a second socket, a packet each: the session's id, and two descriptors (what it says,
what it hears). `fetch` asks the daemon for one HTTP exchange with the session's own server: the worker names neither
host nor secret, and has no way to the network. Bytes of HTTP are texts of latin-1. `more` gives leave to send so many
further bytes of an answer.
"""

import socket

WINDOW_BYTES = 256 * 1024  # of one HTTP answer, sent ahead of who reads it
CALL_BYTES_MAX = 8 * 1024 * 1024  # of one message of a server, or to it


def take(hand: socket.socket) -> tuple[int, int, int] | None:
    """(session, says, hears); None when the other end is gone."""
    data, fds, _, _ = socket.recv_fds(hand, 32, 2)
    return (int(data), fds[0], fds[1]) if data and len(fds) == 2 else None
