"""Every limit, with its unit and its reason.  Relations between limits are asserted at the end."""

from __future__ import annotations

from typing import Final

# --- files -----------------------------------------------------------------------------------------------------------
#: bytes of one protobuf message.  The protobuf library itself stops at 2 GiB; larger models keep their data outside.
PROTO_BYTES_MAX: Final = 2**31 - 1
#: versions of the format that onnx 1.23 knows.  Version 3 brought opset_import; without it operators mean nothing.
IR_VERSION_MIN: Final = 3
IR_VERSION_MAX: Final = 14
#: bytes of a data file that are not on the disk (a sparse file reads as zeros there).  A few kilobytes must not make
#: hours of work; tools that set a file's size beforehand, and file systems that compress, leave some.
HOLES_BYTES_MAX: Final = 8 * 2**30
#: levels of graph inside graph (If, Loop, Scan, functions).  Real models stay below 10; each level costs stack.
NESTING_MAX: Final = 64
#: characters of the path of nodes that names an inner graph; longer ones end in a digest.
SCOPE_CHARS_MAX: Final = 256
#: tensors that can be merged in one model.  A large language model has about 10**4; each takes about 1 kB of memory.
TENSORS_MAX: Final = 262_144
#: graphs and functions in one model.
GRAPHS_MAX: Final = 65_536
#: inputs and outputs of all graphs and functions.  Old models list every initialiser as an input.
PORTS_MAX: Final = 524_288
#: attributes of one node.  ONNX knows at most about 20; custom operators may bring more.
ATTRIBUTES_MAX: Final = 1024
#: bytes of the description of one input's type.
TYPE_BYTES_MAX: Final = 2**20
#: nodes in one model, all graphs and functions together.
NODES_MAX: Final = 5_000_000
#: elements in one tensor: 2**48 float64 is 2 PiB, above any file system in use; keeps byte counts inside int64.
ELEMENTS_MAX: Final = 2**48
#: dimensions of one tensor.
DIMS_MAX: Final = 64
#: bytes of a name.  Longer ones are legal protobuf, and no use to anybody.
NAME_BYTES_MAX: Final = 65_536
#: bytes of one tensor that is not stored as little-endian bytes and must be decoded in memory.
DECODED_BYTES_MAX: Final = 256 * 2**20
#: bytes of a weights file that keeps its data inside; larger ones get a data file.  Below PROTO_BYTES_MAX by enough
#: that other tools can add a graph and still write one file.
EMBEDDED_BYTES_MAX: Final = 1_900_000_000

# --- merging ---------------------------------------------------------------------------------------------------------
#: models in one merge.
MODELS_MAX: Final = 1024
#: bytes of all input buffers of a streaming merge together, all threads.
STREAM_BYTES_MAX: Final = 48 * 2**20
#: bytes of all arrays of one tile that goes through a CUDA device; there are two, in pinned memory and on the device.
#: Large enough that a copy takes milliseconds and its start microseconds, small enough to pin anywhere.
CUDA_TILE_BYTES: Final = 64 * 2**20
#: inputs of one mean on a device: their addresses and weights travel as a kernel's parameters (4 KiB on every driver).
CUDA_MEAN_MODELS_MAX: Final = 128
#: inputs of one order statistic on a device: all values of a coordinate are sorted in registers.
CUDA_ORDER_MODELS_MAX: Final = 32
#: elements after which the partial sums of a Gram matrix are closed; fixes the order of summation (docs/FORMAT.md).
GRAM_BLOCK: Final = 65_536
#: bytes of a tensor under one leaf of its digest (docs/FORMAT.md).
DIGEST_CHUNK_BYTES: Final = 2**20

# --- update files ----------------------------------------------------------------------------------------------------
#: elements of one chunk: 1 MiB of float32, so that a thread's tiles stay in its cache.  Part of the format.
UPDATE_CHUNK_ELEMENTS: Final = 2**18
#: bytes of a header: TENSORS_MAX tensors with keys of 100 bytes.
UPDATE_HEADER_BYTES_MAX: Final = 32 * 2**20
#: updates that are applied at once; each holds a descriptor, of which a process has about a thousand.
UPDATES_MAX: Final = 512
#: samples behind one update: exact in float64, and more than any site will ever have.
SAMPLES_MAX: Final = 2**53

# --- ledger ----------------------------------------------------------------------------------------------------------
#: bytes of one entry's payload: a genesis with LEDGER_MEMBERS_MAX members and their addresses fits.
LEDGER_ENTRY_BYTES_MAX: Final = 128 * 2**10
#: members of a swarm, learners too: abscissas of Shamir shares over GF(256) are 1..255.
LEDGER_MEMBERS_MAX: Final = 255
#: one-time keys in one key batch: 8 KiB, good for 256 slots.
LEDGER_KEYS_MAX: Final = 256
#: entries back that a statement may point to as "the last entry I saw": several rounds of a large swarm, 128 KiB.
LEDGER_SEEN_WINDOW: Final = 4096
#: certified models that an evaluation may still speak of; bounds the state of a node.
LEDGER_MODELS_KEPT: Final = 1024
#: characters of a member's name, and of its address.
LEDGER_NAME_CHARS_MAX: Final = 64
LEDGER_ADDRESS_CHARS_MAX: Final = 128
#: characters of a reason or note, and metrics in one evaluation.
LEDGER_TEXT_CHARS_MAX: Final = 1000
LEDGER_METRICS_MAX: Final = 64
#: times that a member may be found out in a round before it takes part in none any more: once may be a broken machine.
LEDGER_FAULTS_MAX: Final = 2
#: settings of a swarm's merge rule and outer optimiser; TIES has two, Adam four.
LEDGER_SETTINGS_MAX: Final = 16
#: participants of a round whose rule looks at whole models: the Gram matrix of a shard must fit in one entry.
GRAM_MODELS_MAX: Final = 100
#: float64 numbers for each element of a shard's Gram matrix: 159 bits, so that sums of shards are exact in practice.
GRAM_LEVELS_MAX: Final = 3
#: bytes of such a matrix: the lower triangle on each level.
GRAM_BYTES_MAX: Final = 8 * GRAM_LEVELS_MAX * GRAM_MODELS_MAX * (GRAM_MODELS_MAX + 1) // 2
#: entries in one file: a swarm of 100 that makes a round every 10 minutes writes this many in two years.
LEDGER_ENTRIES_MAX: Final = 50_000_000

# --- the ledger's consensus core -------------------------------------------------------------------------------------
#: entries and payload bytes of one append message; a single larger entry travels alone.
APPEND_ENTRIES_MAX: Final = 512
APPEND_BYTES_MAX: Final = 2**20
#: append messages on their way to one peer without an answer.
APPENDS_IN_FLIGHT_MAX: Final = 64
#: payload bytes a leader holds that are not committed yet; proposals beyond are refused.
UNCOMMITTED_BYTES_MAX: Final = 32 * 2**20
#: entries and payload bytes of the part of the log that a node holds in memory; compaction makes room.
LOG_ENTRIES_MAX: Final = 1_000_000
LOG_BYTES_MAX: Final = 512 * 2**20
#: bytes of a snapshot, and of one chunk of it on the wire.
SNAPSHOT_BYTES_MAX: Final = 256 * 2**20
SNAPSHOT_CHUNK_BYTES: Final = 2**20
#: the highest term and index anybody may speak of: far above any life's worth, and exact in every language's double.
TERM_MAX: Final = 2**53
#: how far one message may raise our term: terms rise by ones, so only a liar jumps far, and he must not use them up; a
#: site that was away for years comes nearer by this much with each message.
TERM_JUMP_MAX: Final = 2**20
#: unanswered reads at a leader.
READS_PENDING_MAX: Final = 10_000
#: pairs of entries kept as evidence of a fork.
EVIDENCE_MAX: Final = 16
#: entries and payload bytes of the log that a replica lets grow in memory before its older part becomes a snapshot; the
#: younger third stays, so that a peer that was away for a while needs no snapshot.
REPLICA_ENTRIES_MAX: Final = 15_000
REPLICA_BYTES_MAX: Final = 64 * 2**20

# --- secure aggregation ----------------------------------------------------------------------------------------------
#: slots of one epoch: after so many, shares are sealed for a new key.
EPOCH_SLOTS_MAX: Final = 256
#: epochs whose private halves are alive at once: the present one, the next, and one more of either.
EPOCHS_KEPT_MAX: Final = 4
#: bytes of their encoding: two keys of 32 bytes, two numbers and what frames them.
KEPT_KEYS_BYTES_MAX: Final = 1024
#: slots for which a journal remembers decisions.  One slot ends before the next but one begins, so two would do; an
#: epoch's worth costs 255 rows of 100 bytes for each, 6 MB, in the largest swarm.
JOURNAL_SLOTS_KEPT: Final = EPOCH_SLOTS_MAX
#: elements that one slot may have: beyond, a model goes in waves (docs/PROTOCOL.md).
SLOT_ELEMENTS_MAX: Final = 256 * 2**20

# --- the swarm -------------------------------------------------------------------------------------------------------
#: bytes of one frame of the control plane: the largest is an append of the ledger, or the hashes of a parcel.
CONTROL_BYTES_MAX: Final = 2 * 2**20
#: bytes of one chunk of a parcel on the data plane.
CHUNK_BYTES: Final = 2**20
#: chunks of one parcel: 32 GiB, more than a wave of the largest ring has.
CHUNKS_MAX: Final = 32_768
#: chunks asked for in one message.
WANTS_MAX: Final = 64
#: chunks on their way to this node from one peer, and from all: what a node buffers beside its parcels.
WINDOW_CHUNKS: Final = 8
WINDOW_CHUNKS_ALL: Final = 32
#: bytes of the header of a chunk, and of a chunk with what sealing adds to it.
CHUNK_HEADER_BYTES_MAX: Final = 128
SEALED_CHUNK_BYTES_MAX: Final = CHUNK_BYTES + 2**10
#: messages that wait to be sent over one connection, beside what the kernel holds: on the control plane small ones
#: nearly always, on the data plane chunks of 1 MiB.  ZeroMQ says that there is room again only when half of a queue has
#: been sent, so a window fits into half of one.
CONTROL_QUEUE: Final = 128
BULK_QUEUE: Final = 2 * WINDOW_CHUNKS
#: bytes that one connection may have brought and that nobody has taken yet, after which it is cut, while its node
#: polls.  ZeroMQ counts messages, not bytes, and holds a message of many parts until its last.  Who sticks to the
#: windows never comes near.
CONTROL_BACKLOG_BYTES_MAX: Final = 96 * 2**20
BULK_BACKLOG_BYTES_MAX: Final = 48 * 2**20
#: messages and bytes that one call of a transport's ``poll`` gives of each plane; what is left waits for the next.
POLL_MESSAGES_MAX: Final = 256
POLL_BYTES_MAX: Final = 16 * 2**20
#: handshakes that one ``poll`` answers.
POLL_HANDSHAKES_MAX: Final = 64
#: bytes of one sealed share: secret, salt, the path in a tree of LEDGER_MEMBERS_MAX leaves, tag.
SEALED_SHARE_BYTES_MAX: Final = 1024

#: chunks that a node sends in a row when it is asked how fast bytes go, half of the queue of a connection; and seconds
#: in which one peer gets no more than one such row and one chunk: 18 MiB a second, even where it asks without end.
PROBE_CHUNKS_MAX: Final = 8
PROBE_PAUSE_S: Final = 0.5

#: decided entries that a node which starts reads again for what was measured: about a second, and a thousand rounds of
#: a small swarm.
SCORES_ENTRIES_MAX: Final = 50_000

#: bytes of a site file: all members as peers, each with a path and an address, and comments.
SITE_FILE_BYTES_MAX: Final = 256 * 2**10
#: globs of tensors that a site keeps to itself.
SITE_GLOBS_MAX: Final = 256
#: bytes of a card and of a ballot in text: a ballot has an approval of each member.
CARD_BYTES_MAX: Final = 4096
BALLOT_BYTES_MAX: Final = 128 * 2**10

# --- output for people -----------------------------------------------------------------------------------------------
#: differences between two models that are listed; the rest is counted.
DIFFERENCES_SHOWN_MAX: Final = 10
#: characters of a foreign name that are shown in a message.
NAME_SHOWN_MAX: Final = 120

assert EMBEDDED_BYTES_MAX < PROTO_BYTES_MAX
assert ELEMENTS_MAX * 8 < 2**63
assert DIGEST_CHUNK_BYTES % 8 == 0
assert UPDATE_CHUNK_ELEMENTS % 2**14 == 0
assert 100 * TENSORS_MAX < UPDATE_HEADER_BYTES_MAX
assert LEDGER_MEMBERS_MAX * (3 * 34 + LEDGER_NAME_CHARS_MAX + LEDGER_ADDRESS_CHARS_MAX) < LEDGER_ENTRY_BYTES_MAX
assert LEDGER_KEYS_MAX * 34 < LEDGER_ENTRY_BYTES_MAX
assert LEDGER_MEMBERS_MAX * 320 + CARD_BYTES_MAX < BALLOT_BYTES_MAX
assert NAME_SHOWN_MAX < NAME_BYTES_MAX
assert GRAM_MODELS_MAX <= LEDGER_MEMBERS_MAX and GRAM_BYTES_MAX + 2**10 < LEDGER_ENTRY_BYTES_MAX
assert LEDGER_ENTRY_BYTES_MAX <= APPEND_BYTES_MAX <= UNCOMMITTED_BYTES_MAX <= LOG_BYTES_MAX
assert SNAPSHOT_CHUNK_BYTES <= SNAPSHOT_BYTES_MAX
assert TERM_JUMP_MAX < TERM_MAX
assert 2 * REPLICA_ENTRIES_MAX <= LOG_ENTRIES_MAX and REPLICA_BYTES_MAX + 2 * UNCOMMITTED_BYTES_MAX <= LOG_BYTES_MAX
assert APPEND_BYTES_MAX + 2**18 <= CONTROL_BYTES_MAX and 32 * CHUNKS_MAX + 2**10 <= CONTROL_BYTES_MAX
assert SNAPSHOT_CHUNK_BYTES + 2**10 <= CONTROL_BYTES_MAX
assert CONTROL_BACKLOG_BYTES_MAX > APPENDS_IN_FLIGHT_MAX * APPEND_BYTES_MAX + 8 * CONTROL_BYTES_MAX
assert BULK_BACKLOG_BYTES_MAX > 2 * BULK_QUEUE * SEALED_CHUNK_BYTES_MAX
assert CONTROL_BYTES_MAX <= POLL_BYTES_MAX and SEALED_CHUNK_BYTES_MAX <= POLL_BYTES_MAX
assert EPOCHS_KEPT_MAX * (2 * 34 + 2 * 9 + 1) + 8 <= KEPT_KEYS_BYTES_MAX
assert WINDOW_CHUNKS <= WANTS_MAX and WINDOW_CHUNKS <= WINDOW_CHUNKS_ALL
assert PROBE_CHUNKS_MAX <= BULK_QUEUE // 2
