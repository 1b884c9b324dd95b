"""A bar with bytes and GB/s on standard error, for work that is large and a person who looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: bytes from which a bar is worth drawing: less is done before it would be seen
BAR_BYTES_MIN = 256 * 2**20

Progress = Callable[[int, int], None]


@contextmanager
def bar(what: str, nbytes: int, quiet: bool) -> Iterator[Progress | None]:
    """A callback (bytes done, bytes to do) that draws; None where nothing is to be drawn.

    what    a few words of ours before the bar
    nbytes  what is expected to be read
    """
    if quiet or nbytes < BAR_BYTES_MIN or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[speed]}")
    with Bar(*columns, console=Console(stderr=True), transient=True) as drawn:
        task: TaskID = drawn.add_task(what, total=nbytes, speed="")
        started = time.perf_counter()

        def tell(done: int, total: int) -> None:
            seconds = max(time.perf_counter() - started, 1e-9)
            drawn.update(task, completed=done, total=total, speed=f"{done / seconds / 1e9:.1f} GB/s")

        yield tell
