// Python's door to the calls, the same for the device and for its host twin: addresses come in as numbers, checked by
// src/shoal/kernels/cuda.py; here only what must never be wrong is checked once more.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <vector>

#include "cuda/calls.h"
#include "cuda/limits.h"

namespace shoal::cuda {

namespace py = pybind11;

inline void demand(bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
}

inline DType dtype_of(int code) {
    demand(code >= 0 && code < DTYPES, "dtype code");
    return DType(code);
}

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

inline Queue queue_of(int device, uintptr_t stream) { return {device, at<void>(stream)}; }

using Addresses = std::vector<uintptr_t>;
using Doubles = py::array_t<double, py::array::c_style>;
using HostBytes = py::array_t<uint8_t, py::array::c_style>;
using HostSigns = py::array_t<int8_t, py::array::c_style>;

struct BoundSum {
    std::vector<const char*> pointers;
    SumCall call{};

    BoundSum(const Addresses& inputs, const std::optional<Doubles>& weights, int64_t length, int code, uintptr_t out,
             uintptr_t flag, int most) {
        demand(!inputs.empty() && inputs.size() <= size_t(most), "number of inputs");
        demand(!weights || (weights->ndim() == 1 && size_t(weights->size()) == inputs.size()), "weights");
        demand(length >= 0, "length");
        for (const uintptr_t x : inputs) pointers.push_back(at<const char>(x));
        call = {pointers.data(),    weights ? weights->data() : nullptr,
                int(inputs.size()), length,
                dtype_of(code),     at<char>(out),
                at<uint32_t>(flag)};
    }
    BoundSum(const BoundSum&) = delete;
};

inline void bind_sums(py::module_& m) {
    m.def("weighted_mean", [](const Addresses& inputs, const Doubles& weights, int64_t length, int dtype, uintptr_t out,
                              uintptr_t flag, int device, uintptr_t stream) {
        const BoundSum bound(inputs, weights, length, dtype, out, flag, INPUTS_MAX);
        py::gil_scoped_release free;
        weighted_mean(bound.call, queue_of(device, stream));
    });
    m.def("combine", [](uintptr_t base, const Addresses& inputs, const Doubles& weights, int64_t length, int dtype,
                        uintptr_t out, uintptr_t flag, int device, uintptr_t stream) {
        const BoundSum bound(inputs, weights, length, dtype, out, flag, INPUTS_MAX);
        py::gil_scoped_release free;
        combine(bound.call, at<const char>(base), queue_of(device, stream));
    });
    m.def("scaled_add", [](uintptr_t y, uintptr_t x, const Doubles& scale, int64_t length, int dtype, uintptr_t out,
                           uintptr_t flag, int device, uintptr_t stream) {
        const BoundSum bound({x}, scale, length, dtype, out, flag, 1);
        py::gil_scoped_release free;
        scaled_add(bound.call, at<const char>(y), queue_of(device, stream));
    });
    m.def("order", [](const Addresses& inputs, const std::optional<Doubles>& weights, int trim, int64_t length,
                      int dtype, uintptr_t out, uintptr_t flag, int device, uintptr_t stream) {
        const BoundSum bound(inputs, weights, length, dtype, out, flag, ORDER_MAX);
        demand(trim < 0 || 2 * size_t(trim) < inputs.size(), "trim");
        py::gil_scoped_release free;
        order(bound.call, trim, queue_of(device, stream));
    });
    m.def("convert",
          [](uintptr_t from, int from_type, uintptr_t out, int to_type, int64_t length, int device, uintptr_t stream) {
              demand(length >= 0, "length");
              const DType a = dtype_of(from_type), b = dtype_of(to_type);
              py::gil_scoped_release free;
              convert(at<const char>(from), a, at<char>(out), b, length, queue_of(device, stream));
          });
}

inline void demand_ring(int bits, int64_t bytes) {
    demand(bits == 8 || bits == 12 || bits == 16 || bits == 32 || bits == 64, "ring width");
    demand(bytes >= 0 && bytes % (bits == 12 ? 3 : bits / 8) == 0, "length of ring words");
}

// Keys are copied before the GIL is given up.
struct BoundMasks {
    std::vector<uint8_t> keys;
    std::vector<int8_t> signs;
    MaskCall call{};

    BoundMasks(const HostBytes& given, const HostSigns& given_signs, uint64_t lane, uint64_t first) {
        demand(given.ndim() == 2 && given.shape(1) == 32 && given_signs.ndim() == 1, "keys");
        demand(given_signs.size() == given.shape(0), "signs");
        keys.assign(given.data(), given.data() + given.size());
        signs.assign(given_signs.data(), given_signs.data() + given_signs.size());
        call = {keys.data(), signs.data(), int64_t(signs.size()), lane, first};
    }
    BoundMasks(const BoundMasks&) = delete;
    ~BoundMasks() {
        volatile uint8_t* p = keys.data();
        for (size_t i = 0; i < keys.size(); i++) p[i] = 0;
    }
};

inline void bind_scans(py::module_& m) {
    m.def("stats", [](uintptr_t x, int dtype, int64_t length, uintptr_t numbers, uintptr_t counts, int device,
                      uintptr_t stream) {
        demand(length >= 0, "length");
        const DType type = dtype_of(dtype);
        py::gil_scoped_release free;
        stats(at<const char>(x), type, length, at<double>(numbers), at<int64_t>(counts), queue_of(device, stream));
    });
    m.def("gram", [](uintptr_t base, const Addresses& inputs, int64_t length, int dtype, uintptr_t found, int device,
                     uintptr_t stream) {
        const BoundSum bound(inputs, std::nullopt, length, dtype, 0, 0, INPUTS_MAX);
        py::gil_scoped_release free;
        gram(bound.call, at<const char>(base), at<double>(found), queue_of(device, stream));
    });
    m.def("check_sums", [](uintptr_t words, int bits, int64_t bytes, const HostBytes& key, uint64_t lane,
                           uint64_t first, uintptr_t sums, int device, uintptr_t stream) {
        demand_ring(bits, bytes);
        demand(key.size() == 32, "key");
        const uint8_t* of = key.data();
        py::gil_scoped_release free;
        check_sums(at<const char>(words), bits, bytes, of, lane, first, at<uint64_t>(sums), queue_of(device, stream));
    });
}

inline void bind_words(py::module_& m) {
    m.def("add_streams", [](uintptr_t words, int bits, int64_t bytes, const HostBytes& keys, const HostSigns& signs,
                            uint64_t lane, uint64_t first, uintptr_t out, int device, uintptr_t stream) {
        demand_ring(bits, bytes);
        const BoundMasks masks(keys, signs, lane, first);
        py::gil_scoped_release free;
        add_streams(at<const char>(words), bits, bytes, masks.call, at<char>(out), queue_of(device, stream));
    });
    m.def("sum_words",
          [](const Addresses& inputs, int bits, int64_t bytes, uintptr_t out, int device, uintptr_t stream) {
              demand(!inputs.empty() && inputs.size() <= size_t(SUM_INPUTS_MAX), "number of inputs");
              demand_ring(bits, bytes);
              std::vector<const char*> pointers;
              for (const uintptr_t x : inputs) pointers.push_back(at<const char>(x));
              py::gil_scoped_release free;
              sum_words(pointers.data(), int(pointers.size()), bits, bytes, at<char>(out), queue_of(device, stream));
          });
}

// Addresses of the grid's arrays on the device, and its keys.
struct BoundGrid {
    HostBytes signs;
    std::optional<HostBytes> dither;
    GridCall call{};

    BoundGrid(uintptr_t starts, uintptr_t places, uintptr_t logs, int64_t count, int64_t length, uint64_t first,
              const HostBytes& signs, const std::optional<HostBytes>& dither)
        : signs(signs), dither(dither) {
        demand(count >= 0 && length >= 0 && first % 64 == 0, "grid");
        demand(signs.size() == 32 && (!dither || dither->size() == 32), "keys");
        call = {at<const int64_t>(starts),
                at<const int64_t>(places),
                at<const uint8_t>(logs),
                count,
                length,
                first,
                signs.data(),
                dither ? dither->data() : nullptr};
    }
};

inline void demand_coded(int bits) { demand(bits == 8 || bits == 12 || bits == 16 || bits == 32, "coded width"); }

inline void bind_coding(py::module_& m) {
    py::class_<BoundGrid>(m, "Grid", py::module_local())
        .def(py::init<uintptr_t, uintptr_t, uintptr_t, int64_t, int64_t, uint64_t, const HostBytes&,
                      const std::optional<HostBytes>&>());
    m.def("rotate", [](const BoundGrid& grid, uintptr_t x, uintptr_t out, int device, uintptr_t stream) {
        py::gil_scoped_release free;
        rotate(grid.call, at<const float>(x), at<float>(out), queue_of(device, stream));
    });
    m.def("encode",
          [](const BoundGrid& grid, uintptr_t x, uintptr_t base, float alpha, uint32_t offset, int64_t bound, int bits,
             uintptr_t inverse_steps, const HostBytes& keys, const HostSigns& signs, uintptr_t out, int64_t bytes,
             uintptr_t squares, uintptr_t clipped, uintptr_t totals, int device, uintptr_t stream) {
              demand_coded(bits);
              demand(grid.dither.has_value() && bound >= 1 && bound < int64_t(1) << (bits - 1), "rounding");
              const BoundMasks masks(keys, signs, 0, grid.call.first);
              const Encoding e{at<const float>(x),
                               at<const float>(base),
                               alpha,
                               offset,
                               bound,
                               bits,
                               at<const float>(inverse_steps),
                               at<char>(out),
                               at<double>(squares),
                               at<int64_t>(clipped),
                               at<int64_t>(totals)};
              py::gil_scoped_release free;
              encode(grid.call, e, masks.call, bytes, queue_of(device, stream));
          });
    m.def("decode", [](const BoundGrid& grid, uintptr_t words, int bits, bool dithered, uintptr_t table,
                       uintptr_t scales, const HostBytes& keys, const HostSigns& signs, uintptr_t base, uintptr_t out,
                       int device, uintptr_t stream) {
        demand_coded(bits);
        demand(grid.dither.has_value() && signs.size() <= STREAMS_MAX, "streams");
        const BoundMasks masks(keys, signs, 0, grid.call.first);
        const Decoding d{
            at<const char>(words), bits,          dithered, at<const int32_t>(table), at<const double>(scales),
            at<const float>(base), at<float>(out)};
        py::gil_scoped_release free;
        decode(grid.call, d, masks.call, queue_of(device, stream));
    });
}

// Types and errors are local: `_cuda` and its twin may be in one process.
inline void bind_calls(py::module_& m) {
    // OSError would be taken for a file's: RuntimeError with what CUDA said, MemoryError where it is memory.
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const Failure& failure) {
            PyErr_SetString(failure.memory ? PyExc_MemoryError : PyExc_RuntimeError, failure.what());
        }
    });
    m.attr("INPUTS_MAX") = INPUTS_MAX;
    m.attr("ORDER_MAX") = ORDER_MAX;
    m.attr("SUM_INPUTS_MAX") = SUM_INPUTS_MAX;
    m.attr("STREAMS_MAX") = STREAMS_MAX;
    bind_sums(m);
    bind_words(m);
    bind_scans(m);
    bind_coding(m);
}

}  // namespace shoal::cuda
