# TensorProto: what it declares, whether its values fit, and those values as little-endian bytes.

cdef enum:
    DIMS = 64
    RUNS = 8                # runs of data fields in one tensor; ordinary writers make one or two
    ENTRIES = 8             # external data keys; ONNX knows four

assert DIMS == DIMS_MAX

# bits of one element as raw data, by TensorProto.DataType; 0: strings
cdef int* BITS = [
    0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2, 6, 6
]
# number of the typed field that holds values of each type
cdef int* HOME = [0, 4, 5, 5, 5, 5, 5, 7, 6, 5, 5, 10, 11, 11, 4, 10, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
cdef enum:
    TYPES = 29
    STRING = 8
    # as in Storage
    RAW = 0
    PACKED = 1
    TYPED = 2
    EXTERNAL = 3

cdef dict DATA_FIELDS = {
    4: "float_data", 5: "int32_data", 6: "string_data", 7: "int64_data",
    9: "raw_data", 10: "double_data", 11: "uint64_data",
}


cdef class Values(Reader):
    """Reader of one TensorProto after the other; the last one that ``tensor`` parsed stands in the attributes."""

    cdef int64_t dims[DIMS]
    cdef int rank
    cdef int64_t code                           # element type
    cdef int64_t elements
    cdef int64_t begin, end                     # content of the message
    cdef str name
    cdef bint in_tensor                         # begin and end are those of a TensorProto
    cdef int home                               # number of the data field in use; 0: none
    cdef int64_t count, chunks                  # entries in it, and fields that they came in
    cdef bint packed                            # the last of them was packed
    cdef int64_t data_start, data_stop          # the last of them
    cdef bint external
    cdef list entries                           # external data: (key, value)
    cdef Sink unknown                           # fields that this version of ONNX does not know, or None
    cdef str whose                              # the node that the tensor belongs to, or None
    cdef int runs
    cdef int64_t run_number[RUNS]
    cdef int64_t run_start[RUNS]
    cdef int64_t run_payload[RUNS]
    cdef int64_t run_stop[RUNS]

    cdef object bad(self, str code, str found):
        if self.name is None and self.in_tensor:
            self.seek_name()
        what = f"tensor {shown(repr(self.name))}" if self.name else f"tensor at byte {self.begin}"
        node = f" of node {shown(repr(self.whose))}" if self.whose else ""
        return InputError(code, f"{self.file}: {what}{node}: {found}")

    cdef int seek_name(self) except -1:
        """For a message: a tensor's name stands behind its dims, so an error may come before it."""
        self.in_tensor = False
        self.at = self.begin
        try:
            while self.field(self.end):
                if self.number == 8:
                    self.name = self.text("name of a tensor")
                    break
        except InputError:
            pass    # what was found first is told
        return 0

    cdef int tensor(self, int64_t begin, int64_t end) except -1:
        """Parse and check the TensorProto in bytes [begin, end)."""
        cdef uint64_t seen = 0
        cdef int64_t stop, location = 0
        self.begin, self.end, self.at = begin, end, begin
        self.in_tensor = True
        self.rank = self.home = self.runs = 0
        self.count = self.chunks = self.code = self.data_start = self.data_stop = 0
        self.packed = self.external = False
        self.entries = self.unknown = self.name = None
        while self.field(end):
            stop = self.stop
            if self.number == 1:
                self.dimensions()
            elif self.number == 2:
                self.expect(0, "data_type")
                self.once(&seen, "data_type")
                self.code = <int64_t>self.value
            elif self.number == 3:
                raise self.bad(
                    "tensor.segment", "is stored in segments, which nothing supports; expected a whole tensor"
                )
            elif 4 <= self.number <= 7 or 9 <= self.number <= 11:
                if self.number == 9:
                    self.once(&seen, "raw_data")
                self.data()
            elif self.number == 8:
                self.once(&seen, "name of a tensor")
                self.name = self.text("name of a tensor")
            elif self.number == 13:
                self.expect(2, "external_data")
                self.run()
                self.entry(self.payload, stop)
            elif self.number == 14:
                self.expect(0, "data_location")
                self.once(&seen, "data_location")
                self.run()
                location = <int64_t>self.value
            elif self.number == 12 or self.number == 16:
                self.expect(2, "a field of a tensor")
                if self.number == 16:
                    self.walk(self.payload, stop)
            else:
                self.note_unknown()
            self.at = stop
        if location not in (0, 1):
            raise self.bad("tensor.location", f"data_location is {location}; expected 0 or 1")
        self.external = location == 1
        self.check()
        return 0

    cdef int dimensions(self) except -1:
        cdef int64_t stop = self.stop
        if self.wire == 0:
            return self.dimension(self.value)
        self.expect(2, "dims")
        self.at = self.payload
        while self.at < stop:
            self.dimension(self.varint(stop))
        return 0

    cdef int dimension(self, uint64_t value) except -1:
        if <int64_t>value < 0:
            raise self.bad("tensor.dims", f"dimension {self.rank} is {<int64_t>value}; expected 0 or more")
        if self.rank == DIMS:
            raise self.bad("tensor.dims", f"has more than {DIMS} dimensions")
        self.dims[self.rank] = <int64_t>value
        self.rank += 1
        return 0

    cdef int run(self) except -1:
        """Note the current field as one that holds data; adjacent ones of the same number become one run."""
        cdef int last = self.runs - 1
        if last >= 0 and self.run_number[last] == self.number and self.run_stop[last] == self.start:
            self.run_stop[last] = self.stop
            return 0
        if self.runs == RUNS:
            raise self.bad("tensor.fields", f"its values are scattered over more than {RUNS} places")
        self.run_number[self.runs] = self.number
        self.run_start[self.runs] = self.start
        self.run_payload[self.runs] = self.payload
        self.run_stop[self.runs] = self.stop
        self.runs += 1
        return 0

    cdef int data(self) except -1:
        """Take one field of values; count its entries."""
        cdef int number = self.number
        cdef int width = 4 if number == 4 else 8
        cdef int single = 5 if number == 4 else 1 if number == 10 else 0
        if self.home and self.home != number:
            raise self.bad(
                "tensor.two_values",
                f"has both {DATA_FIELDS[self.home]} and {DATA_FIELDS[number]}; expected one of them"
            )
        self.home = number
        self.run()
        self.chunks += 1
        self.packed = self.wire == 2
        self.data_start, self.data_stop = self.payload, self.stop
        if number == 6 or number == 9:
            self.expect(2, DATA_FIELDS[number])
            self.count += 1
        elif self.wire == single:
            self.count += 1
        elif self.wire != 2:
            self.expect(single, DATA_FIELDS[number])
        elif single == 0:
            self.count += self.varints(self.payload, self.stop)
        elif (self.stop - self.payload) % width:
            raise self.bad(
                "tensor.size", f"{DATA_FIELDS[number]} of {self.stop - self.payload} bytes is no multiple of {width}"
            )
        else:
            self.count += (self.stop - self.payload) // width
        return 0

    cdef int64_t varints(self, int64_t start, int64_t stop) except -1:
        """How many varints fill bytes [start, stop)."""
        cdef int64_t count = 0
        self.at = start
        while self.at < stop:
            self.varint(stop)
            count += 1
        return count

    cdef int entry(self, int64_t start, int64_t stop) except -1:
        """A key and a value of external_data."""
        cdef uint64_t seen = 0
        cdef int64_t end
        key = value = ""
        self.at = start
        while self.field(stop):
            end = self.stop
            if self.number == 1:
                self.once(&seen, "key of external_data")
                key = self.text("key of external_data")
            elif self.number == 2:
                self.once(&seen, "value of external_data")
                value = self.text("value of external_data")
            self.at = end
        if self.entries is None:
            self.entries = []
        if len(self.entries) == ENTRIES:
            raise self.bad("external.keys", f"has more than {ENTRIES} external_data entries")
        self.entries.append((key, value))
        return 0

    cdef int note_unknown(self) except -1:
        """Keep the current field, which this version of ONNX does not know, for comparison."""
        if self.unknown is None:
            self.unknown = Sink()
        return self.stream(self.start, self.stop, self.unknown)

    cdef int check(self) except -1:
        """Type, dims and amount of data agree."""
        cdef int64_t whole = 1, want
        cdef int i
        if not 1 <= self.code < TYPES:
            raise self.bad("tensor.dtype", f"element type {self.code} is unknown; expected 1 to {TYPES - 1}")
        self.elements = 1
        for i in range(self.rank):
            if self.dims[i] == 0:
                self.elements = 0
            elif whole > ELEMENTS_LIMIT // self.dims[i]:
                raise self.bad("tensor.too_large", f"its dims make more than {ELEMENTS_LIMIT} elements")
            else:
                whole *= self.dims[i]
        if self.elements:
            self.elements = whole
        if self.external or self.entries is not None:
            return self.check_external()
        if self.code == STRING and self.home == 9:
            raise self.bad("tensor.raw_strings", "strings stand in raw_data; expected string_data")
        if self.home == 0:
            if self.elements:
                raise self.bad("tensor.size", f"has no values; expected {self.elements} elements")
            return 0
        if self.home == 9:
            want = self.nbytes()
            if self.data_stop - self.data_start != want:
                raise self.bad(
                    "tensor.size",
                    f"raw_data has {self.data_stop - self.data_start} bytes; expected {want} from dims and type"
                )
            return 0
        if self.home != HOME[self.code]:
            raise self.bad(
                "tensor.field", f"values of type {self.code} stand in {DATA_FIELDS[self.home]}; "
                f"expected {DATA_FIELDS[HOME[self.code]]} or raw_data"
            )
        want = self.elements
        if self.code == 14 or self.code == 15:
            want *= 2
        elif BITS[self.code] in (2, 4):
            want = self.nbytes()
        if self.count != want:
            raise self.bad(
                "tensor.size", f"{DATA_FIELDS[self.home]} has {self.count} entries; expected {want} from dims and type"
            )
        return 0

    cdef int check_external(self) except -1:
        if not self.external:
            raise self.bad("external.location", "has external_data, but data_location does not say EXTERNAL")
        if self.home:
            raise self.bad(
                "external.both", f"has both external data and {DATA_FIELDS[self.home]}; expected one of them"
            )
        if self.code == STRING:
            raise self.bad("external.strings", "strings lie outside the file; expected string_data")
        return 0

    cdef int64_t nbytes(self):
        return (self.elements * BITS[self.code] + 7) // 8

    cdef int storage(self):
        """As in Storage."""
        if self.external:
            return EXTERNAL
        if self.home == 9:
            return RAW
        return PACKED if (self.home == 4 or self.home == 10) and self.packed and self.chunks == 1 else TYPED

    cdef int values(self, Sink sink) except -1:
        """Put the values of the last tensor, as raw data would hold them, into ``sink``; strings with their lengths."""
        cdef int64_t stop
        cdef int width = max(BITS[self.code] // 8, 1)
        cdef uint32_t home = self.home
        cdef uint64_t bits = 0
        cdef int held = 0
        if home == 9:
            return self.stream(self.data_start, self.data_stop, sink)
        self.at = self.begin
        while home and self.field(self.end):
            stop = self.stop
            if self.number != home:
                continue
            if home == 6:
                sink.put_whole(stop - self.payload)
                self.stream(self.payload, stop, sink)
            elif home == 4 or home == 10:
                self.stream(self.payload, stop, sink)
            elif self.wire == 0 and BITS[self.code] != 6:
                sink.put_whole(self.value, width)
            else:
                self.at = self.payload
                while self.at < stop:
                    if BITS[self.code] != 6:
                        sink.put_whole(self.varint(stop), width)
                        continue
                    bits |= (self.varint(stop) & 0x3F) << held
                    held += 6
                    if held >= 8:
                        sink.put_whole(bits, 1)
                        bits >>= 8
                        held -= 8
            self.at = stop
        if held:
            sink.put_whole(bits, 1)
        return 0
