// Kernels of the ring Z_{2^bits}: keystreams, masks, sums, checks.  The contract of each stands in
// src/shoal/kernels/reference_ring.py; all levels give the same bits as that file.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

namespace shoal {

static_assert(std::endian::native == std::endian::little, "words and keystreams are little-endian in memory");

constexpr int64_t KEY_BYTES = 32;         // of a ChaCha20 key
constexpr int64_t BLOCK_BYTES = 64;       // of a ChaCha20 block
constexpr int CHECKS = 32;                // reference_ring.CHECKS
constexpr int64_t RING_INPUTS_MAX = 256;  // vectors in one sum: limits.LEDGER_MEMBERS_MAX and one more

constexpr bool is_ring(int bits) { return bits == 8 || bits == 12 || bits == 16 || bits == 32 || bits == 64; }

// Bytes that `count` words take on the wire (12 bits: count is even), and bytes of a stream that they use.
constexpr int64_t wire_bytes(int64_t count, int bits) { return count * bits / 8; }
constexpr int64_t stream_bytes(int64_t count, int bits) { return count * (bits == 12 ? 2 : bits / 8); }

// Keys of streams that are added (sign +1) or taken away (sign -1), one behind the other.
struct Masks {
    const uint8_t* keys = nullptr;  // [count][KEY_BYTES]
    const int8_t* signs = nullptr;  // [count]
    int64_t count = 0;
};

// Work of one thread on one piece.  Arrays need no alignment; `out` may be the input.
struct RingTable {
    // to = bytes [first, first + count) of a stream
    void (*keystream)(const uint8_t* key, uint64_t lane, uint64_t first, char* to, int64_t count);
    // out = words + masks; word 0 is element `first` of the streams
    void (*add_streams)(const char* words, int bits, const Masks& masks, uint64_t lane, uint64_t first, int64_t count,
                        char* out);
    // out = sum of n inputs
    void (*sum_words)(const char* const* inputs, int64_t n, int bits, int64_t count, char* out);
    // sums[r] += words whose check word has bit r, not yet reduced modulo 2^bits
    void (*check_sums)(const char* words, int bits, const uint8_t* key, uint64_t lane, uint64_t first, int64_t count,
                       uint64_t* sums);
};

extern const RingTable portable_ring;
#if defined(__x86_64__)
extern const RingTable avx2_ring;
extern const RingTable avx512_ring;
#endif

// That of the level in use (engine.h).
const RingTable& ring();

}  // namespace shoal
