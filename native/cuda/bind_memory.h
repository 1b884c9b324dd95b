// Python's door to a device's memory.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "cuda/memory.h"

namespace shoal::cuda {

namespace py = pybind11;

inline void bind_memory(py::module_& m) {
    const auto within = [](const Memory& memory, const py::array& x) {
        if (!(x.flags() & py::array::c_style) || size_t(x.nbytes()) > memory.bytes)
            throw std::invalid_argument("an array that is contiguous and no larger than the memory");
        return size_t(x.nbytes());
    };
    py::class_<Memory>(m, "Memory", py::module_local())
        .def(py::init([](size_t bytes, int device, uintptr_t stream) {
            return std::make_unique<Memory>(bytes, Queue{device, reinterpret_cast<void*>(stream)});
        }))
        .def_property_readonly("pointer", [](const Memory& memory) { return reinterpret_cast<uintptr_t>(memory.data); })
        .def("put", [within](const Memory& memory, const py::array& x, int device, uintptr_t stream) {
            const size_t bytes = within(memory, x);
            const void* from = x.data();
            py::gil_scoped_release free;
            copy_in(memory.data, from, bytes, {device, reinterpret_cast<void*>(stream)});
        });
    // Waits: the array holds the numbers when this returns.
    m.def("get", [](uintptr_t from, py::array to, int device, uintptr_t stream) {
        if (!(to.flags() & py::array::c_style) || !to.writeable()) throw std::invalid_argument("a writable array");
        const auto bytes = size_t(to.nbytes());
        void* target = to.mutable_data();
        py::gil_scoped_release free;
        const Queue queue{device, reinterpret_cast<void*>(stream)};
        copy_out(target, reinterpret_cast<const void*>(from), bytes, queue);
        wait(queue);
    });
}

}  // namespace shoal::cuda
