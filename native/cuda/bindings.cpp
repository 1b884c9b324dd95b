// Python module shoal.kernels._cuda.
#include "cuda/bind_arrays.h"
#include "cuda/bind_calls.h"
#include "cuda/bind_memory.h"
#include "cuda/bind_pipeline.h"
#include "cuda/probe.h"
#include "cuda/rates.h"
#include "cuda/streams.h"

namespace py = pybind11;
using namespace shoal;

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "CUDA devices of this machine and their kernels.  Importing needs neither a driver nor a device.";
    m.attr("KIND") = "cuda";
    cuda::bind_calls(m);
    cuda::bind_memory(m);
    cuda::bind_pipeline(m);
    const py::call_guard<py::gil_scoped_release> free;
    py::class_<cuda::Timer>(m, "Timer", py::module_local())
        .def(py::init<int, uintptr_t>())
        .def("start", &cuda::Timer::start)
        .def("stop", &cuda::Timer::stop, free);
    m.def("copy_seconds", cuda::copy_seconds, free);
    m.def("bus_seconds", cuda::bus_seconds, free);
    m.def("cipher_seconds", cuda::cipher_seconds, free);
    m.def("dlpack", cuda::dlpack);
    m.def("device_of", cuda::device_of);
    m.def("follow", cuda::follow);
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
