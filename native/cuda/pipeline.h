// Arrays of the host through the device, tile by tile: while one tile is computed and copied, the next one is brought
// into pinned memory.  Two slots, each with a queue of its own.
#pragma once
#include <functional>
#include <memory>
#include <mutex>

#include "cuda/calls.h"

namespace shoal::cuda {

struct HostCall {
    const char* const* inputs;  // [count] host memory
    int count;
    int64_t length;
    DType dtype;
    char* out;  // host memory; may be one of the inputs
};

// Puts the kernel for one tile on the queue; arrays and flag are the device's.
using TileStart = std::function<void(const SumCall& tile, const Queue& queue)>;

class Pipeline {
  public:
    // tile_bytes: of all arrays of one tile together, at most; halved as long as there is not enough memory.
    Pipeline(int device, int64_t tile_bytes);
    ~Pipeline();

    // Returns when `out` is written: true if all numbers read were finite.  One call at a time; others wait.  Throws
    // Failure; `out` is then to be thrown away.
    bool run(const HostCall& call, int threads, const TileStart& start);

    // Of the last call.
    int64_t tile_bytes() const { return tile_bytes_; }

  private:
    struct Slot;
    int device_;
    int64_t tile_bytes_;
    std::unique_ptr<Slot> slots_[2];
    std::mutex busy_;

    void make_slots();
};

}  // namespace shoal::cuda
