# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Walks the protobuf bytes of an ONNX model once: where every tensor lies, and what the model computes.

Values are skipped, so the time depends on the number of tensors and nodes, not on their size; memory is bounded by
shoal.limits.  Any bytes give an index or one InputError (MachineError if the file cannot be read).

source  onnx.proto of onnx 1.23; Protocol Buffers, "Encoding"
"""

from array import array
from hashlib import blake2b

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy, strerror

from shoal.errors import InputError, MachineError, shown
from shoal.limits import (
    ATTRIBUTES_MAX, DECODED_BYTES_MAX, DIMS_MAX, ELEMENTS_MAX, GRAPHS_MAX, IR_VERSION_MAX, IR_VERSION_MIN,
    NAME_BYTES_MAX, NESTING_MAX, NODES_MAX, PORTS_MAX, SCOPE_CHARS_MAX, TENSORS_MAX, TYPE_BYTES_MAX,
)

cdef int64_t NAME_LENGTH_MAX = NAME_BYTES_MAX
cdef int64_t ELEMENTS_LIMIT = ELEMENTS_MAX

include "_wire.pxi"
include "_values.pxi"
include "_types.pxi"
include "_found.pxi"
include "_attributes.pxi"
include "_nodes.pxi"
include "_rows.pxi"


cdef class Index(Nodes):
    """The walk over a whole model.

    file     str             name for messages
    fd       int             descriptor to read from; not closed, its position not used
    size     int             bytes of the file
    held     bytes | None    the file itself instead of a descriptor
    """

    cdef readonly object ir_version
    cdef readonly dict opsets, producer

    def __init__(self, str file, int fd, int64_t size, bytes held=None):
        self.prepare()
        self.ir_version = None
        self.opsets = {}
        self.producer = {}

    def model(self):
        """Walk the model; afterwards the attributes hold what was found."""
        cdef uint64_t seen = 0
        cdef int64_t stop, payload
        cdef int trainings = 0
        cdef bint graph = False
        self.at = 0
        while self.field(self.size):
            stop = self.stop
            if self.number == 1:
                self.expect(0, "ir_version")
                self.once(&seen, "ir_version")
                self.ir_version = int(<int64_t>self.value)
            elif 2 <= self.number <= 4:
                self.once(&seen, "producer")
                self.producer[("producer_name", "producer_version", "domain")[self.number - 2]] = self.text("producer")
            elif self.number == 5:
                self.expect(0, "model_version")
                self.once(&seen, "model_version")
                self.producer["model_version"] = int(<int64_t>self.value)
            elif self.number == 7:
                self.expect(2, "graph")
                self.once(&seen, "graph")
                graph = True
                self.graph(self.payload, stop, "", (self.length_at,), 0)
            elif self.number == 8:
                self.expect(2, "opset_import")
                self.opset(self.payload, stop, self.opsets)
            elif self.number == 20:
                self.expect(2, "training_info")
                trainings += 1
                payload = self.payload
                self.remember(self.main, f"training_info {trainings}", payload, stop)
                self.sound(payload, stop, TRAINING)
            elif self.number == 25:
                self.expect(2, "functions")
                self.function(self.payload, stop, (self.length_at,))
            elif self.number in (6, 14, 26):
                self.expect(2, "a field of the model")
                if self.number != 6:
                    self.sound(self.payload, stop, ENTRY)
            else:
                self.remember(self.main, f"unknown field {self.number} of the model", self.start, stop)
            self.at = stop
        if self.ir_version is None:
            raise InputError("model.no_ir_version", f"{self.file}: has no ir_version; expected an ONNX model")
        if not IR_VERSION_MIN <= self.ir_version <= IR_VERSION_MAX:
            raise InputError(
                "model.ir_version",
                f"{self.file}: IR version {self.ir_version}; known are {IR_VERSION_MIN} to {IR_VERSION_MAX}",
            )
        if not graph:
            raise InputError("model.no_graph", f"{self.file}: has no graph; expected an ONNX model")
        if not self.opsets:
            raise InputError(
                "model.no_opset", f"{self.file}: has no opset_import; expected the version of its operators"
            )

    cdef int opset(self, int64_t start, int64_t end, dict opsets) except -1:
        cdef uint64_t seen = 0
        cdef int64_t version = 0
        domain = ""
        self.at = start
        while self.field(end):
            if self.number == 1:
                self.once(&seen, "domain of an opset")
                domain = self.text("domain of an opset")
            elif self.number == 2:
                self.expect(0, "version of an opset")
                self.once(&seen, "version of an opset")
                version = <int64_t>self.value
        domain = "" if domain == "ai.onnx" else domain
        if len(opsets) >= ATTRIBUTES_MAX:
            raise InputError("model.opset", f"{self.file}: more than {ATTRIBUTES_MAX} opsets are imported")
        if version < 1:
            raise InputError(
                "model.opset", f"{self.file}: opset {shown(repr(domain))} has version {version}; expected 1 or more"
            )
        if opsets.setdefault(domain, version) != version:
            raise InputError(
                "model.opset",
                f"{self.file}: opset {shown(repr(domain))} is imported twice, as {opsets[domain]} and {version}",
            )
        return 0

    cdef int function(self, int64_t start, int64_t end, tuple enclosing) except -1:
        """A model-local function: its id first, which stands behind its nodes, then everything else."""
        cdef uint64_t seen = 0
        cdef int64_t stop
        cdef dict opsets = {}
        cdef list attributes = []
        name = domain = overload = ""
        self.at = start
        while self.field(end):
            if self.number == 1:
                self.once(&seen, "name of a function")
                name = self.text("name of a function")
            elif self.number == 10:
                self.once(&seen, "domain of a function")
                domain = self.text("domain of a function")
            elif self.number == 13:
                self.once(&seen, "overload of a function")
                overload = self.text("overload of a function")
        if not name:
            raise InputError("function.unnamed", f"{self.file}: byte {start}: a function has no name")
        graph = self.enter(shortened(f"function:{domain}:{name}:{overload}"), "", start)
        cdef Owner owner = Owner(graph, graph.scope, False, 1)
        self.at = start
        while self.field(end):
            stop = self.stop
            if self.number == 4:
                self.port(graph.inputs, self.text("input of a function"), b"", start, start)
            elif self.number == 5:
                self.port(graph.outputs, self.text("output of a function"), b"", start, start)
            elif self.number == 6:
                attributes.append(self.text("attribute of a function"))
                if len(attributes) > ATTRIBUTES_MAX:
                    raise InputError(
                        "function.attributes", f"{self.file}: {graph.scope} has more than {ATTRIBUTES_MAX} attributes"
                    )
            elif self.number == 7:
                self.expect(2, "node")
                self.node(self.payload, stop, graph, enclosing + (self.length_at,), 1)
            elif self.number == 9:
                self.expect(2, "opset_import")
                self.opset(self.payload, stop, opsets)
            elif self.number == 11:
                self.expect(2, "attribute_proto")
                key, value = self.attribute(self.payload, stop, enclosing + (self.length_at,), owner)
                self.note(graph, f"default of attribute {shown(repr(key))}", value)
            elif self.number == 12 or self.number == 14:
                self.expect(2, "a field of a function")
                self.sound(self.payload, stop, VALUE_INFO if self.number == 12 else ENTRY)
            elif self.number not in (1, 8, 10, 13):
                self.remember(graph, f"unknown field {self.number}", self.start, stop)
            self.at = stop
        self.note(graph, "opset imports", repr(sorted(opsets.items())).encode())
        self.note(graph, "attributes", repr(sorted(attributes)).encode())
        return 0


def decode(str file, int fd, int64_t size, int64_t start, int64_t stop, bint attribute, bytes held=None):
    """The values of one tensor in little-endian order, as raw data would hold them.

    start, stop  content of its TensorProto in the file; if ``attribute``, of an AttributeProto (value_float(s))
    returns      bytes; of strings a list of bytes
    raises       InputError  if it is damaged, or above DECODED_BYTES_MAX
    """
    cdef Nodes reader = Nodes(file, fd, size, held)
    cdef Sink sink = Sink(DECODED_BYTES_MAX)
    cdef list strings = []
    if not 0 <= start <= stop <= reader.size:
        raise ValueError("range outside the file")
    if attribute:
        reader.floats(start, stop, sink)
    else:
        reader.tensor(start, stop)
        if reader.external:
            raise ValueError("values lie in another file")
        if reader.nbytes() <= <int64_t>sink.limit:
            reader.values(sink)
        else:
            sink.total = reader.nbytes()
    if sink.total > sink.limit:
        raise InputError(
            "tensor.too_large",
            f"{reader.file}: a tensor of {sink.total} bytes in typed fields; expected at most {sink.limit}"
        )
    if attribute or reader.code != STRING:
        return sink.content()
    raw = sink.content()
    at = 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 8], "little")
        strings.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return strings


def node_parts(str file, int fd, int64_t size, int64_t start, int64_t stop, bytes held=None):
    """What a node says, for a message about it.

    returns  (op_type, domain, overload, name, inputs, outputs, {attribute name: canonical value})
    """
    cdef Nodes reader = Nodes(file, fd, size, held)
    if not 0 <= start <= stop <= reader.size:
        raise ValueError("range outside the file")
    reader.prepare()
    return reader.describe(start, stop)


def fields(bytes message):
    """The fields of one message: [(number, value)], value an int or bytes; for small messages."""
    cdef Reader reader = Reader("message", -1, 0, message)
    cdef list found = []
    while reader.field(reader.size):
        if reader.wire == 0:
            found.append((reader.number, int(reader.value)))
        else:
            found.append((reader.number, message[reader.payload : reader.stop]))
    return found
