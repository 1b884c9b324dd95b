// What the CUDA runtime says about addresses, and the order of work on two streams.
#pragma once
#include <cstdint>

namespace shoal::cuda {

// The device whose memory lies at an address, or -1: none's, or that of the host alone.
int device_of(uintptr_t pointer);

// Work put on `stream` from now on waits, on the device, for what is on `other` now.  Throws Failure.
void follow(int device, uintptr_t stream, uintptr_t other);

}  // namespace shoal::cuda
