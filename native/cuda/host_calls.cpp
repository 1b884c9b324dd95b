// The host twin: what the device would compute, by the ordinary compiler.  For tests, not for speed.
#include "cuda/calls.h"
#include "cuda/host_loops.h"
#include "cuda/start_coding.h"
#include "cuda/start_ring.h"
#include "cuda/start_scan.h"
#include "cuda/start_sums.h"

namespace shoal::cuda {

void weighted_mean(const SumCall& call, const Queue&) { start_mean(Loops{}, call); }

void combine(const SumCall& call, const char* base, const Queue&) { start_combine(Loops{}, call, base, false); }

void scaled_add(const SumCall& call, const char* y, const Queue&) { start_combine(Loops{}, call, y, true); }

void order(const SumCall& call, int trim, const Queue&) { start_order(Loops{}, call, trim); }

void convert(const char* from, DType from_type, char* out, DType to_type, int64_t length, const Queue&) {
    start_convert(Loops{}, from, from_type, out, to_type, length);
}

void add_streams(const char* words, int bits, int64_t bytes, const MaskCall& masks, char* out, const Queue&) {
    start_masks(Loops{}, words, bits, bytes, masks, out);
}

void sum_words(const char* const* inputs, int count, int bits, int64_t bytes, char* out, const Queue&) {
    start_sum(Loops{}, inputs, count, bits, bytes, out);
}

void rotate(const GridCall& grid, const float* x, float* out, const Queue&) { start_rotate(Loops{}, grid, x, out); }

void encode(const GridCall& grid, const Encoding& e, const MaskCall& masks, int64_t bytes, const Queue& queue) {
    start_encode(Loops{}, grid, e, masks, bytes, queue);
}

void decode(const GridCall& grid, const Decoding& d, const MaskCall& masks, const Queue&) {
    start_decode(Loops{}, grid, d, masks);
}

void stats(const char* x, DType dtype, int64_t length, double* numbers, int64_t* counts, const Queue& queue) {
    start_stats(Loops{}, x, dtype, length, numbers, counts, queue);
}

void gram(const SumCall& call, const char* base, double* found, const Queue& queue) {
    start_gram(Loops{}, call, base, found, queue);
}

void check_sums(const char* words, int bits, int64_t bytes, const uint8_t* key, uint64_t lane, uint64_t first,
                uint64_t* sums, const Queue&) {
    start_check_sums(Loops{}, words, bits, bytes, key, lane, first, sums);
}

}  // namespace shoal::cuda
