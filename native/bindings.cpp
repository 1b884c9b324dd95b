// Python's door: checks what must never be wrong, releases the GIL, does no arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "bindings.h"
#include "engine.h"
#include "pool.h"

namespace py = pybind11;
using namespace shoal;

namespace {

using Doubles = py::array_t<double, py::array::c_style>;

void check(bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
}

DType dtype_of(int code) {
    check(code >= 0 && code < DTYPES, "dtype code");
    return DType(code);
}

int64_t size_of(DType dtype) { return dtype == F64 ? 8 : dtype == F32 ? 4 : 2; }

const char* readable(const py::array& x, DType dtype, int64_t length) {
    check(x.ndim() == 1 && x.itemsize() == size_of(dtype), "arrays must be one-dimensional and of the dtype named");
    check(x.shape(0) == length, "arrays must be of one length");
    check(length <= 1 || x.strides(0) == x.itemsize(), "arrays must be contiguous");
    return static_cast<const char*>(x.data());
}

char* writable(py::array& x, DType dtype, int64_t length) {
    check(x.writeable(), "out must be writable");
    return const_cast<char*>(readable(x, dtype, length));
}

bool apart(const char* out, int64_t out_bytes, const char* in, int64_t in_bytes) {
    const auto a = reinterpret_cast<uintptr_t>(out), b = reinterpret_cast<uintptr_t>(in);
    return a + uintptr_t(out_bytes) <= b || b + uintptr_t(in_bytes) <= a;
}

// out may be an input, but must not overlap one in any other way.
void check_overlap(const char* out, int64_t out_bytes, const char* in, int64_t in_bytes, bool same_allowed) {
    check((same_allowed && out == in) || apart(out, out_bytes, in, in_bytes), "out must not overlap an input");
}

int64_t first_overlap(const py::array& out, const std::vector<py::array>& inputs) {
    const char* to = static_cast<const char*>(out.data());
    for (size_t i = 0; i < inputs.size(); i++) {
        const char* from = static_cast<const char*>(inputs[i].data());
        const bool same = to == from && out.itemsize() == inputs[i].itemsize() && out.dtype().equal(inputs[i].dtype());
        if (!same && !apart(to, out.nbytes(), from, inputs[i].nbytes())) return int64_t(i);
    }
    return -1;
}

const double* doubles(const Doubles& x, int64_t count) {
    check(x.ndim() == 1 && x.shape(0) == count, "weights must be as many as inputs");
    return x.data();
}

// Checked arrays of one call; keeps the pointers.
struct Inputs {
    std::vector<const char*> pointers;
    Arrays arrays;

    Inputs(const std::vector<py::array>& inputs, int code, int threads) : arrays{} {
        check(!inputs.empty() && inputs.size() <= size_t(MODELS_MAX), "number of inputs");
        check(inputs[0].ndim() == 1, "arrays must be one-dimensional");
        arrays.count = int64_t(inputs.size());
        arrays.length = inputs[0].shape(0);
        arrays.dtype = dtype_of(code);
        arrays.threads = threads;
        for (const py::array& x : inputs) pointers.push_back(readable(x, arrays.dtype, arrays.length));
        arrays.inputs = pointers.data();
    }

    Inputs(const std::vector<py::array>& inputs, int code, py::array& out, int threads)
        : Inputs(inputs, code, threads) {
        arrays.out = writable(out, arrays.dtype, arrays.length);
        for (const char* in : pointers) check_apart(in);
    }

    Inputs(const Inputs&) = delete;

    const char* another(const std::optional<py::array>& x) const {
        if (!x) return nullptr;
        const char* data = readable(*x, arrays.dtype, arrays.length);
        if (arrays.out) check_apart(data);
        return data;
    }

    void check_apart(const char* in) const {
        const int64_t bytes = arrays.length * size_of(arrays.dtype);
        check_overlap(arrays.out, bytes, in, bytes, true);
    }
};

using List = std::vector<py::array>;
using Weights = std::optional<Doubles>;

const double* maybe(const Weights& w, const Inputs& in) { return w ? doubles(*w, in.arrays.count) : nullptr; }

bool bind_weighted_mean(const List& inputs, int code, const Doubles& weights, py::array out, int threads) {
    const Inputs in(inputs, code, out, threads);
    const double* w = doubles(weights, in.arrays.count);
    py::gil_scoped_release free;
    return weighted_mean(in.arrays, w);
}

bool bind_combine(const std::optional<py::array>& base, const List& inputs, int code, const Doubles& coefficients,
                  py::array out, int threads) {
    const Inputs in(inputs, code, out, threads);
    const char* from = in.another(base);
    const double* c = doubles(coefficients, in.arrays.count);
    py::gil_scoped_release free;
    return combine(in.arrays, from, c);
}

bool bind_median(const List& inputs, int code, const Weights& weights, py::array out, int threads) {
    const Inputs in(inputs, code, out, threads);
    const double* w = maybe(weights, in);
    py::gil_scoped_release free;
    return median(in.arrays, w);
}

bool bind_trimmed_mean(const List& inputs, int code, const Weights& weights, int64_t trim, py::array out, int threads) {
    const Inputs in(inputs, code, out, threads);
    const double* w = maybe(weights, in);
    check(trim >= 0 && 2 * trim < in.arrays.count, "trim");
    py::gil_scoped_release free;
    return trimmed_mean(in.arrays, w, trim);
}

bool bind_mean_around_median(const List& inputs, int code, int64_t keep, py::array out, int threads) {
    const Inputs in(inputs, code, out, threads);
    check(keep >= 1 && keep <= in.arrays.count, "keep");
    py::gil_scoped_release free;
    return mean_around_median(in.arrays, keep);
}

Doubles bind_gram(const List& inputs, int code, const std::optional<py::array>& base, int threads) {
    const Inputs in(inputs, code, threads);
    const char* from = in.another(base);
    const int64_t blocks = (in.arrays.length + GRAM_BLOCK - 1) / GRAM_BLOCK;
    Doubles found(std::vector<py::ssize_t>{blocks, in.arrays.count, in.arrays.count});
    double* to = found.mutable_data();
    {
        py::gil_scoped_release free;
        gram(in.arrays, from, to);
    }
    return found;
}

py::tuple bind_stats(const py::array& x, int code, int threads) {
    const Inputs in({x}, code, threads);
    Statistics found;
    {
        py::gil_scoped_release free;
        found = stats(in.arrays);
    }
    return py::make_tuple(found.largest, found.squares, found.bad, found.first);
}

void bind_convert(const py::array& x, int code, py::array out, int out_code, int threads) {
    Inputs in({x}, code, threads);
    const DType to = dtype_of(out_code);
    in.arrays.out = writable(out, to, in.arrays.length);
    check_overlap(in.arrays.out, in.arrays.length * size_of(to), in.pointers[0],
                  in.arrays.length * size_of(in.arrays.dtype), to == in.arrays.dtype);
    py::gil_scoped_release free;
    convert(in.arrays, to);
}

bool bind_scaled_add(const py::array& y, double scale, const py::array& x, int code, py::array out, int threads) {
    const Inputs in({x}, code, out, threads);
    const char* other = in.another(y);
    py::gil_scoped_release free;
    return scaled_add(other, scale, in.arrays);
}

void bind_copy(const py::array& x, py::array out, int threads) {
    check(x.ndim() == 1 && out.ndim() == 1 && x.nbytes() == out.nbytes(), "copy: arrays of one size");
    check(x.shape(0) <= 1 || x.strides(0) == x.itemsize(), "arrays must be contiguous");
    check(out.shape(0) <= 1 || out.strides(0) == out.itemsize(), "arrays must be contiguous");
    check(out.writeable(), "out must be writable");
    const char* const from[] = {static_cast<const char*>(x.data())};
    char* to = static_cast<char*>(out.mutable_data());
    check_overlap(to, out.nbytes(), from[0], x.nbytes(), false);
    const Arrays bytes{from, 1, x.nbytes(), F64, to, threads};
    py::gil_scoped_release free;
    copy(bytes);
}

py::tuple bind_run_rule(uintptr_t address, const List& inputs, int code, const Doubles& weights, py::array out,
                        int threads) {
    check(address != 0, "rule");
    const Inputs in(inputs, code, out, threads);
    const double* w = doubles(weights, in.arrays.count);
    bool finite = true;
    int32_t answer;
    {
        py::gil_scoped_release free;
        answer = run_rule(in.arrays, w, reinterpret_cast<Rule>(address), finite);
    }
    return py::make_tuple(answer, finite);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.def("weighted_mean", bind_weighted_mean);
    m.def("combine", bind_combine);
    m.def("median", bind_median);
    m.def("trimmed_mean", bind_trimmed_mean);
    m.def("mean_around_median", bind_mean_around_median);
    m.def("gram", bind_gram);
    m.def("stats", bind_stats);
    m.def("convert", bind_convert);
    m.def("scaled_add", bind_scaled_add);
    m.def("copy", bind_copy);
    m.def("run_rule", bind_run_rule);
    bind_ring(m);
    bind_coding(m);
    m.def("first_overlap", first_overlap);
    m.def("thread_count", default_threads);
    m.def("level", [] { return level().name; });
    m.def("use_level", [](const std::string& name) { use_level(name.c_str()); });
    m.def("levels", [] {
        std::vector<std::string> names;
        for (const KernelTable* table : levels()) names.emplace_back(table->name);
        return names;
    });
}
