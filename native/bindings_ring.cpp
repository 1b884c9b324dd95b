// Python's door to the ring kernels and to secret sharing: checks what must never be wrong, releases the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <vector>

#include "bindings.h"
#include "ring_engine.h"
#include "shamir.h"

namespace py = pybind11;
using namespace shoal;

namespace {

using Bytes = py::array_t<uint8_t, py::array::c_style>;
using Signs = py::array_t<int8_t, py::array::c_style>;

void check(bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
}

const uint8_t* key_of(const Bytes& key) {
    check(key.ndim() == 1 && key.size() == KEY_BYTES, "key");
    return key.data();
}

int64_t count_of(const Bytes& data, int bits) {
    check(data.ndim() == 1 && is_ring(bits), "ring words");
    const int64_t count = data.size() * 8 / bits;
    check(wire_bytes(count, bits) == data.size() && (bits != 12 || count % 2 == 0), "length of ring words");
    return count;
}

// As it is: pybind11 would make a Bytes out of another array by copying it.
char* writable(py::array& out, int64_t bytes) {
    check(py::isinstance<Bytes>(out) && out.ndim() == 1 && out.writeable() && out.size() == bytes, "out");
    return static_cast<char*>(out.mutable_data());
}

const char* chars(const Bytes& x) { return reinterpret_cast<const char*>(x.data()); }

void check_apart(const char* a, const char* b, int64_t bytes) {
    const auto x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
    check(x == y || x + uintptr_t(bytes) <= y || y + uintptr_t(bytes) <= x, "out must not overlap an input in part");
}

void bind_keystream(const Bytes& key, uint64_t lane, uint64_t first, py::array out, int threads) {
    const uint8_t* k = key_of(key);
    char* to = writable(out, out.size());
    const int64_t count = out.size();
    py::gil_scoped_release free;
    ring_keystream(k, lane, first, to, count, threads);
}

void bind_add_streams(const Bytes& data, int bits, const Bytes& keys, const Signs& signs, uint64_t lane, uint64_t first,
                      py::array out, int threads) {
    const int64_t count = count_of(data, bits);
    check(keys.ndim() == 2 && keys.shape(1) == KEY_BYTES && signs.ndim() == 1 && signs.size() == keys.shape(0), "keys");
    const Masks masks{keys.data(), signs.data(), keys.shape(0)};
    char* to = writable(out, data.size());
    check_apart(to, chars(data), data.size());
    py::gil_scoped_release free;
    ring_add_streams(chars(data), bits, masks, lane, first, count, to, threads);
}

void bind_sum_words(const std::vector<Bytes>& inputs, int bits, py::array out, int threads) {
    check(!inputs.empty() && int64_t(inputs.size()) <= RING_INPUTS_MAX, "number of inputs");
    const int64_t count = count_of(inputs[0], bits);
    char* to = writable(out, inputs[0].size());
    std::vector<const char*> from;
    for (const Bytes& x : inputs) {
        check(x.ndim() == 1 && x.size() == inputs[0].size(), "inputs must be of one length");
        check_apart(to, chars(x), x.size());
        from.push_back(chars(x));
    }
    py::gil_scoped_release free;
    ring_sum_words(from.data(), int64_t(from.size()), bits, count, to, threads);
}

py::array_t<uint64_t> bind_check_sums(const Bytes& data, int bits, const Bytes& key, uint64_t lane, uint64_t first,
                                      int threads) {
    const int64_t count = count_of(data, bits);
    const uint8_t* k = key_of(key);
    py::array_t<uint64_t> sums(CHECKS);
    uint64_t* to = sums.mutable_data();
    {
        py::gil_scoped_release free;
        ring_check_sums(chars(data), bits, k, lane, first, count, to, threads);
    }
    return sums;
}

Bytes bind_split(const Bytes& secret, const Bytes& coefficients, const Bytes& abscissas) {
    check(secret.ndim() == 1 && coefficients.ndim() == 2 && abscissas.ndim() == 1, "dimensions");
    check(coefficients.shape(1) == secret.size(), "coefficients");
    Bytes shares(std::vector<py::ssize_t>{abscissas.size(), secret.size()});
    shamir_split(secret.data(), secret.size(), coefficients.data(), coefficients.shape(0), abscissas.data(),
                 abscissas.size(), shares.mutable_data());
    return shares;
}

Bytes bind_combine(const Bytes& shares, const Bytes& abscissas) {
    check(shares.ndim() == 2 && abscissas.ndim() == 1 && shares.shape(0) == abscissas.size(), "shares");
    Bytes secret(shares.shape(1));
    shamir_combine(shares.data(), shares.shape(0), shares.shape(1), abscissas.data(), secret.mutable_data());
    return secret;
}

}  // namespace

void bind_ring(py::module_& m) {
    m.def("ring_keystream", bind_keystream);
    m.def("ring_add_streams", bind_add_streams);
    m.def("ring_sum_words", bind_sum_words);
    m.def("ring_check_sums", bind_check_sums);
    m.def("shamir_split", bind_split);
    m.def("shamir_combine", bind_combine);
}
