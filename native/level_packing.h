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

#if defined(__AVX512BW__)
// Dword l of four registers of words, as three registers of the wire hold them: 12 dwords of each, three in 128 bits,
// with the last of them again.  `from`: the dword of the wire that a begins with, b follows.
template <int REGISTER, int FROM>
INLINE v16 apart12(v32 a, v32 b) {
    const v32 spread = picked(a, b, [](int l) { return 12 * REGISTER - FROM + l / 4 * 3 + (l % 4 < 3 ? l % 4 : 2); });
    const __m512i apart = _mm512_shuffle_epi8(__m512i(spread), _mm512_broadcast_i32x4(_mm_set_epi8(SHOAL_APART12)));
    return v16(_mm512_mask_srli_epi16(apart, 0xAAAAAAAA, apart, 4));
}

// The low 12 bits of each lane, side by side in the first 96 bits of each 128.
INLINE v32 together12(v16 x) {
    const __m512i words = __m512i(x), odd = _mm512_srli_epi32(words, 4);
    const __m512i pairs = _mm512_ternarylogic_epi32(_mm512_set1_epi32(0x0FFF), words, odd, 0xCA);  // low ? words : odd
    return v32(_mm512_shuffle_epi8(pairs, _mm512_broadcast_i32x4(_mm_set_epi8(SHOAL_TOGETHER12))));
}

// Register WHICH of three for the wire: the end of a, which is register A of four, and the beginning of b.
template <int WHICH, int A>
INLINE v32 dense12(v32 a, v32 b) {
    return picked(a, b, [](int l) {
        const int at = 16 * WHICH + l - 12 * A;
        return at / 12 * LANES + at % 12 / 3 * 4 + at % 3;
    });
}

// out = words + masks, for four registers of masks: whole registers on the wire, which no mask makes slower, and of
// which none is read while the one before it is still on its way to memory.
INLINE void add_four12(const char* words, const v16* masks, char* out) {
    const v32 a = load<v32>(words), b = load<v32>(words + VB), c = load<v32>(words + 2 * VB);
    const v32 x0 = together12(apart12<0, 0>(a, a) + masks[0]), x1 = together12(apart12<1, 0>(a, b) + masks[1]);
    const v32 x2 = together12(apart12<2, 16>(b, c) + masks[2]), x3 = together12(apart12<3, 32>(c, c) + masks[3]);
    store(out, dense12<0, 0>(x0, x1));
    store(out + VB, dense12<1, 1>(x1, x2));
    store(out + 2 * VB, dense12<2, 2>(x2, x3));
}
#else
INLINE void add_four12(const char* words, const v16* masks, char* out) {
    for (int i = 0; i < 4; i++) pack12(unpack12(words + i * BYTES12) + masks[i], out + i * BYTES12);
}
#endif

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
