"""What Prometheus may ask a node: its status as metrics, made when it is asked for, over HTTP.

Nothing here is counted a second time: every value is the node's own.  prometheus_client is loaded when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from shoal import __version__
from shoal.errors import ArgumentError, MachineError, shown
from shoal.swarm.node import Status
from shoal.swarm.round import Phase

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: name -> (what it is, its value)
GAUGES: Final[dict[str, tuple[str, Callable[[Status], float]]]] = {
    "round": ("Last certified round.", lambda s: s.round),
    "slot": ("Slot of the open attempt at a round; -1: none is open.", lambda s: s.slot),
    "term": ("Term of the ledger's leader.", lambda s: s.term),
    "ledger_entries": ("Decided entries of the ledger.", lambda s: s.decided),
    "members": ("Members of the swarm.", lambda s: len(s.members)),
    "members_connected": ("Members that this node is connected with, itself included.", lambda s: _connected(s)),
    "leads": ("1 if this node leads.", lambda s: any(m.leads and m.id == s.id for m in s.members)),
    "leader_known": ("1 if this node knows a leader.", lambda s: any(m.leads for m in s.members)),
    "behind": ("1 if the certified model is not here yet.", lambda s: s.behind),
    "update_waits": ("1 if an update of this site waits to be merged.", lambda s: s.waiting),
}
COUNTERS: Final[dict[str, tuple[str, Callable[[Status], float]]]] = {
    "sent_bytes": ("Bytes sent to members.", lambda s: s.sent_bytes),
    "received_bytes": ("Bytes received from members.", lambda s: s.received_bytes),
}
#: counters with a label: name -> (what it is, the label, its values)
LABELLED: Final[dict[str, tuple[str, str, Callable[[Status], dict[str, Any]]]]] = {
    "rounds": ("Rounds since the start, by result.", "result", lambda s: s.results),
    "phase_seconds": ("Seconds spent in each phase of a round, and in training.", "phase", lambda s: s.seconds),
    "notices": ("Notices to the operator, by level.", "level", lambda s: s.told),
    "refused": ("What was refused or dropped, by reason.", "reason", lambda s: s.refused),
}


def _connected(status: Status) -> int:
    return sum(member.connected for member in status.members)


class Metrics:
    """Serves metrics while it is entered.

    status   gives what the node says now, None before it has said anything
    site     name of this site, a label of ``shoal_info``
    listen   "host:port"; port 0 takes a free one
    raises   ArgumentError  ``metrics.address``
             MachineError   ``metrics.library``: prometheus_client is not installed;  ``metrics.listen``
    """

    def __init__(self, status: Callable[[], Status | None], site: str, listen: str) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            told = "prometheus_client is not installed; pip install 'shoal[metrics]'"
            raise MachineError("metrics.library", told) from None
        host, _, port = listen.rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
            raise ArgumentError("metrics.address", f"{shown(listen)!r} is no address; expected like 127.0.0.1:9100")
        self._status = status
        self._site = site
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            raise MachineError("metrics.listen", f"{shown(listen)}: {error.strerror or error}") from None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client, at each question."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        status = self._status()
        if status is None:
            return
        about = {"site": self._site, "swarm": status.swarm, "member": status.id, "version": __version__}
        yield InfoMetricFamily("shoal", "The node.", about)
        for name, (help_, value) in GAUGES.items():
            yield GaugeMetricFamily(f"shoal_{name}", help_, float(value(status)))
        for name, (help_, value) in COUNTERS.items():
            yield CounterMetricFamily(f"shoal_{name}", help_, float(value(status)))
        for name, (help_, label, values) in LABELLED.items():
            family = CounterMetricFamily(f"shoal_{name}", help_, labels=[label])
            for key, number in sorted(values(status).items()):
                family.add_metric([key], float(number))
            yield family
        phases = GaugeMetricFamily("shoal_phase", "1 for the phase of the open attempt.", labels=["phase"])
        for phase in Phase:
            phases.add_metric([phase.name.lower()], float(phase.name == status.phase))
        yield phases
