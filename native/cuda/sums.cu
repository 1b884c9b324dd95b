#include "cuda/launcher.h"
#include "cuda/start_sums.h"

namespace shoal::cuda {

void weighted_mean(const SumCall& call, const Queue& queue) { start_mean(Launcher(queue), call); }

void combine(const SumCall& call, const char* base, const Queue& queue) {
    start_combine(Launcher(queue), call, base, false);
}

void scaled_add(const SumCall& call, const char* y, const Queue& queue) {
    start_combine(Launcher(queue), call, y, true);
}

void convert(const char* from, DType from_type, char* out, DType to_type, int64_t length, const Queue& queue) {
    start_convert(Launcher(queue), from, from_type, out, to_type, length);
}

}  // namespace shoal::cuda
