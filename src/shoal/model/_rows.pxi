# Reading the same stretch of many models by one call, without the GIL.


def read_rows(descriptors, offsets, buffers):
    """Fill each buffer from its descriptor; the number of the first that came short or failed, or -1.

    descriptors, offsets  int, int  where each buffer's bytes lie
    buffers               writable, contiguous; filled in order

    One call instead of one for each model: threads then hand the GIL over once per tile, and tiles can be small enough
    to stay in the second-level cache.
    """
    cdef Py_ssize_t count = len(buffers), k
    cdef RowPlace* places = <RowPlace*>malloc(max(count, 1) * sizeof(RowPlace))
    if places == NULL:
        raise MemoryError
    cdef uint8_t[::1] view
    try:
        for k in range(count):
            view = memoryview(buffers[k]).cast("B")
            places[k].descriptor = descriptors[k]
            places[k].offset = offsets[k]
            places[k].size = view.shape[0]
            places[k].data = &view[0] if view.shape[0] else NULL
        with nogil:
            k = fill_rows(places, count)
        return k
    finally:
        free(places)


cdef struct RowPlace:
    int descriptor
    int64_t offset
    int64_t size
    uint8_t* data


cdef Py_ssize_t fill_rows(RowPlace* places, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t k
    cdef int64_t done
    cdef ssize_t got
    for k in range(count):
        done = 0
        while done < places[k].size:
            got = pread(places[k].descriptor, places[k].data + done, places[k].size - done, places[k].offset + done)
            if got < 0 and errno == EINTR:
                continue
            if got <= 0:
                return k
            done += got
    return -1
