// How a body becomes a kernel: threads that take turns until all steps are done.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/body_block.h"
#include "cuda/calls.h"

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

// SHARED: the tile is in shared memory; else in the device's, a tile for each crew that is there at a time.
template <class Body, bool SHARED>
__global__ void __launch_bounds__(CREW) crew_kernel(const __grid_constant__ Body body, int64_t count, float* tiles) {
    extern __shared__ float shared_tile[];
    __shared__ Room room;
    if (threadIdx.x == 0) room.z = SHARED ? shared_tile : tiles + int64_t(blockIdx.x) * TILE_ELEMENTS;
    __syncthreads();
    for (int64_t i = blockIdx.x; i < count; i += gridDim.x) {
        const int phases = body.phases(i);
        for (int phase = 0; phase < phases; phase++) {
            body.phase(phase, i, int(threadIdx.x), room);
            __syncthreads();
        }
    }
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
        int most = 0, processors = 0;
        check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_.number), "shared memory");
        check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device_.number), "processors");
        constexpr int tile = TILE_ELEMENTS * int(sizeof(float));
        if (most >= tile + int(sizeof(Room)) + RESERVED) {
            const auto kernel = crew_kernel<Body, true>;
            check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, tile), "shared memory");
            kernel<<<unsigned(std::min<int64_t>(count, INT32_MAX)), CREW, tile, stream_>>>(body, count, nullptr);
            check(cudaGetLastError(), "starting a kernel");
            return;
        }
        // Compute capability 7.5 has 64 KiB in all: the tiles go through its second-level cache.
        const int64_t crews = std::min<int64_t>(count, int64_t(processors) * 3);
        void* tiles = nullptr;
        check(cudaMallocAsync(&tiles, size_t(crews) * tile, stream_), "memory for tiles");
        crew_kernel<Body, false><<<unsigned(crews), CREW, 0, stream_>>>(body, count, static_cast<float*>(tiles));
        const cudaError_t started = cudaGetLastError();
        check(cudaFreeAsync(tiles, stream_), "memory for tiles");
        check(started, "starting a kernel");
    }

  private:
    static constexpr int RESERVED = 1024;  // of shared memory, by the runtime
    OnDevice device_;
    cudaStream_t stream_;
};

}  // namespace shoal::cuda
