#include "cuda/launcher.h"
#include "cuda/start_coding.h"

namespace shoal::cuda {

void rotate(const GridCall& grid, const float* x, float* out, const Queue& queue) {
    start_rotate(Launcher(queue), grid, x, out);
}

void encode(const GridCall& grid, const Encoding& e, const MaskCall& masks, int64_t bytes, const Queue& queue) {
    start_encode(Launcher(queue), grid, e, masks, bytes, queue);
}

void decode(const GridCall& grid, const Decoding& d, const MaskCall& masks, const Queue& queue) {
    start_decode(Launcher(queue), grid, d, masks);
}

}  // namespace shoal::cuda
