#include "cuda/probe.h"

#include <cuda_runtime_api.h>

namespace shoal::cuda {

std::vector<Device> devices(std::string& error) {
    std::vector<Device> found;
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    for (int index = 0; status == cudaSuccess && index < count; ++index) {
        cudaDeviceProp prop{};
        status = cudaGetDeviceProperties(&prop, index);
        if (status == cudaSuccess) {
            found.push_back({index, prop.name, prop.major, prop.minor, prop.totalGlobalMem});
        }
    }
    error = status == cudaSuccess ? "" : cudaGetErrorName(status);
    cudaGetLastError();  // a failed probe must not be seen by whoever uses CUDA next in this process
    return found;
}

}  // namespace shoal::cuda
