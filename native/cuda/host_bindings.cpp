// Python module shoal.kernels._cuda_host: the host twin of _cuda, for tests on machines without a device.
#include "cuda/bind_arrays.h"
#include "cuda/bind_calls.h"
#include "cuda/bind_memory.h"
#include "cuda/bind_pipeline.h"
#include "cuda/element_block.h"
#include "cuda/host_memory.h"

PYBIND11_MODULE(_cuda_host, m) {
    m.doc() = "What the CUDA kernels compute, thread by thread on the host: the same code, for tests, not for speed.";
    m.attr("KIND") = "host";
    shoal::cuda::bind_calls(m);
    shoal::cuda::bind_memory(m);
    shoal::cuda::bind_pipeline(m);
    m.def("dlpack", shoal::cuda::dlpack);
    m.def("banked", shoal::cuda::banked);
    m.def("limit_memory", shoal::cuda::limit_memory);
}
