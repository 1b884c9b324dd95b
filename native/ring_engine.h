// The ring kernels as the bindings call them: plain pointers and lengths in, work cut into pieces and run on the pool.
#pragma once
#include "ring.h"

namespace shoal {

void ring_keystream(const uint8_t* key, uint64_t lane, uint64_t first, char* to, int64_t count, int threads);
void ring_add_streams(const char* words, int bits, const Masks& masks, uint64_t lane, uint64_t first, int64_t count,
                      char* out, int threads);
void ring_sum_words(const char* const* inputs, int64_t n, int bits, int64_t count, char* out, int threads);
// sums[CHECKS], modulo 2^bits
void ring_check_sums(const char* words, int bits, const uint8_t* key, uint64_t lane, uint64_t first, int64_t count,
                     uint64_t* sums, int threads);

}  // namespace shoal
