// Sums of ring words, and of the words that checks choose, at one level.  Included by level_ring.h only.
#pragma once
#include <type_traits>

#include "level_packing.h"

namespace shoal {
namespace {

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
    int64_t i = 0;
    for (; i + WORDS12 <= count; i += WORDS12) {
        v16 total = unpack12(inputs[0] + wire_bytes(i, 12));
        for (int64_t k = 1; k < n; k++) total += unpack12(inputs[k] + wire_bytes(i, 12));
        pack12(total, out + wire_bytes(i, 12));
    }
    if (i < count) {
        v16 total = {};
        for (int64_t k = 0; k < n; k++) total += unpack12_end(inputs[k] + wire_bytes(i, 12), count - i);
        pack12_end(total, out + wire_bytes(i, 12), count - i);
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

// values[count]: the words, for rings of up to 16 bits (BITS) each in both halves of its value; bits above the ring's
// mean nothing.
template <int BITS>
INLINE void values_of(const char* words, int64_t count, uint32_t* values) {
    if constexpr (BITS == 8) {
        for (int64_t i = 0; i < count; i++) values[i] = uint8_t(words[i]) * 0x10001u;
    } else if constexpr (BITS == 12) {
        for (int64_t i = 0; i < count; i += WORDS12) {
            const int64_t now = count - i < WORDS12 ? count - i : WORDS12;
            const char* from = words + wire_bytes(i, 12);
            const v16 some = now == WORDS12 ? unpack12(from) : unpack12_end(from, now);
            alignas(64) uint16_t apart[WORDS12];
            store(apart, some);
            for (int64_t j = 0; j < now; j++) values[i + j] = apart[j] * 0x10001u;
        }
    } else if constexpr (BITS == 16) {
        for (int64_t i = 0; i < count; i++) values[i] = load<uint16_t>(words + i * 2) * 0x10001u;
    } else {
        std::memcpy(values, words, size_t(count) * 4);
    }
}

// sums[r] = sum of the values whose choice has bit r; in lanes of 16 bits (T), each value being a word twice, or of 32.
template <class T>
INLINE void sum_chosen(const uint32_t* choices, const uint32_t* values, int64_t count, uint64_t* sums) {
#if defined(__AVX512BW__)
    alignas(64) T found[CHECKS];
    __m512i low = _mm512_setzero_si512(), high = low;
    for (int64_t i = 0; i < count; i++) {
        const __m512i value = _mm512_set1_epi32(int(values[i]));
        if constexpr (sizeof(T) == 2) {
            low = _mm512_mask_add_epi16(low, choices[i], low, value);
        } else {
            low = _mm512_mask_add_epi32(low, __mmask16(choices[i]), low, value);
            high = _mm512_mask_add_epi32(high, __mmask16(choices[i] >> 16), high, value);
        }
    }
    _mm512_store_si512(found, low);
    if constexpr (sizeof(T) == 4) _mm512_store_si512(found + 16, high);
    for (int r = 0; r < CHECKS; r++) sums[r] += found[r];
#else
    typedef T Row __attribute__((vector_size(VB)));
    constexpr int WIDTH = VB / int(sizeof(T)), ROWS = CHECKS / WIDTH;
    // Lanes of 16 bits: even ones see the low half of a choice, odd ones the high half.
    const auto check_of = [](int row, int lane) {
        return sizeof(T) == 4 ? row * WIDTH + lane : lane % 2 * 16 + row * (WIDTH / 2) + lane / 2;
    };
    Row total[ROWS] = {}, bit[ROWS];
    for (int row = 0; row < ROWS; row++)
        for (int l = 0; l < WIDTH; l++) bit[row][l] = T(1u << check_of(row, l) % (8 * int(sizeof(T))));
    for (int64_t i = 0; i < count; i++) {
        const Row choice = Row(all(choices[i])), value = Row(all(values[i]));
        for (int row = 0; row < ROWS; row++) total[row] += Row((choice & bit[row]) == bit[row]) & value;
    }
    for (int row = 0; row < ROWS; row++)
        for (int l = 0; l < WIDTH; l++) sums[check_of(row, l)] += total[row][l];
#endif
}

// For the few words of 64 bits of a slot's statistics.
INLINE void sum_chosen64(const uint32_t* choices, const char* words, int64_t count, uint64_t* sums) {
    for (int64_t i = 0; i < count; i++) {
        const uint64_t word = load<uint64_t>(words + i * 8);
        for (int r = 0; r < CHECKS; r++) sums[r] += -uint64_t(choices[i] >> r & 1) & word;
    }
}

template <int BITS>
void check_words(const char* words, const uint8_t* key, uint64_t lane, uint64_t first, int64_t count, uint64_t* sums) {
    constexpr int64_t PIECE = 1024;
    alignas(64) uint32_t choices[PIECE], values[PIECE];
    for (int64_t done = 0; done < count; done += PIECE) {
        const int64_t some = count - done < PIECE ? count - done : PIECE;
        const char* from = words + wire_bytes(done, BITS);
        keystream(key, lane, (first + uint64_t(done)) * 4, reinterpret_cast<char*>(choices), some * 4);
        if constexpr (BITS == 64) {
            sum_chosen64(choices, from, some, sums);
        } else {
            values_of<BITS>(from, some, values);
            sum_chosen<std::conditional_t<BITS == 32, uint32_t, uint16_t>>(choices, values, some, sums);
        }
    }
}

void check_sums(const char* words, int bits, const uint8_t* key, uint64_t lane, uint64_t first, int64_t count,
                uint64_t* sums) {
    switch (bits) {
        case 8:
            return check_words<8>(words, key, lane, first, count, sums);
        case 12:
            return check_words<12>(words, key, lane, first, count, sums);
        case 16:
            return check_words<16>(words, key, lane, first, count, sums);
        case 32:
            return check_words<32>(words, key, lane, first, count, sums);
        default:
            return check_words<64>(words, key, lane, first, count, sums);
    }
}

}  // namespace
}  // namespace shoal
