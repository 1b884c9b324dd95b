#include "cuda/memory.h"

#include "cuda/launcher.h"

namespace shoal::cuda {

namespace {

cudaStream_t stream_of(const Queue& queue) { return static_cast<cudaStream_t>(queue.stream); }

}  // namespace

Memory::Memory(size_t bytes, const Queue& queue) : bytes(bytes), queue_(queue) {
    if (bytes == 0) return;
    const OnDevice on(queue.device);
    check(cudaMallocAsync(&data_, bytes, stream_of(queue)), "taking device memory");
}

Memory::~Memory() {
    if (!data_) return;
    try {
        const OnDevice on(queue_.device);
        if (cudaFreeAsync(data_, stream_of(queue_)) != cudaSuccess) cudaGetLastError();
    } catch (const Failure&) {
        // The device is gone, and its memory with it.
    }
}

Pinned::Pinned(size_t bytes, int device) : device_(device) {
    const OnDevice on(device);
    check(cudaHostAlloc(reinterpret_cast<void**>(&data), bytes, cudaHostAllocDefault), "pinning host memory");
}

Pinned::~Pinned() {
    try {
        const OnDevice on(device_);
        if (cudaFreeHost(data) != cudaSuccess) cudaGetLastError();
    } catch (const Failure&) {
    }
}

OwnQueue::OwnQueue(int device) : queue{device, nullptr} {
    const OnDevice on(device);
    check(cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(&queue.stream), cudaStreamNonBlocking),
          "making a stream");
}

OwnQueue::~OwnQueue() {
    try {
        const OnDevice on(queue.device);
        if (cudaStreamDestroy(stream_of(queue)) != cudaSuccess) cudaGetLastError();
    } catch (const Failure&) {
    }
}

void copy_in(void* to, const void* from, size_t bytes, const Queue& queue) {
    const OnDevice on(queue.device);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_of(queue)), "copying to the device");
}

void copy_out(void* to, const void* from, size_t bytes, const Queue& queue) {
    const OnDevice on(queue.device);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_of(queue)), "copying from the device");
}

void wait(const Queue& queue) {
    const OnDevice on(queue.device);
    check(cudaStreamSynchronize(stream_of(queue)), "waiting for the device");
}

}  // namespace shoal::cuda
