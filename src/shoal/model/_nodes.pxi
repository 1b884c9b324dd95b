# Graphs, nodes and attributes: digests of what they compute, and the tensors found on the way.

cdef enum:
    SHOWN = 1000            # inputs or outputs of one node that a message is made from; of the others their digest
    DIGEST = 16             # bytes per node.  Finding two nodes with one digest takes 2**64 tries, and gains nothing:
                            # the graph that is written is the first model's own

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


cdef enum:
    # as in Role; indices of a sparse tensor follow its values
    INITIALIZER = 0
    SPARSE = 1
    CONSTANT = 3
    CONSTANT_SPARSE = 4
    CONSTANT_FLOAT = 6
    CONSTANT_FLOATS = 7

# attributes of a Constant node that are merged, with their types
cdef frozenset CONSTANT_VALUES = frozenset({("value", 4), ("sparse_value", 11), ("value_float", 1), ("value_floats", 6)})


cdef class Owner:
    """The node whose attributes are walked."""

    cdef object graph               # Graph that it stands in; None: only look, note nothing
    cdef str label                  # as part of a scope
    cdef str output                 # its first one
    cdef bint constant              # a Constant node of ONNX
    cdef int depth

    def __cinit__(self, object graph, str label, bint constant, int depth):
        self.graph, self.label, self.constant, self.depth = graph, label, constant, depth


cdef class Nodes(Types):
    """Walk over graphs.  ``tensors``, ``outside``, ``graphs`` and ``scale_uses`` hold what was found."""

    cdef readonly dict tensors      # key -> TensorRef, in the order of the file
    cdef readonly dict outside      # key -> [(key, value) of external_data]
    cdef readonly dict graphs       # scope -> Graph
    cdef readonly list scale_uses   # (scope, name): inputs that are scales of quantised numbers
    cdef readonly object main       # Graph of the model itself
    cdef int64_t node_count, port_count, note_count
    cdef Sink ins, outs, other, one, single
    cdef str op_type, op_domain, op_overload, node_name, output     # of the node that was scanned last
    cdef list attributes                                            # (length_at, start, stop) of each, or None
    cdef int64_t values_at, values_start, values_stop, indices_at, indices_start, indices_stop
    cdef bytes sparse_dims
    cdef object Graph, TensorRef, Field, scale_inputs
    cdef list roles, storages
    cdef dict dtypes

    cdef int prepare(self) except -1:
        # numpy comes with these; who only imports this module shall not wait for it
        from shoal.model import dtype, structure, tensor

        self.Graph, self.scale_inputs = structure.Graph, structure.SCALE_INPUTS
        self.TensorRef, self.Field = tensor.TensorRef, tensor.Field
        self.roles, self.storages, self.dtypes = list(tensor.Role), list(tensor.Storage), dtype.DTYPES
        self.tensors, self.outside, self.graphs, self.scale_uses = {}, {}, {}, []
        self.node_count = self.port_count = self.note_count = 0
        self.ins, self.outs, self.other, self.one, self.single = Sink(), Sink(), Sink(), Sink(), Sink()
        self.main = self.Graph("", "")
        return 0

    # --- graphs ------------------------------------------------------------------------------------------------------

    cdef object enter(self, str scope, str parent, int64_t start):
        if scope in self.graphs:
            raise InputError(
                "graph.duplicate", f"{self.file}: byte {start}: two graphs are called {shown(repr(scope))}; expected "
                "different outputs of the nodes that hold them"
            )
        if len(self.graphs) >= GRAPHS_MAX:
            raise InputError("graph.too_many", f"{self.file}: more than {GRAPHS_MAX} graphs and functions")
        graph = self.Graph(scope, parent) if scope else self.main
        self.graphs[scope] = graph
        return graph

    cdef int graph(self, int64_t start, int64_t end, str scope, tuple enclosing, int depth, str parent="") except -1:
        cdef uint64_t seen = 0
        cdef int64_t stop, payload, length_at
        cdef uint32_t number
        if depth > NESTING_MAX:
            raise InputError("graph.nesting", f"{self.file}: byte {start}: graphs nested deeper than {NESTING_MAX}")
        graph = self.enter(scope, parent, start)
        self.at = start
        while self.field(end):
            number, stop, payload, length_at = self.number, self.stop, self.payload, self.length_at
            if number in (3, 4, 6, 7, 8, 9) or number > 16:
                self.remember(graph, f"unknown field {number}", self.start, stop)
            else:
                self.expect(2, "a field of a graph")
            if number == 1:
                self.node(payload, stop, graph, enclosing + (length_at,), depth)
            elif number == 2:
                self.once(&seen, "name of a graph")
            elif number == 5:
                self.whose = None
                self.tensor(payload, stop)
                if not self.name:
                    raise self.bad("tensor.unnamed", "an initialiser has no name")
                self.emit(INITIALIZER, graph, self.name, enclosing + (length_at,))
            elif number == 11 or number == 12:
                value = self.canonical(payload, stop, VALUE_INFO)
                self.port(graph.inputs if number == 11 else graph.outputs, self.field_one, value, payload, stop)
            elif number == 14:
                value = self.canonical(payload, stop, ANNOTATION)
                self.note(graph, f"quantization annotation of {shown(repr(self.field_one))}", value)
            elif number == 15:
                self.whose = None
                self.sparse(payload, stop)
                self.emit_sparse(SPARSE, graph, None, enclosing + (length_at,))
            self.at = stop
        return 0

    cdef int port(self, list ports, str name, bytes value, int64_t start, int64_t stop) except -1:
        self.port_count += 1
        if self.port_count > PORTS_MAX:
            raise InputError("graph.too_many", f"{self.file}: more than {PORTS_MAX} inputs and outputs of graphs")
        ports.append((name, blake2b(value, digest_size=DIGEST).digest(), start, stop))
        return 0

    cdef int note(self, object graph, str what, bytes value) except -1:
        """Keep the digest of something that must be equal, under a name for people; several of one name are a set."""
        digest = blake2b(value, digest_size=32).digest()
        before = graph.header.get(what)
        self.note_count += 1
        if self.note_count > PORTS_MAX:
            raise InputError("graph.too_many", f"{self.file}: more than {PORTS_MAX} annotations and unknown fields")
        if before is not None:      # a commutative sum: their order does not matter
            total = int.from_bytes(before, "little") + int.from_bytes(digest, "little")
            digest = (total % (1 << 256)).to_bytes(32, "little")
        graph.header[what] = digest
        return 0

    cdef int remember(self, object graph, str what, int64_t start, int64_t stop) except -1:
        return self.note(graph, what, self.whole(start, stop))

    # --- tensors -----------------------------------------------------------------------------------------------------

    cdef int emit(self, int role, object graph, str name, tuple enclosing) except -1:
        """Note the tensor that was parsed last."""
        cdef int i, kind = self.storage()
        cdef bint inside = kind <= PACKED
        dims = tuple([int(self.dims[i]) for i in range(self.rank)])
        self.keep(self.TensorRef(
            graph.scope, name, self.roles[role], self.dtypes[self.code], dims, self.storages[kind], self.path,
            self.data_start if inside else -1, self.data_stop - self.data_start if inside else -1,
            (self.begin, self.end), enclosing, self.places(),
        ))
        if self.unknown is not None:
            self.note(graph, f"unknown fields of tensor {shown(repr(name))}", self.unknown.finish())
        return 0

    cdef int keep(self, object ref) except -1:
        key = ref.key
        if key in self.tensors:
            raise InputError("tensor.duplicate", f"{self.file}: two tensors are called {shown(repr(key))}; expected one")
        if len(self.tensors) >= TENSORS_MAX:
            raise InputError("tensor.too_many", f"{self.file}: more than {TENSORS_MAX} tensors")
        self.tensors[key] = ref
        if self.external:
            self.outside[key] = self.entries or []
        return 0

    cdef tuple places(self):
        """The runs of data fields that were noted last."""
        cdef int i
        return tuple([
            self.Field(int(self.run_number[i]), self.run_start[i], self.run_payload[i], self.run_stop[i])
            for i in range(self.runs)
        ])

    cdef int sparse(self, int64_t start, int64_t end) except -1:
        """Find values, indices and dims of a SparseTensorProto; the dims are left in ``sparse_dims``."""
        cdef uint64_t seen = 0
        cdef int64_t stop
        self.rank = 0
        self.values_at = self.indices_at = 0
        self.name, self.begin = None, start
        self.at = start
        while self.field(end):
            stop = self.stop
            if self.number == 1:
                self.expect(2, "values of a sparse tensor")
                self.once(&seen, "values of a sparse tensor")
                self.values_at, self.values_start, self.values_stop = self.length_at, self.payload, stop
            elif self.number == 2:
                self.expect(2, "indices of a sparse tensor")
                self.once(&seen, "indices of a sparse tensor")
                self.indices_at, self.indices_start, self.indices_stop = self.length_at, self.payload, stop
            elif self.number == 3:
                self.dimensions()
            else:
                raise self.bad("tensor.sparse", f"a sparse tensor has an unknown field {self.number}")
            self.at = stop
        if not self.values_at or not self.indices_at:
            raise self.bad("tensor.sparse", "a sparse tensor lacks its values or its indices")
        cdef int i
        self.sparse_dims = repr([self.dims[i] for i in range(self.rank)]).encode()
        return 0

    cdef int emit_sparse(self, int role, object graph, str name, tuple enclosing) except -1:
        """Note both tensors of the sparse tensor that was found last; without ``name`` it has that of its values."""
        cdef int64_t count, indices_at = self.indices_at, start = self.indices_start, stop = self.indices_stop
        cdef bytes dims = self.sparse_dims
        self.tensor(self.values_start, self.values_stop)
        if name is None:
            name = self.name
        if not name:
            raise self.bad("tensor.unnamed", "a sparse initialiser has no name")
        if self.rank != 1:
            raise self.bad("tensor.sparse", f"values of a sparse tensor have {self.rank} dims; expected 1")
        count = self.dims[0]
        self.emit(role, graph, name, enclosing + (self.values_at,))
        self.tensor(start, stop)
        if self.code != 7 or self.rank not in (1, 2) or self.dims[0] != count:
            raise self.bad("tensor.sparse", f"indices of {shown(repr(name))} do not fit its {count} values; expected int64")
        self.emit(role + 1, graph, name, enclosing + (indices_at,))
        self.note(graph, f"dims of sparse tensor {shown(repr(name))}", dims)
        return 0

    # --- nodes -------------------------------------------------------------------------------------------------------

    cdef int node(self, int64_t start, int64_t end, object graph, tuple enclosing, int depth) except -1:
        """Walk one node; its digest goes to the graph."""
        self.node_count += 1
        if self.node_count > NODES_MAX:
            raise InputError("graph.too_many", f"{self.file}: more than {NODES_MAX} nodes")
        self.scan(start, end)
        cdef bint plain = self.op_domain == ""
        cdef Owner owner
        cdef bytes head = self.head()
        if (plain or self.op_domain == "com.microsoft") and self.op_type in self.scale_inputs:
            self.scales(start, end, graph.scope)
        if self.attributes is not None:
            label = f"{self.op_type}:{self.output}" if self.output else f"{self.op_type}:#{len(graph.spans) // 2}"
            owner = Owner(graph, label, plain and self.op_type == "Constant", depth)
            if owner.constant and not self.output:
                raise InputError("node.no_output", f"{self.file}: byte {start}: a Constant node has no output")
            owner.output = self.output
            head += self.attribute_block(self.attributes, enclosing, owner)
        graph.digests += blake2b(head, digest_size=DIGEST).digest()
        graph.spans.append(start)
        graph.spans.append(end)
        return 0

    cdef int scan(self, int64_t start, int64_t end) except -1:
        """Read everything of a node but what lies in its attributes."""
        cdef uint64_t seen = 0
        cdef int64_t stop
        self.op_type = self.op_domain = self.op_overload = self.output = self.node_name = ""
        self.attributes = None
        self.ins.clear()
        self.outs.clear()
        self.other.clear()
        self.at = start
        while self.field(end):
            stop = self.stop
            if self.number == 1:
                self.text("input of a node")
                self.ins.put_whole(stop - self.payload, 4)
                self.stream(self.payload, stop, self.ins)
            elif self.number == 2:
                text = self.text("output of a node")
                self.output = self.output or text
                self.outs.put_whole(stop - self.payload, 4)
                self.stream(self.payload, stop, self.outs)
            elif self.number == 3:
                self.once(&seen, "name of a node")
                self.node_name = self.text("name of a node")
            elif self.number == 4:
                self.once(&seen, "op_type")
                self.op_type = self.text("op_type")
            elif self.number == 5:
                self.expect(2, "attribute")
                if self.attributes is None:
                    self.attributes = []
                if len(self.attributes) >= ATTRIBUTES_MAX:
                    raise InputError("node.attributes", f"{self.file}: byte {start}: a node has more than {ATTRIBUTES_MAX} attributes")
                self.attributes.append((self.length_at, self.payload, stop))
            elif self.number == 7:
                self.once(&seen, "domain of a node")
                self.op_domain = self.text("domain of a node")
            elif self.number == 8:
                self.once(&seen, "overload of a node")
                self.op_overload = self.text("overload of a node")
            elif self.number in (6, 9, 10):
                self.expect(2, "a field of a node")
            else:
                self.stream(self.start, stop, self.other)
            self.at = stop
        if not self.op_type:
            raise InputError("node.op_type", f"{self.file}: byte {start}: a node has no op_type")
        if self.op_domain == "ai.onnx":
            self.op_domain = ""
        return 0

    cdef bytes head(self):
        """Canonical bytes of the node that was scanned last, without its attributes."""
        self.one.clear()
        self.one.put_bytes(self.op_type.encode())
        self.one.put_bytes(self.op_domain.encode())
        self.one.put_bytes(self.op_overload.encode())
        self.one.put_bytes(self.ins.finish())
        self.one.put_bytes(self.outs.finish())
        self.one.put_bytes(self.other.finish())
        return self.one.finish()

    cdef int scales(self, int64_t start, int64_t end, str scope) except -1:
        positions = self.scale_inputs[self.op_type]
        cdef int position = 0
        self.at = start
        while self.field(end):
            if self.number == 1:
                if position in positions and self.stop > self.payload:
                    self.scale_uses.append((scope, self.text("input of a node")))
                    if len(self.scale_uses) > PORTS_MAX:
                        raise InputError("graph.too_many", f"{self.file}: more than {PORTS_MAX} uses of scales")
                position += 1
        return 0

    cdef bytes attribute_block(self, list spans, tuple enclosing, Owner owner):
        """Canonical bytes of all attributes, sorted by name."""
        cdef dict found = {}
        cdef int64_t length_at, start, stop
        for length_at, start, stop in spans:
            name, value = self.attribute(start, stop, enclosing + (length_at,), owner)
            if name in found:
                raise InputError(
                    "node.duplicate_attribute", f"{self.file}: byte {start}: attribute {shown(repr(name))} stands twice in a node"
                )
            found[name] = value
        self.one.clear()
        for name in sorted(found):
            self.one.put_bytes(name.encode())
            self.one.put_bytes(found[name])
        return self.one.finish()

    cdef object describe(self, int64_t start, int64_t end):
        cdef list ins = [], outs = []
        cdef int64_t first, last
        self.scan(start, end)
        cdef list spans = self.attributes or []
        cdef Owner owner = Owner(None, "", self.op_type == "Constant" and self.op_domain == "", 0)
        what = (self.op_type, self.op_domain, self.op_overload, self.node_name, ins, outs)
        self.at = start
        while self.field(end):
            if self.number == 1 or self.number == 2:
                names = ins if self.number == 1 else outs
                if len(names) < SHOWN:
                    names.append(self.text("input or output of a node"))
        for names, sink in ((ins, self.ins), (outs, self.outs)):
            if len(names) == SHOWN:
                names.append("..." + blake2b((<Sink>sink).finish(), digest_size=8).hexdigest())
        return *what, dict([self.attribute(first, last, (), owner) for _, first, last in spans])

    # --- attributes --------------------------------------------------------------------------------------------------

    cdef tuple attribute(self, int64_t start, int64_t end, tuple enclosing, Owner owner):
        """(name, canonical value) of an attribute; tensors that can be merged are noted and stand only for themselves."""
        cdef uint64_t seen = 0
        cdef int64_t stop, kind, declared = 0, found = 0
        name = reference = ""
        self.begin, self.end, self.name, self.whose = start, end, None, owner.label
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
                        f"{self.file}: byte {start}: an attribute of {shown(repr(owner.label))} has values of two kinds",
                    )
                found = kind
                if kind == 1 or kind == 6:
                    self.run()
            self.at = stop
        if not name:
            raise InputError("attribute.unnamed", f"{self.file}: byte {start}: an attribute has no name")
        if found and declared and found != declared or (reference and found) or not 0 <= declared <= 14:
            raise InputError(
                "attribute.type", f"{self.file}: byte {start}: attribute {shown(repr(name))} is declared as type {declared}, "
                f"its value is of type {found}"
            )
        kind = declared or found
        if not kind and not reference:
            raise InputError("attribute.type", f"{self.file}: byte {start}: attribute {shown(repr(name))} has neither type nor value")
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
            raise InputError("attribute.empty", f"{self.file}: byte {start}: a Constant node has an attribute without its value")
        return b"constant"

    cdef int floats(self, int64_t start, int64_t end, Sink sink) except -1:
        """Treat ``f`` or ``floats`` of an attribute as a tensor of float32; put its values into ``sink`` if there is one.

        An absent ``f`` means 0.
        """
        cdef int64_t stop
        cdef bint list_of = False, declared_list = False
        self.begin, self.end, self.at, self.name = start, end, start, None
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
        """Canonical bytes of a value that must be equal in all models; graphs in it are walked as graphs of their own."""
        cdef Sink sink = self.single
        cdef int64_t stop, count = 0
        cdef uint32_t field = FIELD_OF_TYPE[kind]
        cdef list graphs = []
        sink.clear()
        sink.put_whole(kind)
        if not field:
            raise InputError("attribute.type", f"{self.file}: byte {start}: attribute {shown(repr(name))} has no known type")
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
                raise InputError("attribute.empty", f"{self.file}: byte {start}: attribute {shown(repr(name))} has no value")
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
            raise InputError("graph.type", f"{self.file}: byte {payload}: types of more than {TYPE_BYTES_MAX} bytes in a node")
        if kind == 11 or kind == 12:
            self.sparse(payload, stop)
            start, end = self.indices_start, self.indices_stop
            sink.put_bytes(self.sparse_dims)
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
                "external.attribute", "value of a node's attribute lies outside the file; only initialisers and Constant values may"
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
