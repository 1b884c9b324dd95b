// ChaCha20 keystreams at one level, a register's lanes side by side.  Included by level_ring.h only;
// SHOAL_VECTOR_BYTES says how wide a register is.
//
// A group is as many ChaCha20 blocks as a register has 32-bit lanes: word w of all its blocks comes out of the rounds
// in register w, and is put into the order of the stream afterwards.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#    include <immintrin.h>
#endif

#include "ring.h"

#define INLINE __attribute__((always_inline)) inline

namespace shoal {
namespace {

constexpr int VB = SHOAL_VECTOR_BYTES;
constexpr int LANES = VB / 4;  // blocks in a group
static_assert(LANES == 4 || LANES == 8 || LANES == 16);
constexpr int64_t GROUP_BYTES = LANES * BLOCK_BYTES;  // of a stream

typedef uint8_t v8 __attribute__((vector_size(VB)));
typedef uint16_t v16 __attribute__((vector_size(VB)));
typedef uint32_t v32 __attribute__((vector_size(VB)));
typedef uint64_t v64 __attribute__((vector_size(VB)));

template <class T>
INLINE T load(const void* from) {
    T value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

template <class T>
INLINE void store(void* to, T value) {
    __builtin_memcpy(to, &value, sizeof value);
}

INLINE v32 all(uint32_t x) { return x - v32{}; }

template <int N>
INLINE v32 turned(v32 x) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    // Turns by whole bytes are one shuffle.
    if constexpr (N == 16) {
        const __m256i order = _mm256_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2, 13, 12, 15, 14, 9,
                                              8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2);
        return v32(_mm256_shuffle_epi8(__m256i(x), order));
    }
    if constexpr (N == 8) {
        const __m256i order = _mm256_set_epi8(14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3, 14, 13, 12, 15, 10,
                                              9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3);
        return v32(_mm256_shuffle_epi8(__m256i(x), order));
    }
#endif
    return (x << N) | (x >> (32 - N));
}

INLINE void quarter(v32& a, v32& b, v32& c, v32& d) {
    a += b, d = turned<16>(d ^ a);
    c += d, b = turned<12>(b ^ c);
    a += b, d = turned<8>(d ^ a);
    c += d, b = turned<7>(b ^ c);
}

// Counters of a group's blocks, as words 12 and 13 of their states.
struct Counters {
    v32 low, high;

    INLINE explicit Counters(uint64_t first) {
        v32 steps;
        for (int i = 0; i < LANES; i++) steps[i] = uint32_t(i);
        low = all(uint32_t(first)) + steps;
        high = all(uint32_t(first >> 32)) - v32(low < steps);
    }
};

// Word w of the stream's next LANES blocks, in x[w].
INLINE void rounds(const uint8_t* key, uint64_t lane, const Counters& at, v32* x) {
    uint32_t k[8];
    __builtin_memcpy(k, key, sizeof k);
    const uint32_t sigma[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    v32 s0 = all(sigma[0]), s1 = all(sigma[1]), s2 = all(sigma[2]), s3 = all(sigma[3]);
    v32 s4 = all(k[0]), s5 = all(k[1]), s6 = all(k[2]), s7 = all(k[3]);
    v32 s8 = all(k[4]), s9 = all(k[5]), s10 = all(k[6]), s11 = all(k[7]);
    v32 s12 = at.low, s13 = at.high, s14 = all(uint32_t(lane)), s15 = all(uint32_t(lane >> 32));
    for (int i = 0; i < 10; i++) {
        quarter(s0, s4, s8, s12);
        quarter(s1, s5, s9, s13);
        quarter(s2, s6, s10, s14);
        quarter(s3, s7, s11, s15);
        quarter(s0, s5, s10, s15);
        quarter(s1, s6, s11, s12);
        quarter(s2, s7, s8, s13);
        quarter(s3, s4, s9, s14);
    }
    x[0] = s0 + sigma[0], x[1] = s1 + sigma[1], x[2] = s2 + sigma[2], x[3] = s3 + sigma[3];
    x[4] = s4 + k[0], x[5] = s5 + k[1], x[6] = s6 + k[2], x[7] = s7 + k[3];
    x[8] = s8 + k[4], x[9] = s9 + k[5], x[10] = s10 + k[6], x[11] = s11 + k[7];
    x[12] = s12 + at.low, x[13] = s13 + at.high;
    x[14] = s14 + uint32_t(lane), x[15] = s15 + uint32_t(lane >> 32);
}

// Lane l of the result is lane order(l) of a and b, one behind the other.
template <class V, class Order>
INLINE V picked(V a, V b, Order order) {
    decltype(a < b) from;
    for (int l = 0; l < VB / int(sizeof a[0]); l++) from[l] = order(l);
    return __builtin_shuffle(a, b, from);
}

// In each 128 bits, lanes out of a and out of b by turns: of their lower halves (HIGH 0) or upper ones (1).
template <int HIGH, class V>
INLINE V alternating(V a, V b) {
    constexpr int TOTAL = VB / int(sizeof a[0]), EACH = 16 / int(sizeof a[0]);
    return picked(a, b, [](int l) { return l % 2 * TOTAL + l / EACH * EACH + HIGH * (EACH / 2) + l % EACH / 2; });
}

// The lower (HIGH 0) or upper (1) half of a, then that of b.
template <int HIGH>
INLINE v32 halves(v32 a, v32 b) {
    return picked(a, b, [](int l) { return l / (LANES / 2) * (LANES / 2) + l + HIGH * (LANES / 2); });
}

// Of the 128 bits in a and b each second: the first, third ... (ODD 0) or the others (1).
template <int ODD>
INLINE v32 every_other(v32 a, v32 b) {
    return picked(a, b, [](int l) { return l / 4 * 8 + ODD * 4 + l % 4; });
}

// From words in registers (destroyed) to the order of the stream: put(offset in the group, the VB bytes there) for all.
template <class Put>
INLINE void in_order(v32* x, Put put) {
    // Four words of one block into 128 bits: those of block 4 q + i into quarter q of x[4 j + i], j = word / 4.
    for (int j = 0; j < 16; j += 4) {
        const v64 a = v64(alternating<0>(x[j], x[j + 1])), b = v64(alternating<1>(x[j], x[j + 1]));
        const v64 c = v64(alternating<0>(x[j + 2], x[j + 3])), d = v64(alternating<1>(x[j + 2], x[j + 3]));
        x[j] = v32(alternating<0>(a, c)), x[j + 1] = v32(alternating<1>(a, c));
        x[j + 2] = v32(alternating<0>(b, d)), x[j + 3] = v32(alternating<1>(b, d));
    }
    for (int i = 0; i < 4; i++) {
        const auto give = [&](int block, int part, v32 words) { put(block * BLOCK_BYTES + part * VB, words); };
        if constexpr (LANES == 4) {
            for (int j = 0; j < 4; j++) give(i, j, x[4 * j + i]);
        } else if constexpr (LANES == 8) {
            for (int part = 0; part < 2; part++) {
                give(i, part, halves<0>(x[8 * part + i], x[8 * part + 4 + i]));
                give(4 + i, part, halves<1>(x[8 * part + i], x[8 * part + 4 + i]));
            }
        } else {
            const v32 a = halves<0>(x[i], x[4 + i]), b = halves<0>(x[8 + i], x[12 + i]);
            const v32 c = halves<1>(x[i], x[4 + i]), d = halves<1>(x[8 + i], x[12 + i]);
            give(i, 0, every_other<0>(a, b)), give(4 + i, 0, every_other<1>(a, b));
            give(8 + i, 0, every_other<0>(c, d)), give(12 + i, 0, every_other<1>(c, d));
        }
    }
}

// The same into to[GROUP_BYTES], any alignment.
INLINE void put_in_order(v32* x, char* to) {
    in_order(x, [to](int64_t offset, v32 words) { store(to + offset, words); });
}

// Walks over the groups that hold stream bytes [first, first + count): work(group's block, offset in the group, bytes).
template <class Work>
INLINE void each_group(uint64_t first, int64_t count, Work work) {
    uint64_t block = first / BLOCK_BYTES;
    int64_t offset = int64_t(first % BLOCK_BYTES);
    while (count > 0) {
        const int64_t bytes = count < GROUP_BYTES - offset ? count : GROUP_BYTES - offset;
        work(block, offset, bytes);
        count -= bytes, offset = 0, block += LANES;
    }
}

void keystream(const uint8_t* key, uint64_t lane, uint64_t first, char* to, int64_t count) {
    each_group(first, count, [&](uint64_t block, int64_t offset, int64_t bytes) {
        alignas(64) v32 x[16];
        rounds(key, lane, Counters(block), x);
        if (bytes == GROUP_BYTES) {
            put_in_order(x, to);
        } else {
            alignas(64) char whole[GROUP_BYTES];
            put_in_order(x, whole);
            std::memcpy(to, whole + offset, size_t(bytes));
        }
        to += bytes;
    });
}

}  // namespace
}  // namespace shoal
