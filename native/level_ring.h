// The ring kernels of one level.  Included by the ring_*.cpp files only; SHOAL_VECTOR_BYTES says how wide a register
// is.
//
// A group is as many ChaCha20 blocks as a register has 32-bit lanes.  All streams of one call are at the same counters,
// so their words are added up as they come out of the rounds (word w of all blocks in register w), and put into the
// order of the stream only once for a group, however many streams there are.
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
constexpr int LANES = VB / 4;                         // blocks in a group
constexpr int64_t GROUP_BYTES = LANES * BLOCK_BYTES;  // of a stream
constexpr int PARTS = 16 / LANES;                     // registers that hold one block in stream order
constexpr uint64_t LOW12 = 0x0FFF0FFF0FFF0FFF;        // of each of four fields of 16 bits

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

template <int S>
INLINE void swap_halves(v32& a, v32& b) {
    v32 first, second;
    for (int l = 0; l < LANES; l++) {
        first[l] = uint32_t((l & S) ? LANES + l - S : l);
        second[l] = uint32_t((l & S) ? LANES + l : l + S);
    }
    const v32 top = __builtin_shuffle(a, b, first);
    b = __builtin_shuffle(a, b, second);
    a = top;
}

template <int S>
INLINE void transpose_from(v32* x) {
    if constexpr (S < LANES) {
        for (int i = 0; i < LANES; i++)
            if (!(i & S)) swap_halves<S>(x[i], x[i + S]);
        transpose_from<S * 2>(x);
    }
}

// From words in registers to the order of the stream: to[GROUP_BYTES], any alignment.
INLINE void put_in_order(v32* x, char* to) {
    for (int part = 0; part < PARTS; part++) {
        transpose_from<1>(x + part * LANES);
        for (int block = 0; block < LANES; block++)
            store(to + block * BLOCK_BYTES + part * VB, x[part * LANES + block]);
    }
}

// x += or -= y, in lanes of W.
template <class W>
INLINE v32 added(v32 x, v32 y, bool plus) {
    return plus ? v32(W(x) + W(y)) : v32(W(x) - W(y));
}

// The sum of all masks over one group, in the order of the stream.
template <class W>
INLINE void masks_of_group(const Masks& masks, uint64_t lane, uint64_t block, char* to) {
    const Counters at(block);
    alignas(64) v32 total[16] = {};
    for (int64_t i = 0; i < masks.count; i++) {
        alignas(64) v32 x[16];
        rounds(masks.keys + i * KEY_BYTES, lane, at, x);
        const bool plus = masks.signs[i] > 0;
        if constexpr (sizeof(W{}[0]) == 8) {
            // Neighbouring words make one number: only in the order of the stream.
            alignas(64) char ordered[GROUP_BYTES];
            put_in_order(x, ordered);
            for (int w = 0; w < 16; w++) total[w] = added<W>(total[w], load<v32>(ordered + w * VB), plus);
        } else {
            for (int w = 0; w < 16; w++) total[w] = added<W>(total[w], x[w], plus);
        }
    }
    if constexpr (sizeof(W{}[0]) == 8)
        __builtin_memcpy(to, total, GROUP_BYTES);
    else
        put_in_order(total, to);
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

// --- 12 bits: two words in three bytes; four at a time in the fields of a 64-bit number ------------------------------

INLINE uint64_t spread12(const char* from, int64_t words) {
    uint64_t x = 0;
    __builtin_memcpy(&x, from, words == 4 ? 6 : 3);
    x = (x & 0xFFFFFF) | (x & 0xFFFFFF000000) << 8;
    return (x & 0x00000FFF00000FFF) | (x & 0x00FFF00000FFF000) << 4;
}

INLINE void pack12(uint64_t x, char* to, int64_t words) {
    x = (x & 0x00000FFF00000FFF) | (x & 0x0FFF00000FFF0000) >> 4;
    x = (x & 0xFFFFFF) | (x & 0x00FFFFFF00000000) >> 8;
    __builtin_memcpy(to, &x, words == 4 ? 6 : 3);
}

template <class W>
void add_masks(const char* words, const Masks& masks, uint64_t lane, uint64_t first, int64_t bytes, char* out) {
    each_group(first, bytes, [&](uint64_t block, int64_t offset, int64_t some) {
        alignas(64) char total[GROUP_BYTES];
        masks_of_group<W>(masks, lane, block, total);
        int64_t b = 0;
        for (; b + VB <= some; b += VB) store(out + b, v32(load<W>(words + b) + load<W>(total + offset + b)));
        if (b < some) {  // a ragged end: bytes beyond it are zero, and dropped
            alignas(64) char end[VB] = {};
            std::memcpy(end, words + b, size_t(some - b));
            alignas(64) char mask[VB] = {};
            std::memcpy(mask, total + offset + b, size_t(some - b));
            store(end, v32(load<W>(end) + load<W>(mask)));
            std::memcpy(out + b, end, size_t(some - b));
        }
        words += some, out += some;
    });
}

// `first` and `bytes` count the stream's two bytes for each word; groups may split a pair of words, so they are joined
// in a buffer that holds some groups.
void add_masks12(const char* words, const Masks& masks, uint64_t lane, uint64_t first, int64_t count, char* out) {
    constexpr int64_t PIECE = 2048;  // words
    alignas(64) char stream[PIECE * 2 + 2 * GROUP_BYTES];
    for (int64_t done = 0; done < count; done += PIECE) {
        const int64_t some = count - done < PIECE ? count - done : PIECE;
        const uint64_t at = (first + uint64_t(done)) * 2;
        char* to = stream;
        int64_t skipped = 0;
        each_group(at, some * 2, [&](uint64_t block, int64_t offset, int64_t) {
            if (to == stream) skipped = offset;
            masks_of_group<v16>(masks, lane, block, to);
            to += GROUP_BYTES;
        });
        const char* mask = stream + skipped;
        for (int64_t i = 0; i < some; i += 4) {
            const int64_t now = some - i < 4 ? some - i : 4;
            const uint64_t m = now == 4 ? load<uint64_t>(mask + i * 2) : load<uint32_t>(mask + i * 2);
            const int64_t byte = (done + i) * 3 / 2;
            pack12(spread12(words + byte, now) + (m & LOW12), out + byte, now);
        }
    }
}

void add_streams(const char* words, int bits, const Masks& masks, uint64_t lane, uint64_t first, int64_t count,
                 char* out) {
    const uint64_t from = bits == 12 ? first : first * uint64_t(bits / 8);
    const int64_t bytes = stream_bytes(count, bits);
    switch (bits) {
        case 8:
            return add_masks<v8>(words, masks, lane, from, bytes, out);
        case 12:
            return add_masks12(words, masks, lane, first, count, out);
        case 16:
            return add_masks<v16>(words, masks, lane, from, bytes, out);
        case 32:
            return add_masks<v32>(words, masks, lane, from, bytes, out);
        default:
            return add_masks<v64>(words, masks, lane, from, bytes, out);
    }
}

// --- sums ------------------------------------------------------------------------------------------------------------

template <class W>
void sum_bytes(const char* const* inputs, int64_t n, int64_t bytes, char* out) {
    constexpr int64_t ROW = 4 * VB;
    int64_t b = 0;
    for (; b + ROW <= bytes; b += ROW) {
        W total[4];
        for (int i = 0; i < 4; i++) total[i] = load<W>(inputs[0] + b + i * VB);
        for (int64_t k = 1; k < n; k++)
            for (int i = 0; i < 4; i++) total[i] += load<W>(inputs[k] + b + i * VB);
        for (int i = 0; i < 4; i++) store(out + b + i * VB, total[i]);
    }
    for (; b < bytes;) {
        const int64_t some = bytes - b < VB ? bytes - b : VB;
        W total = {};
        for (int64_t k = 0; k < n; k++) {
            alignas(64) char end[VB] = {};
            std::memcpy(end, inputs[k] + b, size_t(some));
            total += load<W>(end);
        }
        alignas(64) char end[VB];
        store(end, total);
        std::memcpy(out + b, end, size_t(some));
        b += some;
    }
}

void sum12(const char* const* inputs, int64_t n, int64_t count, char* out) {
    for (int64_t i = 0; i < count; i += 4) {
        const int64_t now = count - i < 4 ? count - i : 4, byte = i * 3 / 2;
        uint64_t total = 0;
        for (int64_t k = 0; k < n; k++) {
            total += spread12(inputs[k] + byte, now);
            if (k % 15 == 14) total &= LOW12;  // fields of 16 bits hold the sum of 16 words
        }
        pack12(total, out + byte, now);
    }
}

void sum_words(const char* const* inputs, int64_t n, int bits, int64_t count, char* out) {
    const int64_t bytes = wire_bytes(count, bits);
    switch (bits) {
        case 8:
            return sum_bytes<v8>(inputs, n, bytes, out);
        case 12:
            return sum12(inputs, n, count, out);
        case 16:
            return sum_bytes<v16>(inputs, n, bytes, out);
        case 32:
            return sum_bytes<v32>(inputs, n, bytes, out);
        default:
            return sum_bytes<v64>(inputs, n, bytes, out);
    }
}

// --- checks ----------------------------------------------------------------------------------------------------------

INLINE uint64_t word_at(const char* words, int bits, int64_t i) {
    switch (bits) {
        case 8:
            return uint8_t(words[i]);
        case 12: {
            const char* three = words + i / 2 * 3;
            const uint32_t both =
                uint8_t(three[0]) | uint32_t(uint8_t(three[1])) << 8 | uint32_t(uint8_t(three[2])) << 16;
            return i % 2 ? both >> 12 : both & 0xFFF;
        }
        case 16:
            return load<uint16_t>(words + i * 2);
        case 32:
            return load<uint32_t>(words + i * 4);
        default:
            return load<uint64_t>(words + i * 8);
    }
}

// Sums modulo 2^32, enough for rings up to 32 bits.
INLINE void sum_chosen(const uint32_t* chosen, const uint32_t* words, int64_t count, uint32_t* sums) {
#if defined(__AVX512F__)
    __m512i low = _mm512_setzero_si512(), high = low;
    for (int64_t i = 0; i < count; i++) {
        const __m512i word = _mm512_set1_epi32(int(words[i]));
        low = _mm512_mask_add_epi32(low, __mmask16(chosen[i]), low, word);
        high = _mm512_mask_add_epi32(high, __mmask16(chosen[i] >> 16), high, word);
    }
    _mm512_storeu_si512(sums, low);
    _mm512_storeu_si512(sums + 16, high);
#else
    constexpr int ROWS = CHECKS / LANES;
    v32 total[ROWS] = {}, bit[ROWS];
    for (int r = 0; r < CHECKS; r++) bit[r / LANES][r % LANES] = uint32_t(1) << r;
    for (int64_t i = 0; i < count; i++) {
        const v32 choice = all(chosen[i]), word = all(words[i]);
        for (int row = 0; row < ROWS; row++) total[row] += v32((choice & bit[row]) == bit[row]) & word;
    }
    __builtin_memcpy(sums, total, sizeof total);
#endif
}

void check_sums(const char* words, int bits, const uint8_t* key, uint64_t lane, uint64_t first, int64_t count,
                uint64_t* sums) {
    constexpr int64_t PIECE = 1024;
    alignas(64) uint32_t chosen[PIECE], values[PIECE], found[CHECKS];
    for (int64_t done = 0; done < count; done += PIECE) {
        const int64_t some = count - done < PIECE ? count - done : PIECE;
        keystream(key, lane, (first + uint64_t(done)) * 4, reinterpret_cast<char*>(chosen), some * 4);
        if (bits == 64) {
            for (int64_t i = 0; i < some; i++)
                for (int r = 0; r < CHECKS; r++)
                    sums[r] += -uint64_t(chosen[i] >> r & 1) & word_at(words, 64, done + i);
            continue;
        }
        for (int64_t i = 0; i < some; i++) values[i] = uint32_t(word_at(words, bits, done + i));
        sum_chosen(chosen, values, some, found);
        for (int r = 0; r < CHECKS; r++) sums[r] += found[r];
    }
}

}  // namespace
}  // namespace shoal

#define SHOAL_RING_TABLE \
    {.keystream = keystream, .add_streams = add_streams, .sum_words = sum_words, .check_sums = check_sums}
