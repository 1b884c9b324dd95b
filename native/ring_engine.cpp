#include "ring_engine.h"

#include <algorithm>
#include <atomic>

#include "engine.h"
#include "pool.h"

namespace shoal {

const RingTable& ring() {
#if defined(__x86_64__)
    if (&level() == &avx512_table) return avx512_ring;
    if (&level() == &avx2_table) return avx2_ring;
#endif
    return portable_ring;
}

namespace {

constexpr int64_t PIECE =
    32 << 10;  // words in one piece of work: a multiple of 4, so that 12 bits begin on whole bytes

// Runs work(first word, words) over [0, count) in pieces; no result depends on how they are cut.
template <class Work>
void in_pieces(int64_t count, int threads, int64_t piece, const Work& work) {
    struct Context {
        const Work& work;
        int64_t count, piece;
    } context{work, count, piece};
    if (threads <= 0) threads = default_threads();
    const int64_t pieces = (count + piece - 1) / piece;
    run_pieces(
        pieces, pieces > 1 ? threads : 1, 64,
        [](void* given, int64_t i, char*) {
            const Context& c = *static_cast<const Context*>(given);
            const int64_t begin = i * c.piece;
            c.work(begin, std::min(c.piece, c.count - begin));
        },
        &context);
}

}  // namespace

void ring_keystream(const uint8_t* key, uint64_t lane, uint64_t first, char* to, int64_t count, int threads) {
    const RingTable& table = ring();
    in_pieces(count, threads, 4 * PIECE, [&](int64_t begin, int64_t some) {
        table.keystream(key, lane, first + uint64_t(begin), to + begin, some);
    });
}

void ring_add_streams(const char* words, int bits, const Masks& masks, uint64_t lane, uint64_t first, int64_t count,
                      char* out, int threads) {
    const RingTable& table = ring();
    in_pieces(count, threads, PIECE, [&](int64_t begin, int64_t some) {
        const int64_t at = wire_bytes(begin, bits);
        table.add_streams(words + at, bits, masks, lane, first + uint64_t(begin), some, out + at);
    });
}

void ring_sum_words(const char* const* inputs, int64_t n, int bits, int64_t count, char* out, int threads) {
    const RingTable& table = ring();
    in_pieces(count, threads, PIECE, [&](int64_t begin, int64_t some) {
        const int64_t at = wire_bytes(begin, bits);
        const char* from[RING_INPUTS_MAX];
        for (int64_t k = 0; k < n; k++) from[k] = inputs[k] + at;
        table.sum_words(from, n, bits, some, out + at);
    });
}

void ring_check_sums(const char* words, int bits, const uint8_t* key, uint64_t lane, uint64_t first, int64_t count,
                     uint64_t* sums, int threads) {
    const RingTable& table = ring();
    std::fill_n(sums, CHECKS, uint64_t(0));
    in_pieces(count, threads, PIECE, [&](int64_t begin, int64_t some) {
        uint64_t mine[CHECKS] = {};
        table.check_sums(words + wire_bytes(begin, bits), bits, key, lane, first + uint64_t(begin), some, mine);
        for (int r = 0; r < CHECKS; r++) std::atomic_ref(sums[r]).fetch_add(mine[r], std::memory_order_relaxed);
    });
    if (bits < 64)
        for (int r = 0; r < CHECKS; r++) sums[r] &= (uint64_t(1) << bits) - 1;
}

}  // namespace shoal
