// Python module shoal.kernels._cuda.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cuda/probe.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "CUDA devices of this machine.  Importing needs neither a driver nor a device.";
    m.def(
        "devices",
        [] {
            std::string error;
            std::vector<shoal::cuda::Device> found;
            {
                py::gil_scoped_release release;
                found = shoal::cuda::devices(error);
            }
            py::list list;
            for (const auto& d : found) {
                list.append(py::make_tuple(d.index, d.name, py::make_tuple(d.major, d.minor), d.bytes));
            }
            return py::make_tuple(list, error);
        },
        "() -> ([(index, name, (major, minor), bytes)], error name or '').");
}
