// Codes that cannot be summed: the nearest centroid after rotation; levels of a run's largest magnitude without.
#pragma once
#include "level_rounding.h"

namespace shoal {
namespace {

constexpr double TINY_RMS = 0x1p-120;  // reference_coding.TINY_RMS

// Values of a table of 2**BITS floats; indices are within it.
template <int BITS>
INLINE vf picked(const float* table, vi index) {
#if defined(__AVX512F__)
    if constexpr (BITS <= 4) return _mm512_permutexvar_ps(bits_as<__m512i>(index), load<vf>(table));
#elif defined(__AVX2__)
    if constexpr (BITS <= 3) return _mm256_permutevar8x32_ps(load<vf>(table), bits_as<__m256i>(index));
    if constexpr (BITS == 4) {
        const vf low = _mm256_permutevar8x32_ps(load<vf>(table), bits_as<__m256i>(index));
        const vf high = _mm256_permutevar8x32_ps(load<vf>(table + 8), bits_as<__m256i>(index));
        return index > 7 ? high : low;
    }
#endif
    return gathered(table, index);
}

// What is in `under` at the bucket that a place lies in.
template <int BITS>
INLINE vi under_bucket(const Codebook& book, vi bucket) {
#if defined(__AVX512F__)
    if constexpr (BITS <= 4) {
        static_assert(Codebook::FEW_BUCKETS == 2 * LF);
        const __m512i low = load<__m512i>(book.under), high = load<__m512i>(book.under + LF);
        return bits_as<vi>(_mm512_permutex2var_epi32(low, bits_as<__m512i>(bucket), high));
    }
#endif
    return gathered(book.under, bucket);
}

template <int BITS>
INLINE vi below_by_buckets(const Codebook& book, vf z) {
    constexpr float last = float((BITS == 8 ? Codebook::BUCKETS : Codebook::FEW_BUCKETS) - 1);
    vf place = (z - book.low) * book.per_unit;
    place = place > 0.0f ? place : vf{};
    place = place < last ? place : every(last);
    vi code = under_bucket<BITS>(book, to_int(place));
    for (int32_t i = 0; i < book.most; i++) code -= z > picked<BITS>(book.boundaries, code);
    return code;
}

// The number of boundaries below each lane of z.  FEW: at most one of them in a bucket.
template <int BITS, bool FEW>
INLINE vi below(const Codebook& book, vf z) {
#if defined(__AVX512F__)
    if constexpr (BITS == 4 && FEW) return below_by_buckets<BITS>(book, z);
#endif
    if constexpr (BITS <= 4) {
        vi code{};
#pragma GCC unroll 15
        for (int i = 0; i < (1 << BITS) - 1; i++) code -= z > book.boundaries[i];
        return code;
    } else {
        return below_by_buckets<BITS>(book, z);
    }
}

template <int BITS, bool FEW = false>
float encode_bits(float* z, int64_t size, float unit, const Codebook& book, uint8_t* codes) {
    Sum squares;
    for (int64_t k = 0; k < size; k += 16)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS_OF_16; part++) {
            const vf x = load<vf>(z + k + part * LF) * unit;
            squares.add(part, x, x);
            store(z + k + part * LF, x);
        }
    const double total = squares.folded(), rms = __builtin_sqrt(total / double(size));
    const vf inverse = every(rms >= TINY_RMS ? float(1 / rms) : 0.0f);
    Sum dot;
    for (int64_t k = 0; k < size; k += 16)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS_OF_16; part++) {
            const int64_t at = k + part * LF;
            const vf x = load<vf>(z + at);
            const vi code = below<BITS, FEW>(book, x * inverse);
            dot.add(part, x, picked<BITS>(book.centroids, code));
            store(codes + at, low_bytes(code));
        }
    if (rms >= TINY_RMS) return float(total / dot.folded());
    return rms < TINY_RMS ? 0.0f : __builtin_nanf("");
}

float encode_codes(float* z, int log, const Codebook& book, uint8_t* codes) {
    const int64_t size = int64_t(1) << log;
    const float unit = scale_of(log);
    switch (book.bits) {
        case 1:
            return encode_bits<1>(z, size, unit, book, codes);
        case 2:
            return encode_bits<2>(z, size, unit, book, codes);
        case 3:
            return encode_bits<3>(z, size, unit, book, codes);
        case 4:
            return (book.most <= 1 ? encode_bits<4, true> : encode_bits<4>)(z, size, unit, book, codes);
        default:
            return encode_bits<8>(z, size, unit, book, codes);
    }
}

template <int BITS>
void decode_bits(const uint8_t* codes, int64_t size, const Codebook& book, float scale, float* r) {
    alignas(64) float values[256];
    for (int i = 0; i < 1 << BITS; i++) values[i] = book.centroids[i] * scale;
    for (int64_t at = 0; at < size; at += LF)
        store(r + at, picked<BITS>(values, widened(load<vb>(codes + at)) & ((1 << BITS) - 1)));
}

void decode_codes(const uint8_t* codes, int log, const Codebook& book, float scale, float* z) {
    const int64_t size = int64_t(1) << log, near = near_size(log);
    for (int64_t begin = 0; begin < size; begin += near) {
        (book.bits == 8 ? decode_bits<8> : decode_bits<4>)(codes + begin, near, book, scale, z + begin);
        near_spans(Plain{z}, log, begin, z);
    }
}

template <int BITS>
void pack_bits(const uint8_t* codes, int64_t count, char* to) {
    for (int64_t at = 0; at < count; at += 8 * LD) {
        const vw x = squeezed<8, BITS>(load<vw>(codes + at));
        for (int i = 0; i < LD; i++, to += BITS) {
            const uint64_t word = x[i];
            __builtin_memcpy(to, &word, 8);
        }
    }
}

void pack_codes(const uint8_t* codes, int64_t count, int bits, char* to) {
    switch (bits) {
        case 1:
            return pack_bits<1>(codes, count, to);
        case 2:
            return pack_bits<2>(codes, count, to);
        case 3:
            return pack_bits<3>(codes, count, to);
        case 4:
            return pack_bits<4>(codes, count, to);
        default:
            copy_bytes(to, codes, count);
    }
}

template <int BITS>
void unpack_bits(const char* from, int64_t count, uint8_t* codes) {
    for (int64_t at = 0; at < count; at += 8 * LD, from += BITS * LD) {
        vw x{};
        for (int i = 0; i < LD; i++) {
            uint64_t word = 0;
            __builtin_memcpy(&word, from + i * BITS, BITS);
            x[i] = word;
        }
        store(codes + at, spread<8, BITS>(x));
    }
}

void unpack_codes(const char* from, int64_t count, int bits, uint8_t* codes) {
    switch (bits) {
        case 1:
            return unpack_bits<1>(from, count, codes);
        case 2:
            return unpack_bits<2>(from, count, codes);
        case 3:
            return unpack_bits<3>(from, count, codes);
        case 4:
            return unpack_bits<4>(from, count, codes);
        default:
            copy_bytes(codes, from, count);
    }
}

// Not negative floats are ordered as their bits are, NaN above all.
float absmax(const float* x, int64_t count) {
    vi largest{};
    int64_t at = 0;
    for (; at + LF <= count; at += LF) {
        const vi bits = load<vi>(x + at) & INT32_MAX;
        largest = bits > largest ? bits : largest;
    }
    int32_t most = 0;
    for (int i = 0; i < LF; i++) most = largest[i] > most ? largest[i] : most;
    for (; at < count; at++) {
        const int32_t bits = bits_as<int32_t>(x[at]) & INT32_MAX;
        most = bits > most ? bits : most;
    }
    return bits_as<float>(most);
}

// To nearest even: adding 1.5 * 2**23 leaves no bits behind the point; |x| < 2**22.
template <class F>
INLINE F nearest_whole(F x) {
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

void quantise_absmax(const float* x, int64_t count, float levels, float scale, int8_t* q) {
    if (!(scale > 0)) {
        for (int64_t i = 0; i < count; i++) q[i] = 0;
        return;
    }
    const vf most = every(levels);
    int64_t at = 0;
    for (; at + LF <= count; at += LF) {
        vf v = load<vf>(x + at) / scale;
        v = v > -most ? v : -most;
        v = v < most ? v : most;
        store(q + at, low_bytes(to_int(nearest_whole(v))));
    }
    for (; at < count; at++) {
        float v = x[at] / scale;
        v = v > -levels ? v : -levels;
        v = v < levels ? v : levels;
        q[at] = int8_t(nearest_whole(v));
    }
}

void dequantise_run(const int8_t* q, int64_t count, float scale, const float* base, float* out) {
    int64_t at = 0;
    for (; at + LF <= count; at += LF) {
        vf v = __builtin_convertvector(widened(load<vb>(q + at)), vf) * scale;
        if (base) v = load<vf>(base + at) + v;
        store(out + at, v);
    }
    for (; at < count; at++) {
        const float v = float(q[at]) * scale;
        out[at] = base ? base[at] + v : v;
    }
}

}  // namespace
}  // namespace shoal

#define SHOAL_CODING_TABLE               \
    {.rotate = rotate,                   \
     .finish = finish,                   \
     .quantise8 = quantise<int8_t>,      \
     .quantise16 = quantise<int16_t>,    \
     .quantise32 = quantise<int32_t>,    \
     .dequantise8 = dequantise<8>,       \
     .dequantise12 = dequantise<12>,     \
     .dequantise16 = dequantise<16>,     \
     .dequantise32 = dequantise<32>,     \
     .pack12 = pack12,                   \
     .unpack12 = unpack12,               \
     .encode_codes = encode_codes,       \
     .decode_codes = decode_codes,       \
     .pack_codes = pack_codes,           \
     .unpack_codes = unpack_codes,       \
     .absmax = absmax,                   \
     .quantise_absmax = quantise_absmax, \
     .dequantise = dequantise_run}
