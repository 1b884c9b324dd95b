// Python's door to the pipeline: arrays of the host.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cuda/bind_calls.h"
#include "cuda/pipeline.h"

namespace shoal::cuda {

struct BoundHost {
    std::vector<const char*> pointers;
    HostCall call{};

    BoundHost(const std::vector<py::array>& inputs, int code, py::array& out, int most) {
        demand(!inputs.empty() && inputs.size() <= size_t(most), "number of inputs");
        const DType dtype = dtype_of(code);
        const py::ssize_t size = dtype == F64 ? 8 : dtype == F32 ? 4 : 2;
        const auto fits = [&](const py::array& x) {
            return x.ndim() == 1 && x.itemsize() == size && x.size() == inputs[0].size() &&
                   (x.flags() & py::array::c_style);
        };
        for (const py::array& x : inputs) {
            demand(fits(x), "arrays must be one-dimensional, contiguous, and agree");
            pointers.push_back(static_cast<const char*>(x.data()));
        }
        demand(fits(out) && out.writeable(), "out must be writable and like the inputs");
        call = {pointers.data(), int(inputs.size()), inputs[0].size(), dtype, static_cast<char*>(out.mutable_data())};
    }
    BoundHost(const BoundHost&) = delete;
};

inline void bind_pipeline(py::module_& m) {
    const auto weights_of = [](const std::optional<Doubles>& weights, size_t count) {
        demand(!weights || size_t(weights->size()) == count, "weights");
        return weights ? std::vector<double>(weights->data(), weights->data() + weights->size())
                       : std::vector<double>();
    };
    py::class_<Pipeline>(m, "Pipeline", py::module_local())
        .def(py::init<int, int64_t>())
        .def_property_readonly("tile_bytes", &Pipeline::tile_bytes)
        .def("weighted_mean",
             [weights_of](Pipeline& pipeline, const std::vector<py::array>& inputs, int dtype, const Doubles& weights,
                          py::array out, int threads) {
                 const BoundHost bound(inputs, dtype, out, INPUTS_MAX);
                 const auto w = weights_of(weights, inputs.size());
                 py::gil_scoped_release free;
                 return pipeline.run(bound.call, threads, [&](const SumCall& tile, const Queue& queue) {
                     SumCall weighed = tile;
                     weighed.weights = w.data();
                     weighted_mean(weighed, queue);
                 });
             })
        .def("order", [weights_of](Pipeline& pipeline, const std::vector<py::array>& inputs, int dtype,
                                   const std::optional<Doubles>& weights, int trim, py::array out, int threads) {
            const BoundHost bound(inputs, dtype, out, ORDER_MAX);
            demand(trim < 0 || 2 * size_t(trim) < inputs.size(), "trim");
            const auto w = weights_of(weights, inputs.size());
            py::gil_scoped_release free;
            return pipeline.run(bound.call, threads, [&](const SumCall& tile, const Queue& queue) {
                SumCall weighed = tile;
                weighed.weights = w.empty() ? nullptr : w.data();
                order(weighed, trim, queue);
            });
        });
}

}  // namespace shoal::cuda
