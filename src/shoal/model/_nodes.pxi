# Graphs and nodes.

cdef enum:
    SHOWN = 1000            # inputs or outputs of one node that a message is made from; of the others their digest


cdef class Nodes(Attributes):
    """Walk over graphs."""

    cdef str op_type, op_domain, op_overload, node_name, output     # of the node that was scanned last
    cdef list attributes                                            # (length_at, start, stop) of each, or None

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
            elif number == 13 or number == 16:
                self.sound(payload, stop, VALUE_INFO if number == 13 else ENTRY)
            elif number == 11 or number == 12:
                self.sound(payload, stop, VALUE_INFO)
                value = self.canonical(payload, stop, VALUE_INFO)
                self.port(graph.inputs if number == 11 else graph.outputs, self.field_one, value, payload, stop)
            elif number == 14:
                self.sound(payload, stop, ANNOTATION)
                value = self.canonical(payload, stop, ANNOTATION)
                self.note(graph, f"quantization annotation of {shown(repr(self.field_one))}", value)
            elif number == 15:
                self.whose = None
                self.sparse(payload, stop)
                self.emit_sparse(SPARSE, graph, None, enclosing + (length_at,))
            self.at = stop
        return 0

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
            self.uses(start, end, graph.scope, self.scale_inputs[self.op_type], self.scale_uses)
        if plain and self.op_type in self.mean_inputs:
            self.uses(start, end, graph.scope, self.mean_inputs[self.op_type], self.mean_uses)
        if plain and self.op_type in self.variance_inputs:
            self.uses(start, end, graph.scope, self.variance_inputs[self.op_type], self.variance_uses)
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
                    raise InputError(
                        "node.attributes",
                        f"{self.file}: byte {start}: a node has more than {ATTRIBUTES_MAX} attributes"
                    )
                self.attributes.append((self.length_at, self.payload, stop))
            elif self.number == 7:
                self.once(&seen, "domain of a node")
                self.op_domain = self.text("domain of a node")
            elif self.number == 8:
                self.once(&seen, "overload of a node")
                self.op_overload = self.text("overload of a node")
            elif self.number in (6, 9, 10):
                self.expect(2, "a field of a node")
                if self.number != 6:
                    self.sound(self.payload, stop, ENTRY if self.number == 9 else DEVICES)
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

    cdef int uses(self, int64_t start, int64_t end, str scope, object positions, list uses) except -1:
        """Note the names that a node has as its inputs at ``positions``."""
        cdef int position = 0
        self.at = start
        while self.field(end):
            if self.number == 1:
                if position in positions and self.stop > self.payload:
                    uses.append((scope, self.text("input of a node")))
                    if len(uses) > PORTS_MAX:
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
                    "node.duplicate_attribute",
                    f"{self.file}: byte {start}: attribute {shown(repr(name))} stands twice in a node"
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
