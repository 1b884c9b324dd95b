#include "cuda/launcher.h"
#include "cuda/start_scan.h"

namespace shoal::cuda {

void stats(const char* x, DType dtype, int64_t length, double* numbers, int64_t* counts, const Queue& queue) {
    start_stats(Launcher(queue), x, dtype, length, numbers, counts, queue);
}

void gram(const SumCall& call, const char* base, double* found, const Queue& queue) {
    start_gram(Launcher(queue), call, base, found, queue);
}

void check_sums(const char* words, int bits, int64_t bytes, const uint8_t* key, uint64_t lane, uint64_t first,
                uint64_t* sums, const Queue& queue) {
    start_check_sums(Launcher(queue), words, bits, bytes, key, lane, first, sums);
}

}  // namespace shoal::cuda
