// Threads of our own: started when first needed, kept, shared by concurrent calls, made anew after a fork.
#pragma once
#include <cstddef>
#include <cstdint>

namespace shoal {

constexpr int THREADS_MAX = 256;

// Does one piece of the work; pieces run in any order.  Must not throw.
using Piece = void (*)(void* context, int64_t piece, char* scratch);

// Threads that a call with threads = 0 gets: SHOAL_THREADS, or as many as the process may run on.
// Throws std::invalid_argument if SHOAL_THREADS is not a number from 1 to THREADS_MAX.
int default_threads();

// Runs pieces 0 ... pieces-1 on up to `threads` threads, the caller's among them (1: only there), each with
// `scratch_bytes` of its own, aligned to 64, in IEEE mode (nearest even, denormals kept).  Returns when all are done.
void run_pieces(int64_t pieces, int threads, size_t scratch_bytes, Piece piece, void* context);

// Default floating-point mode while it lives.
class FloatMode {
  public:
    FloatMode();
    ~FloatMode();
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;

  private:
    uint64_t before;
};

}  // namespace shoal
