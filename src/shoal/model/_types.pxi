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
    ENTRY = 10
    TRAINING = 11
    GRAPH = 12
    NODE = 13
    ATTRIBUTE = 14
    TENSOR = 15
    SPARSE_TENSOR = 16
    DEVICES = 17
    SHARDING = 18
    SHARDED_DIM = 19
    INT_LIST_ENTRY = 20
    # and what is no message: lists of numbers in one field
    VARINTS = 21
    WORDS = 22
    DOUBLE_WORDS = 23


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


cdef int message_in(int kind, uint32_t number):
    """The kind of message, or list of numbers, that a field inside a message of ``kind`` holds; RAW_BYTES if neither."""
    if kind == VALUE_INFO and number == 4:
        return ENTRY
    if kind < ANNOTATION:
        kind = inner(kind, number)
        return RAW_BYTES if kind == LEFT_OUT else kind
    if kind == ANNOTATION:
        return ENTRY if number == 2 else RAW_BYTES
    if kind == TENSOR:
        return (
            VARINTS if number == 1 or number == 5 or number == 7 or number == 11 else WORDS if number == 4
            else DOUBLE_WORDS if number == 10 else ENTRY if number == 13 or number == 16 else RAW_BYTES
        )
    if kind == TRAINING:
        return GRAPH if number <= 2 else ENTRY if number <= 4 else RAW_BYTES
    if kind == GRAPH:
        return (
            NODE if number == 1 else TENSOR if number == 5 else VALUE_INFO if 11 <= number <= 13
            else ANNOTATION if number == 14 else SPARSE_TENSOR if number == 15 else ENTRY if number == 16 else RAW_BYTES
        )
    if kind == NODE:
        return ATTRIBUTE if number == 5 else ENTRY if number == 9 else DEVICES if number == 10 else RAW_BYTES
    if kind == ATTRIBUTE:
        return (
            TENSOR if number == 5 or number == 10 else GRAPH if number == 6 or number == 11
            else WORDS if number == 7 else VARINTS if number == 8
            else TYPE if number == 14 or number == 15 else SPARSE_TENSOR if number == 22 or number == 23 else RAW_BYTES
        )
    if kind == SPARSE_TENSOR:
        return TENSOR if number <= 2 else VARINTS if number == 3 else RAW_BYTES
    if kind == DEVICES:
        return SHARDING if number == 2 else RAW_BYTES
    if kind == SHARDING:
        return (
            VARINTS if number == 2 else INT_LIST_ENTRY if number == 3 else SHARDED_DIM if number == 4 else RAW_BYTES
        )
    if kind == INT_LIST_ENTRY:
        return VARINTS if number == 2 else RAW_BYTES
    return ENTRY if kind == SHARDED_DIM and number == 2 else RAW_BYTES


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

    cdef int sound(self, int64_t start, int64_t end, int kind, int depth=0) except -1:
        """Walk a message that passes through unread: protobuf would refuse the whole output if it were damaged.

        Moves the reader.
        """
        cdef int64_t stop
        cdef int child
        if depth > NESTING_MAX:
            raise InputError("graph.nesting", f"{self.file}: byte {start}: messages nested deeper than {NESTING_MAX}")
        self.at = start
        if kind == VARINTS:
            while self.at < end:
                self.varint(end)
            return 0
        if kind == WORDS or kind == DOUBLE_WORDS:
            if (end - start) % (4 if kind == WORDS else 8):
                raise self.damaged("a list of numbers ends inside a number")
            return 0
        while self.field(end):
            if self.wire == 2:
                child = message_in(kind, self.number)
                if child != RAW_BYTES:
                    stop = self.stop
                    self.sound(self.payload, stop, child, depth + 1)
                    self.at = stop
        return 0

    cdef bytes whole(self, int64_t start, int64_t stop):
        """Bytes [start, stop), or their digest if they are many."""
        cdef Sink sink = Sink()
        self.stream(start, stop, sink)
        return sink.finish()
