"""A switch between network namespaces that delays, loses, limits and cuts: for a kernel without netem, in user space.

Each namespace has one TUN device; a thread reads packets from each, and writes them to where they go when they are due.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import threading
import time
from contextlib import suppress
from random import Random

import msgspec

_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
#: bytes that wait before a slow link; what comes on top is dropped, as a router does
_QUEUE_BYTES = 256 * 1024


class Weather(msgspec.Struct):
    """Of one direction of one link.

    delay_s   until a packet arrives            loss   share of packets that do not
    rate_bps  bits a second; 0: no limit        cut    nothing arrives
    """

    delay_s: float = 0.0
    loss: float = 0.0
    rate_bps: float = 0.0
    cut: bool = False


def why_not() -> str:
    """Why this machine has no namespaces for us; "" if it has."""
    name = f"shoal-try-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        if made.returncode:
            return f"no network namespaces: {made.stderr.strip()}"
        os.close(_tun(name))
    except OSError as error:
        return f"no network namespaces, or no TUN device: {error}"
    finally:
        with suppress(OSError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


def _tun(namespace: str) -> int:
    """A new device tun0 in a namespace; its descriptor.  A namespace belongs to a thread: this one takes its own."""
    found: list[int | OSError] = []

    def enter() -> None:
        try:
            where = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(where, _NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(where)
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH14x", b"tun0", _IFF_TUN | _IFF_NO_PI))
            found.append(tun)
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


class Switch:
    """n namespaces; use as a context manager.  ``weather[a, b]``: of what a sends to b; to be changed at any time."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n = n
        self.names = [f"shoal-{os.getpid()}-{i}" for i in range(n)]
        self.weather = {(a, b): Weather() for a in range(n) for b in range(n) if a != b}
        self.passed = self.lost = 0
        self._random = Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self._tuns: list[int] = []

    def address(self, i: int) -> str:
        return f"10.91.7.{i + 1}"

    def prefix(self, i: int) -> list[str]:
        return ["ip", "netns", "exec", self.names[i]]

    def __enter__(self) -> Switch:
        try:
            for i, name in enumerate(self.names):
                subprocess.run(["ip", "netns", "add", name], check=True)
                self._tuns.append(_tun(name))
                for words in (
                    ["addr", "add", f"{self.address(i)}/24", "dev", "tun0"],
                    ["link", "set", "tun0", "up"],
                    ["link", "set", "lo", "up"],
                ):
                    subprocess.run(["ip", "-n", name, *words], check=True)
        except BaseException:
            self.__exit__()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for tun in self._tuns:
            os.close(tun)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def everywhere(self, **change: float | bool) -> None:
        """The same weather on all links."""
        for link in self.weather:
            self.weather[link] = Weather(**change)

    def cut(self, one: set[int], other: set[int], both_ways: bool = True) -> None:
        """Nothing passes from ``one`` to ``other``, nor back."""
        for a, b in self.weather:
            if (a in one and b in other) or (both_ways and a in other and b in one):
                self.weather[a, b] = Weather(cut=True)

    def _run(self) -> None:
        due: list[tuple[float, int, int, bytes]] = []
        free = dict.fromkeys(self.weather, 0.0)
        count = 0
        while not self._stopping.is_set():
            wait = max(0.0, due[0][0] - time.monotonic()) if due else 0.1
            ready, _, _ = select.select(self._tuns, [], [], min(wait, 0.1))
            for tun in ready:
                source = self._tuns.index(tun)
                for _ in range(64):
                    try:
                        packet = os.read(tun, 65536)
                    except BlockingIOError:
                        break
                    target = packet[19] - 1 if len(packet) >= 20 and packet[0] >> 4 == 4 else -1
                    at = self._arrival(source, target, len(packet), free)
                    if at is not None:
                        count += 1
                        heapq.heappush(due, (at, count, target, packet))
            now = time.monotonic()
            while due and due[0][0] <= now:
                _, _, target, packet = heapq.heappop(due)
                with suppress(OSError):  # the queue of the device is full: a router would drop it, too
                    os.write(self._tuns[target], packet)
                    self.passed += 1

    def _arrival(self, source: int, target: int, size: int, free: dict[tuple[int, int], float]) -> float | None:
        weather = self.weather.get((source, target))
        if weather is None:
            return None
        now = time.monotonic()
        begin = max(now, free[source, target]) if weather.rate_bps else now
        late = (begin - now) * weather.rate_bps > 8 * _QUEUE_BYTES
        if weather.cut or late or self._random.random() < weather.loss:
            self.lost += 1
            return None
        if weather.rate_bps:
            begin += 8 * size / weather.rate_bps
            free[source, target] = begin
        return begin + weather.delay_s
