# Attributes of nodes: canonical bytes of their values, the tensors of Constant nodes, and the graphs inside.

# type of the attribute (AttributeProto.type) whose value stands in each field
cdef int* ATTRIBUTE_TYPE = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, 13, 14, 0, 0, 0, 0, 0, 0, 11, 12]
# and back
cdef int* FIELD_OF_TYPE = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 22, 23, 14, 15]


cdef str shortened(str scope):
    """A scope of bounded length: deep nests with long names would otherwise need the square of their size."""
    if len(scope) <= SCOPE_CHARS_MAX:
        return scope
    digest = blake2b(scope.encode(), digest_size=16).hexdigest()
    return f"{scope[: SCOPE_CHARS_MAX - 33]}~{digest}"


# attributes of a Constant node that are merged, with their types
cdef frozenset CONSTANT_VALUES = frozenset(
    {("value", 4), ("sparse_value", 11), ("value_float", 1), ("value_floats", 6)}
)


cdef class Owner:
    """The node whose attributes are walked."""

    cdef object graph               # Graph that it stands in; None: only look, note nothing
    cdef str label                  # as part of a scope
    cdef str output                 # its first one
    cdef bint constant              # a Constant node of ONNX
    cdef int depth

    def __cinit__(self, object graph, str label, bint constant, int depth):
        self.graph, self.label, self.constant, self.depth = graph, label, constant, depth


cdef class Attributes(Found):
    """Reader of attributes."""

    cdef int graph(self, int64_t start, int64_t end, str scope, tuple enclosing, int depth, str parent="") except -1:
        raise NotImplementedError   # Nodes does

    cdef tuple attribute(self, int64_t start, int64_t end, tuple enclosing, Owner owner):
        """(name, canonical value) of an attribute; tensors that can be merged are noted, their values left out."""
        cdef uint64_t seen = 0
        cdef int64_t stop, kind, declared = 0, found = 0
        name = reference = ""
        self.begin, self.end, self.name, self.whose = start, end, None, owner.label
        self.in_tensor = False
        self.runs = 0
        self.at = start
        while self.field(end):
            stop = self.stop
            kind = ATTRIBUTE_TYPE[self.number] if self.number < 24 else 0
            if self.number == 1:
                self.once(&seen, "name of an attribute")
                name = self.text("name of an attribute")
            elif self.number == 20:
                self.expect(0, "type of an attribute")
                self.once(&seen, "type of an attribute")
                declared = <int64_t>self.value
            elif self.number == 21:
                self.once(&seen, "ref_attr_name")
                reference = self.text("ref_attr_name")
            elif kind:
                if kind <= 5 or kind == 11 or kind == 13:
                    self.once(&seen, "value of an attribute")
                if found and found != kind:
                    raise InputError(
                        "attribute.two_values",
                        f"{self.file}: byte {start}: an attribute of {shown(repr(owner.label))} has two values",
                    )
                found = kind
                if kind == 1 or kind == 6:
                    self.run()
            self.at = stop
        if not name:
            raise InputError("attribute.unnamed", f"{self.file}: byte {start}: an attribute has no name")
        if found and declared and found != declared or (reference and found) or not 0 <= declared <= 14:
            raise InputError(
                "attribute.type",
                f"{self.file}: byte {start}: attribute {shown(repr(name))} is declared as type {declared}, "
                f"its value is of type {found}"
            )
        kind = declared or found
        if not kind and not reference:
            raise InputError(
                "attribute.type", f"{self.file}: byte {start}: attribute {shown(repr(name))} has neither type nor value"
            )
        if reference:
            return name, b"reference " + reference.encode()
        if owner.constant and (name, kind) in CONSTANT_VALUES:
            return name, self.constant(start, end, kind, enclosing, owner)
        return name, self.attribute_value(start, end, kind, name, enclosing, owner)

    cdef bytes constant(self, int64_t start, int64_t end, int64_t kind, tuple enclosing, Owner owner):
        """Note the tensor of a Constant node; its type and dims are compared with the other tensors."""
        cdef bint found = False
        if owner.graph is None:
            return b"constant"
        if kind == 1 or kind == 6:
            self.floats(start, end, None)
            self.emit(CONSTANT_FLOAT if kind == 1 else CONSTANT_FLOATS, owner.graph, owner.output, enclosing)
            return b"constant"
        self.at = start
        while self.field(end):
            if self.number == 5 and kind == 4:
                inside = enclosing + (self.length_at,)
                stop = self.stop
                self.tensor(self.payload, self.stop)
                self.emit(CONSTANT, owner.graph, owner.output, inside)
                self.at = stop
                found = True
            elif self.number == 22 and kind == 11:
                inside = enclosing + (self.length_at,)
                stop = self.stop
                self.sparse(self.payload, self.stop)
                self.emit_sparse(CONSTANT_SPARSE, owner.graph, owner.output, inside)
                self.at = stop
                found = True
        if not found:
            raise InputError(
                "attribute.empty", f"{self.file}: byte {start}: a Constant node has an attribute without its value"
            )
        return b"constant"

    cdef int floats(self, int64_t start, int64_t end, Sink sink) except -1:
        """Treat ``f`` or ``floats`` of an attribute as a tensor of float32; put its values into ``sink`` if any.

        An absent ``f`` means 0.
        """
        cdef int64_t stop
        cdef bint list_of = False, declared_list = False
        self.begin, self.end, self.at, self.name = start, end, start, None
        self.in_tensor = False
        self.entries = self.unknown = None
        self.external = self.packed = False
        self.count = self.chunks = self.data_start = self.data_stop = 0
        self.runs = 0
        while self.field(end):
            if self.number == 20:
                declared_list = self.wire == 0 and self.value == 6
            if self.number != 2 and self.number != 7:
                continue
            list_of = self.number == 7
            if self.wire != 5 and not (self.wire == 2 and list_of):
                self.expect(5, "a float of an attribute")
            if (self.stop - self.payload) % 4:
                raise self.damaged(f"floats of {self.stop - self.payload} bytes")
            self.run()
            self.chunks += 1
            self.count += (self.stop - self.payload) // 4
            self.packed = self.wire == 2 or not list_of
            self.data_start, self.data_stop = self.payload, self.stop
            if sink is not None:
                stop = self.stop
                self.stream(self.payload, stop, sink)
        list_of = list_of or declared_list
        if sink is not None and not list_of and not self.chunks:
            sink.put_whole(0, 4)
        self.code, self.home = 1, 4
        self.rank = 1 if list_of else 0
        self.dims[0] = self.elements = self.count if list_of else 1
        if list_of and not self.chunks:
            self.packed = False
        return 0

    cdef bytes attribute_value(self, int64_t start, int64_t end, int64_t kind, str name, tuple enclosing, Owner owner):
        """Canonical bytes of a value that must be equal in all models; graphs in it are walked by themselves."""
        cdef Sink sink = self.single
        cdef int64_t stop, count = 0
        cdef uint32_t field = FIELD_OF_TYPE[kind]
        cdef list graphs = []
        sink.clear()
        sink.put_whole(kind)
        if not field:
            raise InputError(
                "attribute.type", f"{self.file}: byte {start}: attribute {shown(repr(name))} has no known type"
            )
        self.at = start
        while self.field(end):
            stop = self.stop
            if self.number == field:
                count += 1
                if kind == 5 or kind == 10:
                    self.expect(2, "graph of an attribute")
                    graphs.append((self.length_at, self.payload, stop))
                    if len(graphs) > GRAPHS_MAX:
                        raise InputError("graph.too_many", f"{self.file}: more than {GRAPHS_MAX} graphs")
                else:
                    self.one_value(kind, stop, sink)
            elif not (self.number <= 23 and (ATTRIBUTE_TYPE[self.number] or self.number in (1, 13, 20, 21))):
                sink.put_whole(1 << 32 | self.number)
                sink.put_bytes(self.whole(self.start, stop))
            self.at = stop
        if not count:
            if kind in (4, 5, 11, 13):
                raise InputError(
                    "attribute.empty", f"{self.file}: byte {start}: attribute {shown(repr(name))} has no value"
                )
            if kind == 1 or kind == 2:      # absent numbers mean 0
                sink.put_whole(0, 4 if kind == 1 else 8)
            elif kind == 3:
                sink.put_whole(0)
        sink.put_whole(len(graphs))
        cdef bytes value = sink.finish()
        if owner.graph is not None:
            self.inner_graphs(graphs, kind, name, enclosing, owner)
        return value

    cdef int one_value(self, int64_t kind, int64_t stop, Sink sink) except -1:
        """Put the current field, a value of an attribute of this type, into ``sink``."""
        cdef int64_t payload = self.payload
        if kind == 1 or kind == 6:
            if self.wire != 5 and not (kind == 6 and self.wire == 2 and (stop - payload) % 4 == 0):
                self.expect(5, "a float of an attribute")
            return self.stream(payload, stop, sink)
        if kind == 2 or kind == 7:
            if self.wire == 0:
                return sink.put_whole(self.value)
            self.expect(2 if kind == 7 else 0, "an integer of an attribute")
            self.at = payload
            while self.at < stop:
                sink.put_whole(self.varint(stop))
            return 0
        self.expect(2, "value of an attribute")
        if kind == 3 or kind == 8:
            sink.put_whole(stop - payload)
            return self.stream(payload, stop, sink)
        if kind == 4 or kind == 9:
            self.tensor(payload, stop)
            return self.tensor_value(sink)
        if kind == 14 and sink.total > TYPE_BYTES_MAX:
            raise InputError(
                "graph.type", f"{self.file}: byte {payload}: types of more than {TYPE_BYTES_MAX} bytes in a node"
            )
        if kind == 11 or kind == 12:
            self.sparse(payload, stop)
            start, end = self.indices_start, self.indices_stop
            sink.put_bytes(repr(list(self.sparse_dims)).encode())
            self.tensor(self.values_start, self.values_stop)
            self.tensor_value(sink)
            self.tensor(start, end)
            return self.tensor_value(sink)
        return sink.put_bytes(self.canonical(payload, stop, TYPE))

    cdef int tensor_value(self, Sink sink) except -1:
        """Put type, dims and values of the tensor that was parsed last."""
        cdef int i
        if self.external:
            raise self.bad(
                "external.attribute",
                "value of a node's attribute lies outside the file; only initialisers and Constant values may"
            )
        sink.put_whole(self.code)
        sink.put_whole(self.rank)
        for i in range(self.rank):
            sink.put_whole(self.dims[i])
        self.values(sink)
        if self.unknown is not None:
            sink.put_bytes(self.unknown.finish())
        return 0

    cdef int inner_graphs(self, list graphs, int64_t kind, str name, tuple enclosing, Owner owner) except -1:
        cdef int64_t length_at, start, stop
        cdef int i = 0
        parent = owner.graph.scope
        for length_at, start, stop in graphs:
            attribute = name if kind == 5 else f"{name}[{i}]"
            scope = f"{owner.label}/{attribute}"
            scope = shortened(f"{parent}/{scope}" if parent else scope)
            self.graph(start, stop, scope, enclosing + (length_at,), owner.depth + 1, parent)
            i += 1
        return 0
