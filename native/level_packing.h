// Words of 12 bits: two in three bytes on the wire, 16 bits each in a register.  Included by level_ring.h only.
#pragma once
#include "level_cipher.h"

namespace shoal {
namespace {

constexpr int64_t WORDS12 = VB / 2;           // in a register
constexpr int64_t BYTES12 = WORDS12 * 3 / 2;  // that they take on the wire

#if defined(__AVX2__)
// In each 128 bits: 12 bytes -> eight words, each in the two bytes that hold it (odd ones four bits too high); and
// back, from four numbers of 24 bits.
#    define SHOAL_APART12 11, 10, 10, 9, 8, 7, 7, 6, 5, 4, 4, 3, 2, 1, 1, 0
#    define SHOAL_TOGETHER12 -1, -1, -1, -1, 14, 13, 12, 10, 9, 8, 6, 5, 4, 2, 1, 0
#endif

// Words from[BYTES12] in lanes of 16 bits, of which the upper four mean nothing.
INLINE v16 unpack12(const char* from) {
#if defined(__AVX512BW__)
    const __m512i spread = _mm512_permutexvar_epi32(_mm512_set_epi32(11, 11, 10, 9, 8, 8, 7, 6, 5, 5, 4, 3, 2, 2, 1, 0),
                                                    _mm512_maskz_loadu_epi32(0x0FFF, from));
    const __m512i apart = _mm512_shuffle_epi8(spread, _mm512_broadcast_i32x4(_mm_set_epi8(SHOAL_APART12)));
    return v16(_mm512_mask_srli_epi16(apart, 0xAAAAAAAA, apart, 4));
#elif defined(__AVX2__)
    const __m256i spread = _mm256_permutevar8x32_epi32(
        _mm256_maskload_epi32(reinterpret_cast<const int*>(from), _mm256_set_epi32(0, 0, -1, -1, -1, -1, -1, -1)),
        _mm256_set_epi32(5, 5, 4, 3, 2, 2, 1, 0));
    const __m256i apart = _mm256_shuffle_epi8(spread, _mm256_broadcastsi128_si256(_mm_set_epi8(SHOAL_APART12)));
    return v16(_mm256_blend_epi16(apart, _mm256_srli_epi16(apart, 4), 0xAA));
#else
    const uint64_t low = load<uint64_t>(from), high = load<uint32_t>(from + 8);
    v64 x = {low, low >> 48 | high << 16};
    x = (x & 0xFFFFFF) | (x & 0xFFFFFF000000) << 8;
    return v16((x & 0x00000FFF00000FFF) | (x & 0x00FFF00000FFF000) << 4);
#endif
}

// The low 12 bits of each lane to to[BYTES12].
INLINE void pack12(v16 x, char* to) {
#if defined(__AVX512BW__)
    const __m512i pairs = _mm512_madd_epi16(__m512i(x & 0x0FFF), _mm512_set1_epi32(4096 << 16 | 1));
    const __m512i together = _mm512_shuffle_epi8(pairs, _mm512_broadcast_i32x4(_mm_set_epi8(SHOAL_TOGETHER12)));
    const __m512i dense =
        _mm512_permutexvar_epi32(_mm512_set_epi32(3, 3, 3, 3, 14, 13, 12, 10, 9, 8, 6, 5, 4, 2, 1, 0), together);
    _mm512_mask_storeu_epi32(to, 0x0FFF, dense);
#elif defined(__AVX2__)
    const __m256i pairs = _mm256_madd_epi16(__m256i(x & 0x0FFF), _mm256_set1_epi32(4096 << 16 | 1));
    const __m256i together = _mm256_shuffle_epi8(pairs, _mm256_broadcastsi128_si256(_mm_set_epi8(SHOAL_TOGETHER12)));
    const __m256i dense = _mm256_permutevar8x32_epi32(together, _mm256_set_epi32(3, 3, 6, 5, 4, 2, 1, 0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(dense));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 16), _mm256_extracti128_si256(dense, 1));
#else
    v64 both = v64(x);
    both = (both & 0x00000FFF00000FFF) | (both & 0x0FFF00000FFF0000) >> 4;
    both = (both & 0xFFFFFF) | (both & 0x00FFFFFF00000000) >> 8;
    store(to, both[0] | both[1] << 48);
    store(to + 8, uint32_t(both[1] >> 16));
#endif
}

// The first `count` words of a register, count < WORDS12 and even, without touching bytes beyond them.
INLINE v16 unpack12_end(const char* from, int64_t count) {
    alignas(64) char end[BYTES12] = {};
    std::memcpy(end, from, size_t(count * 3 / 2));
    return unpack12(end);
}

INLINE void pack12_end(v16 x, char* to, int64_t count) {
    alignas(64) char end[BYTES12];
    pack12(x, end);
    std::memcpy(to, end, size_t(count * 3 / 2));
}

}  // namespace
}  // namespace shoal
