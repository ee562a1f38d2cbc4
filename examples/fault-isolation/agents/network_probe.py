"""Tries to reach anything at all: the host's loopback, the net (reserved addresses), names."""

import errno
import json
import os
import socket


def attempt(name, connect):
    try:
        connect()
        got = "connected"
    except OSError as error:
        got = errno.errorcode.get(error.errno or 0, type(error).__name__)
    print(json.dumps({"attempt": name, "got": got, "reached": got == "connected"}), flush=True)


def tcp(host, port):
    return lambda: socket.create_connection((host, port), timeout=2).close()


def udp(host, port):
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"hello", (host, port))

    return send


if os.environ.get("HOST_PORT"):
    attempt("the host's own loopback", tcp("127.0.0.1", int(os.environ["HOST_PORT"])))
attempt("TCP to 192.0.2.1:443", tcp("192.0.2.1", 443))
attempt("TCP to 169.254.169.254:80 (cloud metadata)", tcp("169.254.169.254", 80))
attempt("UDP to 198.51.100.1:53", udp("198.51.100.1", 53))
attempt("TCP to [2001:db8::1]:443", tcp("2001:db8::1", 443))
attempt("the name example.com", lambda: socket.getaddrinfo("example.com", 443))
