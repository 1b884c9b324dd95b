"""Property: any bytes give a value or one documented error, in bounded memory; no decision is undone, no word forged.

Bytes are messages to a node with the real rules and keys (in each role), an entry, a statement, an exported file, or a
snapshot; the first byte says which.  The mutator knows their structure and repairs digests, chains and the signatures
of the one member that lies (tests/ledger/forgeries.py).  Options: campaign.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "ledger"))

from campaign import run
from forgeries import mutate
from hostile import walk, world

if __name__ == "__main__":
    world()
    sys.exit(run("ledger", mutate, walk))
