"""The socket guard: in every Python process of the tests, whatever leaves this machine is refused and written down.

This folder stands first on PYTHONPATH while tests run (tests/conftest.py), so the interpreter loads this module at the start
of every child process too: workers of Beam, the `winnow` command, servers. An audit hook cannot be taken off and sees every
connect, datagram and name look-up made through Python. A refusal is also a line in the file that $WINNOW_TEST_NETWORK_LOG
names, so that code which swallows the exception still fails its test. Sockets opened by compiled libraries are not seen here:
tests/invariants/test_offline.py runs a whole build where the kernel itself has no network.
"""

import os
import sys

ALLOWED, LOG = "WINNOW_TEST_NETWORK", "WINNOW_TEST_NETWORK_LOG"
_NAMES = frozenset({"", "localhost", "0.0.0.0", "::", "::1", os.uname().nodename.lower()})
_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
_SENDS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


class NetworkUsed(RuntimeError):
    """Something asked for a machine other than this one. No OSError: those are what retries and fall-backs wait for."""


def is_local(host: object) -> bool:
    """Whether a host as given to a socket call is this machine. Nothing is looked up."""
    if host is None:
        return True
    name = (bytes(host).decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)).lower()
    name = name.partition("%")[0].removeprefix("::ffff:")
    numbers = name.split(".")
    return name in _NAMES or (len(numbers) == 4 and numbers[0] == "127" and all(map(str.isdigit, numbers)))


def _refuse(event: str, host: object) -> None:
    line = f"{event} {host!r} in {sys.argv[0] if getattr(sys, 'argv', None) else sys.executable}"
    log = os.environ.get(LOG)
    if log:
        with open(log, "a") as file:
            file.write(line + "\n")
    raise NetworkUsed(f"{line}: tests run offline; mark a test that must not with `network`")


def _audit(event: str, arguments: tuple) -> None:
    if not event.startswith("socket.") or os.environ.get(ALLOWED) == "1":
        return
    if event in _LOOKUPS:
        host = arguments[0]
    elif event in _SENDS and isinstance(arguments[1], tuple) and arguments[0].family.name.startswith("AF_INET"):
        host = arguments[1][0]
    else:
        return
    if not is_local(host):
        _refuse(event, host)


sys.addaudithook(_audit)
