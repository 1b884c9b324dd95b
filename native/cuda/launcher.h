// How a body becomes a kernel: threads that take turns until all steps are done.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/body_block.h"
#include "cuda/calls.h"
#include "cuda/memory.h"

namespace shoal::cuda {

inline void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // an error that does not stick must not be seen by the next call
    throw Failure(std::string(what) + ": " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")",
                  status == cudaErrorMemoryAllocation);
}

// The device is the caller's business before and after.
class OnDevice {
  public:
    explicit OnDevice(int device) : number(device) {
        check(cudaGetDevice(&before_), "asking for the device");
        if (before_ != device) check(cudaSetDevice(device), "changing the device");
        changed_ = before_ != device;
    }
    ~OnDevice() {
        if (changed_) cudaSetDevice(before_);
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;
    const int number;

  private:
    int before_ = 0;
    bool changed_ = false;
};

constexpr int THREADS = 256;

template <class Body>
__global__ void __launch_bounds__(THREADS) each_kernel(const __grid_constant__ Body body, int64_t count) {
    for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < count; i += int64_t(gridDim.x) * THREADS) body(i);
}

template <class Body>
__device__ void run_crews(const Body& body, int64_t count, float* tile, Room& room) {
    for (int64_t i = blockIdx.x; i < count; i += gridDim.x) {
        const int phases = body.phases(i);
        for (int phase = 0; phase < phases; phase++) {
            body.phase(phase, i, int(threadIdx.x), tile, room);
            __syncthreads();
        }
    }
}

// The tile in shared memory, if the body needs one.
template <class Body>
__global__ void __launch_bounds__(CREW) crew_kernel(const __grid_constant__ Body body, int64_t count) {
    extern __shared__ float tile[];
    __shared__ Room room;
    run_crews(body, count, tile, room);
}

// The tiles in the device's memory, one for each crew that is there at a time.  Of use, and compiled, for compute
// capability 7.5 only: it has 64 KiB of shared memory in all.
template <class Body>
__global__ void __launch_bounds__(CREW)
    global_crew_kernel(const __grid_constant__ Body body, int64_t count, float* tiles) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 800
    __shared__ Room room;
    run_crews(body, count, tiles + int64_t(blockIdx.x) * TILE_ELEMENTS, room);
#endif
}

class Launcher {
  public:
    explicit Launcher(const Queue& queue) : device_(queue.device), stream_(static_cast<cudaStream_t>(queue.stream)) {}

    // body(0) ... body(count - 1), side by side.
    template <class Body>
    void each(const Body& body, int64_t count) const {
        static_assert(sizeof(Body) <= 4000, "a kernel's parameters");
        if (count == 0) return;
        const int64_t blocks = std::min<int64_t>((count + THREADS - 1) / THREADS, INT32_MAX);
        each_kernel<Body><<<unsigned(blocks), THREADS, 0, stream_>>>(body, count);
        check(cudaGetLastError(), "starting a kernel");
    }

    // A crew for each of body's `count` blocks.
    template <class Body>
    void crews(const Body& body, int64_t count) const {
        static_assert(sizeof(Body) <= 4000, "a kernel's parameters");
        if (count == 0) return;
        if constexpr (!Body::TILE) {
            crew_kernel<<<crews_of(count), CREW, 0, stream_>>>(body, count);
            check(cudaGetLastError(), "starting a kernel");
        } else {
            int most = 0;
            check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_.number), "asking");
            most >= TILE_BYTES + int(sizeof(Room)) + RESERVED ? shared_crews(body, count) : global_crews(body, count);
        }
    }

  private:
    static constexpr int RESERVED = 1024;  // of shared memory, by the runtime
    static constexpr int TILE_BYTES = TILE_ELEMENTS * int(sizeof(float));
    OnDevice device_;
    cudaStream_t stream_;

    static unsigned crews_of(int64_t count) { return unsigned(std::min<int64_t>(count, INT32_MAX)); }

    template <class Body>
    void shared_crews(const Body& body, int64_t count) const {
        const auto kernel = crew_kernel<Body>;
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, TILE_BYTES), "shared memory");
        kernel<<<crews_of(count), CREW, TILE_BYTES, stream_>>>(body, count);
        check(cudaGetLastError(), "starting a kernel");
    }

    // The tiles go through the second-level cache.
    template <class Body>
    void global_crews(const Body& body, int64_t count) const {
        int processors = 0;
        check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device_.number), "asking");
        const int64_t crews = std::min<int64_t>(count, int64_t(processors) * 3);
        const Memory tiles(size_t(crews) * TILE_BYTES, {device_.number, stream_});
        global_crew_kernel<<<unsigned(crews), CREW, 0, stream_>>>(body, count, static_cast<float*>(tiles.data));
        check(cudaGetLastError(), "starting a kernel");
    }
};

}  // namespace shoal::cuda
