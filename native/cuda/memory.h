// Memory of a device, and copies from and to the host's.  Two builds: memory.cu, and host_memory.cpp for the twin.
#pragma once
#include <cstddef>

#include "cuda/calls.h"

namespace shoal::cuda {

// Taken and given back in the order of the queue it was made with.  Throws Failure.
class Memory {
  public:
    Memory(size_t bytes, const Queue& queue);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    void* const& data = data_;
    const size_t bytes;

  private:
    Queue queue_;
    void* data_ = nullptr;
};

// Memory of the host that the device reads and writes itself.  Throws Failure.
class Pinned {
  public:
    Pinned(size_t bytes, int device);
    ~Pinned();
    Pinned(const Pinned&) = delete;
    Pinned& operator=(const Pinned&) = delete;

    char* data = nullptr;

  private:
    int device_;
};

// A queue of one's own, which waits for no other.
class OwnQueue {
  public:
    explicit OwnQueue(int device);
    ~OwnQueue();
    OwnQueue(const OwnQueue&) = delete;
    OwnQueue& operator=(const OwnQueue&) = delete;

    Queue queue;
};

// Copies on a queue; from and to pageable memory they may keep the host until they are done.
void copy_in(void* to, const void* from, size_t bytes, const Queue& queue);
void copy_out(void* to, const void* from, size_t bytes, const Queue& queue);
// Until all that is on the queue is done.
void wait(const Queue& queue);

}  // namespace shoal::cuda
