// What a device can do at most, for bench/gpu: the floors that kernels are measured against.  All of these wait.
#pragma once
#include <cstdint>

namespace shoal::cuda {

// Time between two points of a stream, by the device's own clock.
class Timer {
  public:
    Timer(int device, uintptr_t stream);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    void start();
    double stop();  // seconds since start(); waits until all in between is done

  private:
    int device_;
    void *stream_, *begun_ = nullptr, *ended_ = nullptr;
};

// Seconds of one copy of `bytes`, the best of several: within the device, to it, and from it (pinned memory).
double copy_seconds(int64_t bytes, int device);
double bus_seconds(int64_t bytes, bool to_device, int device);
// Seconds for `blocks` blocks of ChaCha20 that nobody reads: what its integer operations take.
double cipher_seconds(int64_t blocks, int device);

}  // namespace shoal::cuda
