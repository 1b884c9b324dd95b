# What the walk finds: tensors that can be merged, and digests of what must be equal.

cdef enum:
    DIGEST = 16             # bytes per node.  Finding two nodes with one digest takes 2**64 tries, and gains nothing:
                            # the graph that is written is the first model's own
    # as in Role; indices of a sparse tensor follow its values
    INITIALIZER = 0
    SPARSE = 1
    CONSTANT = 3
    CONSTANT_SPARSE = 4
    CONSTANT_FLOAT = 6
    CONSTANT_FLOATS = 7


cdef class Found(Types):
    """Reader that notes what it finds."""

    cdef readonly dict tensors      # key -> TensorRef, in the order of the file
    cdef readonly dict outside      # key -> [(key, value) of external_data]
    cdef readonly dict graphs       # scope -> Graph
    cdef readonly list scale_uses   # (scope, name): inputs that are scales of quantised numbers
    cdef readonly list mean_uses, variance_uses     # the same of running means, and of running variances
    cdef readonly dict sparse_shapes    # key of the indices of a sparse tensor -> its dims
    cdef readonly object main       # Graph of the model itself
    cdef int64_t node_count, port_count, note_count
    cdef int64_t values_at, values_start, values_stop, indices_at, indices_start, indices_stop   # of a sparse tensor
    cdef tuple sparse_dims
    cdef object Graph, TensorRef, Field, scale_inputs, mean_inputs, variance_inputs
    cdef list roles, storages
    cdef dict dtypes
    cdef Sink ins, outs, other, one, single

    cdef int prepare(self) except -1:
        # numpy comes with these; who only imports this module shall not wait for it
        from shoal.model import dtype, structure, tensor

        self.Graph, self.scale_inputs = structure.Graph, structure.SCALE_INPUTS
        self.mean_inputs, self.variance_inputs = structure.MEAN_INPUTS, structure.VARIANCE_INPUTS
        self.TensorRef, self.Field = tensor.TensorRef, tensor.Field
        self.roles, self.storages, self.dtypes = list(tensor.Role), list(tensor.Storage), dtype.DTYPES
        self.tensors, self.outside, self.graphs, self.sparse_shapes = {}, {}, {}, {}
        self.scale_uses, self.mean_uses, self.variance_uses = [], [], []
        self.node_count = self.port_count = self.note_count = 0
        self.ins, self.outs, self.other, self.one, self.single = Sink(), Sink(), Sink(), Sink(), Sink()
        self.main = self.Graph("", "")
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
            raise InputError(
                "tensor.duplicate", f"{self.file}: two tensors are called {shown(repr(key))}; expected one"
            )
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
        self.in_tensor = False
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
        self.sparse_dims = tuple([int(self.dims[i]) for i in range(self.rank)])
        return 0

    cdef int emit_sparse(self, int role, object graph, str name, tuple enclosing) except -1:
        """Note both tensors of the sparse tensor that was found last; without ``name`` it has that of its values."""
        cdef int64_t count, indices_at = self.indices_at, start = self.indices_start, stop = self.indices_stop
        cdef tuple dims = self.sparse_dims
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
        if (
            self.code != 7 or self.rank not in (1, 2) or self.dims[0] != count
            or (self.rank == 2 and self.dims[1] != len(dims))
        ):
            raise self.bad(
                "tensor.sparse", f"indices of {shown(repr(name))} do not fit its {count} values; expected int64"
            )
        self.emit(role + 1, graph, name, enclosing + (indices_at,))
        self.sparse_shapes[f"{graph.scope}::{name}::indices" if graph.scope else f"{name}::indices"] = dims
        self.note(graph, f"dims of sparse tensor {shown(repr(name))}", repr(list(dims)).encode())
        return 0
