"""Network namespaces on one bridge, each behind a link of a limited rate: several machines on one.

Needs root, and a kernel with veth and tbf.  No packet leaves the machine.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from types import TracebackType

_NUMBERS = itertools.count()


def _ip(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def missing() -> str:
    """Why there can be none here; "" if there can."""
    if os.geteuid():
        return "network namespaces need root"
    try:
        with LimitedNet(1, 1):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", b"") or str(error).encode()
        return f"no limited links here: {told.decode(errors='replace').strip()}"


class LimitedNet:
    """``count`` namespaces, 10.77.0.1 and on; use as a context manager.

    mbit  per second, each way, of each one's link
    """

    device = "eth0"

    def __init__(self, count: int, mbit: int) -> None:
        self._bridge = f"shoal-bench-{os.getpid()}-{next(_NUMBERS)}"
        self.names = [f"{self._bridge}-{n}" for n in range(count)]
        self.addresses = [f"10.77.0.{n + 1}" for n in range(count)]
        self._mbit = mbit

    def prefix(self, number: int) -> list[str]:
        """What goes before a command, so that it runs there."""
        return ["ip", "netns", "exec", self.names[number]]

    def __enter__(self) -> LimitedNet:
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _make(self) -> None:
        shape = ["root", "tbf", "rate", f"{self._mbit}mbit", "burst", "128kb", "latency", "50ms"]
        _ip("ip", "netns", "add", self._bridge)
        within = ["-n", self._bridge]
        _ip("ip", *within, "link", "add", "bridge0", "type", "bridge")
        _ip("ip", *within, "link", "set", "bridge0", "up")
        for number, name in enumerate(self.names):
            _ip("ip", "netns", "add", name)
            port = f"port{number}"
            _ip("ip", *within, "link", "add", port, "type", "veth", "peer", "name", self.device, "netns", name)
            _ip("ip", *within, "link", "set", port, "master", "bridge0", "up")
            _ip("ip", "-n", name, "address", "add", f"{self.addresses[number]}/24", "dev", self.device)
            _ip("ip", "-n", name, "link", "set", self.device, "up")
            _ip("ip", "-n", name, "link", "set", "lo", "up")
            _ip("tc", *within, "qdisc", "add", "dev", port, *shape)
            _ip("tc", "-n", name, "qdisc", "add", "dev", self.device, *shape)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in (*self.names, self._bridge):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
