// The rotation of one block.  Butterflies of span 1, 2, 4, ... are taken several spans at a time in registers: every
// element passes the same additions in the same order, so the bits do not depend on the grouping.
#pragma once
#include "coding.h"
#include "level_vector.h"

namespace shoal {
namespace {

constexpr int LF = VB / 4;                    // floats in a register
constexpr int REGISTERS = VB == 64 ? 16 : 8;  // held by the first pass: half of what there is, or less
constexpr int NEAR_LOG = 12;                  // blocks of this size (16 KiB) stay in the nearest cache

typedef uint32_t vu __attribute__((vector_size(VB)));

constexpr uint32_t SIGN = 0x80000000;

INLINE vf every(float x) { return x - vf{}; }

// The sign bit for each lane whose bit is set; lane i is bit i of the bits from place `at` (a multiple of LF).
INLINE vu sign_lanes(const uint8_t* signs, int64_t at) {
#if defined(__AVX512F__)
    return bits_as<vu>(_mm512_maskz_set1_epi32(load<uint16_t>(signs + at / 8), int(SIGN)));
#elif defined(__AVX2__)
    constexpr vu up{31, 30, 29, 28, 27, 26, 25, 24};
    return (vu{} + signs[at / 8]) << up & SIGN;
#else
    constexpr vu bit{1, 2, 4, 8};
    const vu found = (vu{} + (uint32_t(signs[at / 8]) >> (at & 4))) & bit;
    return bits_as<vu>(found == bit) & SIGN;
#endif
}

INLINE vf flipped(vf x, vu sign) { return bits_as<vf>(bits_as<vu>(x) ^ sign); }

// Lanes i and i ^ D of one register: (a, b) -> (a + b, a - b).
template <int D>
INLINE vf lane_butterfly(vf x) {
    vi other{};
    vu minus{};
    for (int i = 0; i < LF; i++) {
        other[i] = i ^ D;
        minus[i] = i & D ? SIGN : 0;
    }
    return __builtin_shuffle(x, other) + flipped(x, minus);
}

// Registers i and i + D, for all stages D = FROM ... below N.
template <int N>
INLINE void register_butterflies(vf (&x)[N]) {
#pragma GCC unroll 4
    for (int d = 1; d < N; d *= 2)
#pragma GCC unroll 16
        for (int i = 0; i < N; i++)
            if (!(i & d)) {
                const vf a = x[i], b = x[i + d];
                x[i] = a + b;
                x[i + d] = a - b;
            }
}

// What the first pass reads: elements with their signs, or plain ones.
struct Signed {
    const float* x;
    const uint8_t* signs;
    INLINE vf operator()(int64_t at) const { return flipped(load<vf>(x + at), sign_lanes(signs, at)); }
};

struct SignedDifference {
    const float *x, *base;
    const uint8_t* signs;
    INLINE vf operator()(int64_t at) const {
        return flipped(load<vf>(x + at) - load<vf>(base + at), sign_lanes(signs, at));
    }
};

struct Plain {
    const float* x;
    INLINE vf operator()(int64_t at) const { return load<vf>(x + at); }
};

// Spans 1 ... N * LF / 2.
template <int N, class From>
INLINE void first_pass(const From& from, int64_t begin, int64_t end, float* z) {
    for (int64_t at = begin; at < end; at += N * LF) {
        vf x[N];
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) {
            vf v = lane_butterfly<2>(lane_butterfly<1>(from(at + i * LF)));
            if constexpr (LF > 4) v = lane_butterfly<4>(v);
            if constexpr (LF > 8) v = lane_butterfly<8>(v);
            x[i] = v;
        }
        register_butterflies(x);
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) store(z + at + i * LF, x[i]);
    }
}

// Spans span ... span * N / 2.
template <int N>
void more_spans(float* z, int64_t count, int64_t span) {
    for (float* part = z; part < z + count; part += N * span)
        for (int64_t at = 0; at < span; at += LF) {
            vf x[N];
#pragma GCC unroll 8
            for (int i = 0; i < N; i++) x[i] = load<vf>(part + i * span + at);
            register_butterflies(x);
#pragma GCC unroll 8
            for (int i = 0; i < N; i++) store(part + i * span + at, x[i]);
        }
}

// The spans from `span` on that `count` elements have.
INLINE void last_spans(float* z, int64_t count, int64_t span) {
    while (span < count) {
        const int64_t left = count / span;
        if (left == 2) {
            more_spans<2>(z, count, span);
            return;
        }
        // 4 + 4 rather than 8 + 2
        const bool four = left == 4 || left == 16;
        four ? more_spans<4>(z, count, span) : more_spans<8>(z, count, span);
        span *= four ? 4 : 8;
    }
}

template <class From>
void transform(const From& from, int log, float* z) {
    const int64_t size = int64_t(1) << log, near = size < (1 << NEAR_LOG) ? size : 1 << NEAR_LOG;
    constexpr int FEW = (1 << LOG_MIN) / LF < REGISTERS ? (1 << LOG_MIN) / LF : REGISTERS;
    for (int64_t begin = 0; begin < size; begin += near) {
        if (log == LOG_MIN) {
            first_pass<FEW>(from, begin, begin + near, z);
            last_spans(z + begin, near, FEW * LF);
        } else {
            first_pass<REGISTERS>(from, begin, begin + near, z);
            last_spans(z + begin, near, REGISTERS * LF);
        }
    }
    last_spans(z, size, near);
}

void rotate(const float* x, const float* base, int64_t there, const uint8_t* signs, int log, float* z) {
    const int64_t size = int64_t(1) << log;
    if (there < size) {
        for (int64_t i = 0; i < there; i++) z[i] = base ? x[i] - base[i] : x[i];
        for (int64_t i = there; i < size; i++) z[i] = 0;
        transform(Signed{z, signs}, log, z);
    } else if (base) {
        transform(SignedDifference{x, base, signs}, log, z);
    } else {
        transform(Signed{x, signs}, log, z);
    }
}

void butterflies(int log, float* z) { transform(Plain{z}, log, z); }

INLINE float scale_of(int log) { return 1.0f / float(1 << (log / 2)); }

void put(const float* z, int log, const uint8_t* signs, const float* base, int64_t there, float* out) {
    const int64_t size = int64_t(1) << log;
    const float scale = scale_of(log);
    if (there > size) there = size;
    const int64_t whole = there / LF * LF;
    for (int64_t at = 0; at < whole; at += LF) {
        vf r = flipped(load<vf>(z + at) * scale, sign_lanes(signs, at));
        if (base) r = load<vf>(base + at) + r;
        store(out + at, r);
    }
    for (int64_t at = whole; at < there; at++) {
        const float r = signs[at / 8] >> at % 8 & 1 ? -(z[at] * scale) : z[at] * scale;
        out[at] = base ? base[at] + r : r;
    }
}

}  // namespace
}  // namespace shoal
