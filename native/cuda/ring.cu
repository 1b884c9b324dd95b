#include "cuda/launcher.h"
#include "cuda/start_ring.h"

namespace shoal::cuda {

void add_streams(const char* words, int bits, int64_t bytes, const MaskCall& masks, char* out, const Queue& queue) {
    start_masks(Launcher(queue), words, bits, bytes, masks, out);
}

void sum_words(const char* const* inputs, int count, int bits, int64_t bytes, char* out, const Queue& queue) {
    start_sum(Launcher(queue), inputs, count, bits, bytes, out);
}

}  // namespace shoal::cuda
