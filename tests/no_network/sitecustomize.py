"""Cuts a Python off from every host but this machine, and writes down which ones it tried.

Python imports a module of this name when it starts: PYTHONPATH=tests/no_network HOSTS_TRIED=FILE python ...
It sees what goes through Python's sockets; what other languages open is seen by a network namespace alone.
"""

import ipaddress
import os
import sys

HERE = ("", "localhost", "localhost.localdomain", "ip6-localhost")


def is_here(host: object) -> bool:
    """Return True if a host (a name or an address) is this machine, or if the value is no host (None, numbers)."""
    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if not isinstance(host, str) or host in HERE:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Raise OSError if a socket is about to reach another host, or its name is to be looked up."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        # A path (str or bytes) is a socket of Unix.
        host = arguments[1][0] if isinstance(arguments[1], tuple) and arguments[1] else None
    else:
        return
    if not is_here(host):
        with open(os.environ["HOSTS_TRIED"], "a", encoding="utf-8") as file:
            file.write(f"{host} ({event}) by {' '.join(sys.orig_argv)[:200]}\n")
        raise OSError(101, f"the network is cut off: {host}")


if "HOSTS_TRIED" in os.environ:
    sys.addaudithook(refuse)
