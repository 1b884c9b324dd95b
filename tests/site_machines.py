"""Machines to try the manual on: folders, and a network namespace for each where this process may make them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Machines:
    """addresses  name -> IPv4 address in one /24.  Use as a context manager: what it made goes with it.

    raises  PermissionError  no namespaces can be made here
    """

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        self.folder = folder
        self.addresses = addresses
        self._mark = f"shoal{os.getpid()}"
        self._made: list[str] = []

    def __enter__(self) -> Machines:
        if os.geteuid() or shutil.which("ip") is None:
            raise PermissionError("network namespaces take root and iproute2")
        try:
            hub = self._namespace("hub")
        except subprocess.CalledProcessError as error:
            raise PermissionError(f"no network namespaces here: {error.stderr!r}") from None
        try:
            _ip("-n", hub, "link", "add", "name", "hub0", "type", "bridge")
            _ip("-n", hub, "link", "set", "hub0", "up")
            for number, (name, address) in enumerate(self.addresses.items()):
                place = self._namespace(name)
                _ip(
                    "-n",
                    hub,
                    "link",
                    "add",
                    "name",
                    f"v{number}",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "eth0",
                    "netns",
                    place,
                )
                _ip("-n", hub, "link", "set", f"v{number}", "master", "hub0", "up")
                _ip("-n", place, "address", "add", f"{address}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    _ip("-n", place, "link", "set", device, "up")
                (self.folder / name).mkdir(mode=0o700)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        self._made.clear()

    def _namespace(self, name: str) -> str:
        _ip("netns", "add", f"{self._mark}-{name}")
        self._made.append(f"{self._mark}-{name}")
        return self._made[-1]

    def start(self, name: str, command: Sequence[str], **more: object) -> subprocess.Popen[str]:
        """Start a command at that machine, in its folder."""
        words = ["ip", "netns", "exec", f"{self._mark}-{name}", *command]
        return subprocess.Popen(words, cwd=self.folder / name, text=True, **more)  # type: ignore[call-overload,no-any-return]
