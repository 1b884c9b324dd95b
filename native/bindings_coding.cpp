// Python's door to the coding kernels: checks what must never be wrong, releases the GIL, does no arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "bindings.h"
#include "coding_engine.h"

namespace py = pybind11;
using namespace shoal;

namespace {

using Maybe = std::optional<py::array>;

void check(bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
}

int64_t length_of(const py::array& x) {
    check(x.ndim() == 1, "arrays must be one-dimensional");
    return x.shape(0);
}

template <class T>
const T* readable(const py::array& x, int64_t length, const char* what) {
    check(py::isinstance<py::array_t<T>>(x), what);
    check(length_of(x) == length, what);
    check(length <= 1 || x.strides(0) == x.itemsize(), "arrays must be contiguous");
    return static_cast<const T*>(x.data());
}

template <class T>
T* writable(py::array& x, int64_t length) {
    check(x.writeable(), "out must be writable");
    return const_cast<T*>(readable<T>(x, length, "out"));
}

const float* maybe(const Maybe& x, int64_t length) { return x ? readable<float>(*x, length, "base") : nullptr; }

// An input may be `out` itself only if it is read where it is written.
void check_apart(const py::array& out, const py::array& in, bool same_allowed = false) {
    const auto a = reinterpret_cast<uintptr_t>(out.data()), b = reinterpret_cast<uintptr_t>(in.data());
    check((same_allowed && a == b) || a + uintptr_t(out.nbytes()) <= b || b + uintptr_t(in.nbytes()) <= a,
          "out must not overlap an input");
}

const uint8_t* key_of(const py::bytes& key) {
    const std::string_view bytes = key;
    check(bytes.size() == size_t(KEY_BYTES), "keys have 32 bytes");
    return reinterpret_cast<const uint8_t*>(bytes.data());
}

Masks masks_of(const py::array& keys, const py::array& signs) {
    check(keys.ndim() == 2 && keys.shape(1) == KEY_BYTES && py::isinstance<py::array_t<uint8_t>>(keys), "mask keys");
    check(keys.flags() & py::array::c_style, "arrays must be contiguous");
    return {static_cast<const uint8_t*>(keys.data()), readable<int8_t>(signs, keys.shape(0), "mask signs"),
            keys.shape(0)};
}

bool is_coded(int bits) { return is_ring(bits) && bits != 64; }

Grid grid_of(const py::array& starts, const py::array& logs, int64_t first, int64_t length) {
    const int64_t count = length_of(starts);
    return {readable<int64_t>(starts, count, "starts"), readable<uint8_t>(logs, count, "logs"), count, first, length};
}

py::tuple bind_encode(const py::array& x, const Maybe& base, const py::array& starts, const py::array& logs,
                      int64_t first, const py::bytes& signs_key, const py::bytes& dither_key, int offset, float alpha,
                      const py::array& inverse_steps, int64_t bound, int bits, const py::array& mask_keys,
                      const py::array& mask_signs, py::array out, int threads) {
    const int64_t length = length_of(x);
    const Grid grid = grid_of(starts, logs, first, length);
    const int64_t count = int64_t(grid.blocks.size());
    check(is_coded(bits), "bits");
    check(offset >= 0 && offset < DITHER_VALUES, "offset");
    check(bound >= 1 && bound < int64_t(1) << (bits - 1), "bound");
    check_apart(out, x);
    if (base) check_apart(out, *base);
    py::array_t<double> squares(count);
    py::array_t<int64_t> clipped(count), totals(count);
    const Encoding e{grid,
                     readable<float>(x, length, "x"),
                     maybe(base, length),
                     key_of(signs_key),
                     key_of(dither_key),
                     uint16_t(offset),
                     alpha,
                     readable<float>(inverse_steps, count, "inverse_steps"),
                     bound,
                     bits,
                     masks_of(mask_keys, mask_signs),
                     reinterpret_cast<char*>(writable<uint8_t>(out, wire_bytes(grid.places, bits))),
                     squares.mutable_data(),
                     clipped.mutable_data(),
                     totals.mutable_data(),
                     threads};
    {
        py::gil_scoped_release free;
        encode(e);
    }
    return py::make_tuple(squares, clipped, totals);
}

void bind_decode(const py::array& words, int bits, const py::array& starts, const py::array& logs, int64_t first,
                 const py::bytes& signs_key, const py::bytes& dither_key, const py::array& table,
                 const py::array& scales, const py::array& mask_keys, const py::array& mask_signs, const Maybe& base,
                 py::array out, int threads) {
    const int64_t length = length_of(out);
    const Grid grid = grid_of(starts, logs, first, length);
    check(is_coded(bits), "bits");
    check_apart(out, words);
    if (base) check_apart(out, *base, true);
    const Decoding d{grid,
                     reinterpret_cast<const char*>(readable<uint8_t>(words, wire_bytes(grid.places, bits), "words")),
                     bits,
                     key_of(signs_key),
                     key_of(dither_key),
                     readable<int32_t>(table, DITHER_VALUES, "table"),
                     readable<double>(scales, int64_t(grid.blocks.size()), "scales"),
                     masks_of(mask_keys, mask_signs),
                     maybe(base, length),
                     writable<float>(out, length),
                     threads};
    py::gil_scoped_release free;
    decode(d);
}

int code_bits(const py::array& centroids) {
    const int64_t count = length_of(centroids);
    int bits = 0;
    while (int64_t(1) << bits < count) bits++;
    check(count == int64_t(1) << bits, "centroids");
    return bits;
}

py::array bind_encode_codes(const py::array& x, const Maybe& base, const py::array& starts, const py::array& logs,
                            int64_t first, const py::bytes& signs_key, const py::array& boundaries,
                            const py::array& centroids, py::array out, int threads) {
    const int64_t length = length_of(x);
    const Grid grid = grid_of(starts, logs, first, length);
    const int bits = code_bits(centroids);
    const Codebook book = codebook(bits, readable<float>(boundaries, (int64_t(1) << bits) - 1, "boundaries"),
                                   readable<float>(centroids, int64_t(1) << bits, "centroids"));
    check_apart(out, x);
    if (base) check_apart(out, *base);
    py::array_t<float> scales(int64_t(grid.blocks.size()));
    const float *from = readable<float>(x, length, "x"), *minus = maybe(base, length);
    char* to = reinterpret_cast<char*>(writable<uint8_t>(out, grid.places * bits / 8));
    const Codes codes{grid, key_of(signs_key), book, threads};
    float* found = scales.mutable_data();
    {
        py::gil_scoped_release free;
        encode_codes(codes, from, minus, to, found);
    }
    return scales;
}

void bind_decode_codes(const py::array& codes, const py::array& starts, const py::array& logs, int64_t first,
                       const py::bytes& signs_key, const py::array& centroids, const py::array& scales,
                       const Maybe& base, py::array out, int threads) {
    const int64_t length = length_of(out);
    const Grid grid = grid_of(starts, logs, first, length);
    const int bits = code_bits(centroids);
    const float none[255] = {};
    const Codebook book = codebook(bits, none, readable<float>(centroids, int64_t(1) << bits, "centroids"));
    check_apart(out, codes);
    if (base) check_apart(out, *base, true);
    const Codes how{grid, key_of(signs_key), book, threads};
    const char* from = reinterpret_cast<const char*>(readable<uint8_t>(codes, grid.places * bits / 8, "codes"));
    const float* by = readable<float>(scales, int64_t(grid.blocks.size()), "scales");
    const float* plus = maybe(base, length);
    float* to = writable<float>(out, length);
    py::gil_scoped_release free;
    decode_codes(how, from, by, plus, to);
}

void bind_rotate(const py::array& x, const py::array& starts, const py::array& logs, int64_t first,
                 const py::bytes& signs_key, py::array out, int threads) {
    const int64_t length = length_of(x);
    const Grid grid = grid_of(starts, logs, first, length);
    check_apart(out, x);
    const float* from = readable<float>(x, length, "x");
    float* to = writable<float>(out, grid.places);
    const uint8_t* key = key_of(signs_key);
    py::gil_scoped_release free;
    rotate(grid, from, key, to, threads);
}

Runs runs_of(int64_t length, int64_t size, int threads) {
    check(size >= 1, "size of a run");
    return {length, std::clamp<int64_t>(size, 1, std::max<int64_t>(length, 1)), threads};
}

int64_t count_of(const Runs& runs) { return (runs.length + runs.size - 1) / runs.size; }

void bind_absmax(const py::array& x, int64_t size, py::array out, int threads) {
    const Runs runs = runs_of(length_of(x), size, threads);
    check_apart(out, x);
    const float* from = readable<float>(x, runs.length, "x");
    float* to = writable<float>(out, count_of(runs));
    py::gil_scoped_release free;
    absmax(runs, from, to);
}

void bind_quantise_absmax(const py::array& x, int64_t size, int levels, const py::array& scales, py::array out,
                          int threads) {
    const Runs runs = runs_of(length_of(x), size, threads);
    check(levels >= 1 && levels <= 127, "levels");
    check_apart(out, x);
    check_apart(out, scales);
    const float* from = readable<float>(x, runs.length, "x");
    const float* by = readable<float>(scales, count_of(runs), "scales");
    int8_t* to = writable<int8_t>(out, runs.length);
    py::gil_scoped_release free;
    quantise_absmax(runs, from, levels, by, to);
}

void bind_dequantise(const py::array& q, int64_t size, const py::array& scales, const Maybe& base, py::array out,
                     int threads) {
    const Runs runs = runs_of(length_of(q), size, threads);
    check_apart(out, q);
    check_apart(out, scales);
    if (base) check_apart(out, *base, true);
    const int8_t* from = readable<int8_t>(q, runs.length, "q");
    const float* by = readable<float>(scales, count_of(runs), "scales");
    const float* plus = maybe(base, runs.length);
    float* to = writable<float>(out, runs.length);
    py::gil_scoped_release free;
    dequantise(runs, from, by, plus, to);
}

}  // namespace

void bind_coding(py::module_& m) {
    m.def("encode", bind_encode);
    m.def("decode", bind_decode);
    m.def("encode_codes", bind_encode_codes);
    m.def("decode_codes", bind_decode_codes);
    m.def("rotate", bind_rotate);
    m.def("absmax", bind_absmax);
    m.def("quantise_absmax", bind_quantise_absmax);
    m.def("dequantise", bind_dequantise);
}
