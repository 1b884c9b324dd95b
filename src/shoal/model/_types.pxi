# Messages that are compared as a whole: types of inputs and outputs, quantisation annotations.

cdef enum:
    # kinds of message, for what lies in which field
    RAW_BYTES = 0
    VALUE_INFO = 1
    TYPE = 2
    TENSOR_TYPE = 3
    SHAPE = 4
    DIMENSION = 5
    SEQUENCE = 6
    MAP = 7
    ANNOTATION = 8
    LEFT_OUT = 9


cdef int inner(int kind, uint32_t number):
    """The kind of a field inside a message of ``kind``; LEFT_OUT if it does not change what a model computes."""
    if kind == VALUE_INFO:
        return TYPE if number == 2 else LEFT_OUT if number in (3, 4) else RAW_BYTES
    if kind == TYPE:
        if number == 1 or number == 8:
            return TENSOR_TYPE
        if number == 4 or number == 9:
            return SEQUENCE
        return MAP if number == 5 else RAW_BYTES
    if kind == TENSOR_TYPE:
        return SHAPE if number == 2 else RAW_BYTES
    if kind == SHAPE:
        return DIMENSION if number == 1 else RAW_BYTES
    if kind == SEQUENCE:
        return TYPE if number == 1 else RAW_BYTES
    if kind == MAP:
        return TYPE if number == 2 else RAW_BYTES
    return RAW_BYTES


cdef class Types(Values):
    """Reader of small messages into canonical bytes: fields sorted by number, repeated ones in their order."""

    cdef str field_one                          # first field 1 of the outermost message: its name

    cdef bytes canonical(self, int64_t start, int64_t end, int kind, int depth=0):
        cdef int64_t stop
        cdef int child
        cdef uint32_t number
        cdef list parts = []
        if depth == 0:
            self.field_one = ""
            if end - start > TYPE_BYTES_MAX:
                raise InputError(
                    "graph.type",
                    f"{self.file}: byte {start}: a type of {end - start} bytes; expected at most {TYPE_BYTES_MAX}"
                )
        if depth > NESTING_MAX:
            raise InputError("graph.nesting", f"{self.file}: byte {start}: types nested deeper than {NESTING_MAX}")
        self.at = start
        while self.field(end):
            stop, number = self.stop, self.number
            child = inner(kind, number)
            if child == LEFT_OUT:
                continue
            if depth == 0 and number == 1 and not self.field_one:
                self.field_one = self.text("name of a value")
            if self.wire == 0:
                value = b"v" + int(self.value).to_bytes(8, "little")
            elif child == RAW_BYTES or self.wire != 2:
                value = b"b" + self.whole(self.payload, stop)
            else:
                value = b"m" + self.canonical(self.payload, stop, child, depth + 1)
            parts.append((number, len(parts), value))
            self.at = stop
        parts.sort()
        return b"".join([
            int(number).to_bytes(4, "little") + len(value).to_bytes(8, "little") + value for number, _, value in parts
        ])

    cdef bytes whole(self, int64_t start, int64_t stop):
        """Bytes [start, stop), or their digest if they are many."""
        cdef Sink sink = Sink()
        self.stream(start, stop, sink)
        return sink.finish()
