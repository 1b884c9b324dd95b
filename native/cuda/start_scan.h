// Calls that reduce, for whoever starts the bodies.
#pragma once
#include "cuda/body_scan.h"
#include "cuda/memory.h"
#include "cuda/start_ring.h"

namespace shoal::cuda {

inline int64_t gram_blocks(int64_t length) { return (length + GRAM_BLOCK - 1) / GRAM_BLOCK; }

template <class Starter>
void start_stats(const Starter& starter, const char* x, DType dtype, int64_t length, double* numbers, int64_t* counts,
                 const Queue& queue) {
    const int64_t blocks = gram_blocks(length);
    const Memory lanes(size_t(blocks) * GRAM_LANES * sizeof(Seen), queue), whole(size_t(blocks) * sizeof(Seen), queue);
    Seen *of_lanes = static_cast<Seen*>(lanes.data), *of_blocks = static_cast<Seen*>(whole.data);
    with_type(dtype, [&]<class T>(T) { starter.each(StatsBody<T>{x, length, of_lanes}, blocks * GRAM_LANES); });
    starter.each(FoldStatsBody{of_lanes, of_blocks}, blocks);
    starter.each(AddStatsBody{of_blocks, blocks, numbers, counts}, 1);
}

template <class Starter>
void start_gram(const Starter& starter, const SumCall& call, const char* base, double* found, const Queue& queue) {
    const int64_t blocks = gram_blocks(call.length), squares = squares_of(call.count);
    const Memory memory(size_t(blocks * squares) * SIDE * SIDE * GRAM_LANES * sizeof(double), queue);
    auto* sums = static_cast<double*>(memory.data);
    const Rows rows = rows_of(call, base);
    with_type(call.dtype,
              [&]<class T>(T) { starter.each(GramBody<T>{rows, base, sums}, blocks * squares * GRAM_LANES); });
    starter.each(FoldGramBody{sums, call.count, found}, blocks * call.count * call.count);
}

template <class Starter>
void start_check_sums(const Starter& starter, const char* words, int bits, int64_t bytes, const uint8_t* key,
                      uint64_t lane, uint64_t first, uint64_t* sums) {
    auto* to = reinterpret_cast<unsigned long long*>(sums);
    Alignment alignment;
    alignment.add(words);
    StreamKey of{};
    std::memcpy(of.words, key, sizeof of.words);
    starter.each(ClearBody{to}, CHECK_SUMS);
    with_bits(bits, [&]<int BITS>(std::integral_constant<int, BITS>) {
        const int64_t count = bytes * 8 / BITS, units = count ? (int64_t(first % 16) + count + 15) / 16 : 0;
        starter.crews(CheckBody<BITS>{of, words, count, lane, first, alignment.bytes(), to},
                      steps_of(units, CHECK_ROUNDS * WORKERS));
    });
    starter.each(ReduceBody{to, bits == 64 ? ~0ull : (1ull << bits) - 1}, CHECK_SUMS);
}

}  // namespace shoal::cuda
