# The wire format of protocol buffers: a window over the file, varints, fields, and a sink for canonical bytes.
#
# The file is read with pread through a small window and not mapped: a mapped file that somebody shortens kills the
# process with SIGBUS, a short read is an error that can be told (docs/adr/0004).

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* buffer, size_t count, int64_t offset)

cdef enum:
    WINDOW = 262144         # bytes; must hold the longest name
    JUMP = 4096             # bytes read first behind a gap: most gaps are tensors, with a short header behind them
    INLINE = 65536          # bytes of canonical form that are kept as they are; longer ones become their digest

assert NAME_BYTES_MAX <= WINDOW


cdef class Sink:
    """Collects canonical bytes; what exceeds ``limit`` is hashed, so that memory stays bounded."""

    cdef uint8_t* data
    cdef size_t used, room, limit
    cdef uint64_t total
    cdef object hasher

    def __cinit__(self, size_t limit=INLINE):
        self.limit = limit
        self.room = 0
        self.data = NULL
        self.clear()

    def __dealloc__(self):
        free(self.data)

    cdef void clear(self):
        self.used = 0
        self.total = 0
        self.hasher = None

    cdef int put(self, const uint8_t* source, size_t count) except -1:
        cdef size_t part
        self.total += count
        while count > 0:
            if self.used == self.limit:
                self.flush()
            part = min(count, self.limit - self.used)
            if self.used + part > self.room:
                self.grow(self.used + part)
            memcpy(self.data + self.used, source, part)
            self.used += part
            source += part
            count -= part
        return 0

    cdef int grow(self, size_t need) except -1:
        cdef size_t room = min(self.limit, max(need, max(2 * self.room, <size_t>256)))
        cdef uint8_t* data = <uint8_t*>realloc(self.data, room)
        if data == NULL:
            raise MemoryError
        self.data = data
        self.room = room
        return 0

    cdef int flush(self) except -1:
        if self.hasher is None:
            self.hasher = blake2b(digest_size=32)
        self.hasher.update(self.data[:self.used])
        self.used = 0
        return 0

    cdef int put_whole(self, uint64_t value, int width=8) except -1:
        """The lowest ``width`` bytes of ``value``, little-endian."""
        cdef uint8_t raw[8]
        cdef int i
        for i in range(width):
            raw[i] = (value >> (8 * i)) & 0xFF
        return self.put(raw, width)

    cdef int put_bytes(self, bytes value) except -1:
        self.put_whole(len(value))
        return self.put(value, len(value))

    cdef bytes content(self):
        """What was put, if it did not exceed the limit."""
        return self.data[:self.used] if self.used else b""

    cdef bytes finish(self):
        """A short form that is the same for two sinks only if their contents are."""
        if self.total <= self.limit:
            return b"\0" + self.content()
        self.flush()
        return b"\1" + self.hasher.digest() + int(self.total).to_bytes(8, "little")


cdef class Reader:
    """Fields of a message in a file.  ``field`` steps to the next; number, wire, value, payload, stop describe it."""

    cdef readonly str path
    cdef readonly str file                      # the same, as shown in messages
    cdef int fd
    cdef bytes held                             # the whole file, when it comes as bytes
    cdef uint8_t* window
    cdef int64_t size, low, high, ahead         # the window holds bytes [low, high) of the file
    cdef int64_t at, start, length_at, payload, stop
    cdef uint32_t number
    cdef int wire
    cdef uint64_t value

    def __cinit__(self, str file, int fd, int64_t size, bytes held=None):
        self.path, self.file = file, shown(file)
        self.fd = fd
        self.size = size
        self.held = held
        self.low = self.high = self.at = 0
        self.ahead = JUMP
        if held is not None:
            self.window = <uint8_t*>held
            self.size = self.high = len(held)
        else:
            self.window = <uint8_t*>malloc(WINDOW)
            if self.window == NULL:
                raise MemoryError

    def __dealloc__(self):
        if self.held is None:
            free(self.window)

    cdef object damaged(self, str found):
        return InputError("file.damaged", f"{self.file}: byte {self.at}: {found}; expected an undamaged ONNX model")

    cdef const uint8_t* bytes_at(self, int64_t at, int64_t count) except NULL:
        """``count`` bytes (at most WINDOW) of the file; valid until the next call."""
        if at < self.low or at + count > self.high:
            self.fill(at, count)
        return self.window + (at - self.low)

    cdef int fill(self, int64_t at, int64_t count) except -1:
        cdef int64_t want, done = 0
        cdef ssize_t got
        if self.held is not None or at < 0 or at + count > self.size or count > WINDOW:
            raise self.damaged(f"{count} bytes at {at} lie outside the file of {self.size} bytes")
        self.ahead = min(4 * self.ahead, <int64_t>WINDOW) if self.low <= at <= self.high else JUMP
        want = min(max(count, self.ahead), self.size - at)
        self.low = self.high = 0
        while done < want:
            with nogil:
                got = pread(self.fd, self.window + done, want - done, at + done)
            if got < 0 and errno == EINTR:
                continue
            if got < 0:
                raise MachineError("file.read", f"cannot read {self.file}: {strerror(errno)}")
            if got == 0:
                break
            done += got
        if done < count:
            raise InputError("file.changed", f"{self.file}: became shorter than {self.size} bytes while it was read")
        self.low = at
        self.high = at + done
        return 0

    cdef uint64_t varint(self, int64_t end) except? 0xFFFFFFFFFFFFFFFF:
        cdef int64_t room = min(end - self.at, <int64_t>10)
        cdef const uint8_t* raw
        cdef uint64_t value = 0
        cdef int i
        if room <= 0:
            raise self.damaged("the message ends inside a field")
        raw = self.bytes_at(self.at, room)
        for i in range(<int>room):
            if i == 9 and raw[i] > 1:
                raise self.damaged("a varint has more than 64 bits")
            value |= (<uint64_t>(raw[i] & 0x7F)) << (7 * i)
            if raw[i] < 0x80:
                self.at += i + 1
                return value
        raise self.damaged("a varint does not end")

    cdef bint field(self, int64_t end) except -1:
        """Step to the next field of a message that ends at ``end``; False at its end."""
        cdef uint64_t tag, length
        if self.at == end:
            return False
        self.start = self.at
        tag = self.varint(end)
        if tag > 0xFFFFFFFF or tag < 8:
            raise self.damaged("a field has no valid number")
        self.number = <uint32_t>(tag >> 3)
        self.wire = tag & 7
        if self.wire == 0:
            self.payload = self.at
            self.value = self.varint(end)
            self.stop = self.at
            return True
        if self.wire == 2:
            self.length_at = self.at
            length = self.varint(end)
        elif self.wire == 5:
            length = 4
        elif self.wire == 1:
            length = 8
        else:
            raise self.damaged(f"a field of wire type {self.wire}")
        if length > <uint64_t>(end - self.at):
            raise self.damaged(f"a field of {length} bytes where its message has only {end - self.at} left")
        self.payload = self.at
        self.stop = self.at = self.at + <int64_t>length
        return True

    cdef int walk(self, int64_t start, int64_t end) except -1:
        """Step over the fields of a message, to see that it has them.  Moves the reader."""
        self.at = start
        while self.field(end):
            pass
        return 0

    cdef int expect(self, int wire, str what) except -1:
        if self.wire != wire:
            raise self.damaged(f"{what} has wire type {self.wire}; expected {wire}")
        return 0

    cdef int once(self, uint64_t* seen, str what) except -1:
        """Refuse the second of a field that can stand once; protobuf would merge the two without a word."""
        cdef uint64_t bit = (<uint64_t>1) << (self.number & 63)
        if seen[0] & bit:
            raise InputError(
                "file.repeated_field", f"{self.file}: byte {self.start}: {what} stands twice; expected once "
                "(two models joined into one file?)"
            )
        seen[0] |= bit
        return 0

    cdef str text(self, str what):
        """The current field as a name."""
        cdef int64_t length = self.stop - self.payload
        cdef const uint8_t* raw
        self.expect(2, what)
        if length == 0:
            return ""
        if length > NAME_LENGTH_MAX:
            raise InputError(
                "name.too_long",
                f"{self.file}: byte {self.start}: {what} of {length} bytes; expected at most {NAME_LENGTH_MAX}",
            )
        raw = self.bytes_at(self.payload, length)
        if memchr(raw, 0, length) != NULL:
            raise InputError("name.nul", f"{self.file}: byte {self.start}: {what} contains a NUL byte")
        try:
            return PyUnicode_DecodeUTF8(<const char*>raw, length, NULL)
        except UnicodeDecodeError:
            raise InputError("name.utf8", f"{self.file}: byte {self.start}: {what} is not valid UTF-8") from None

    cdef int stream(self, int64_t start, int64_t stop, Sink sink) except -1:
        """Put bytes [start, stop) of the file into ``sink``."""
        cdef int64_t part
        while start < stop:
            part = min(stop - start, <int64_t>WINDOW)
            sink.put(self.bytes_at(start, part), part)
            start += part
        return 0
