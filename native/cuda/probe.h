// What the CUDA runtime says about this machine's devices.  No kernel is launched.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace shoal::cuda {

struct Device {
    int index;
    std::string name;
    int major;  // compute capability
    int minor;
    std::size_t bytes;  // memory
};

// The devices, or none; `error` then holds the runtime's name of the reason ("cudaErrorInsufficientDriver" ...), and is
// empty otherwise.  Never throws, never crashes without a driver.
std::vector<Device> devices(std::string& error);

}  // namespace shoal::cuda
