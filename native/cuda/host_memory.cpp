// The host twin's memory: as much as a test allows, so that running out of it can be tried.
#include "cuda/host_memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cuda/memory.h"

namespace shoal::cuda {

namespace {

std::atomic<size_t> limit{SIZE_MAX}, taken{0};

}  // namespace

void limit_memory(size_t bytes) { limit = bytes; }

Memory::Memory(size_t bytes, const Queue& queue) : bytes(bytes), queue_(queue) {
    if (bytes > limit - taken || taken > limit) throw Failure("taking device memory: the test's limit", true);
    data_ = std::malloc(bytes ? bytes : 1);
    if (!data_) throw Failure("taking device memory: the host's", true);
    taken += bytes;
}

Memory::~Memory() {
    taken -= bytes;
    std::free(data_);
}

Pinned::Pinned(size_t bytes, int device) : data(static_cast<char*>(std::malloc(bytes))), device_(device) {
    if (!data) throw Failure("pinning host memory: the host's", true);
}

Pinned::~Pinned() { std::free(data); }

OwnQueue::OwnQueue(int device) : queue{device, nullptr} {}

OwnQueue::~OwnQueue() = default;

void copy_in(void* to, const void* from, size_t bytes, const Queue&) { std::memcpy(to, from, bytes); }

void copy_out(void* to, const void* from, size_t bytes, const Queue&) { std::memcpy(to, from, bytes); }

void wait(const Queue&) {}

}  // namespace shoal::cuda
