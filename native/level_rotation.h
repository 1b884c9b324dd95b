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

// Elements of a block that are done with while they are in the nearest cache.
INLINE int64_t near_size(int log) { return int64_t(1) << (log < NEAR_LOG ? log : NEAR_LOG); }

// All spans below near_size, of that many elements from `begin` on.
template <class From>
void near_spans(const From& from, int log, int64_t begin, float* z) {
    const int64_t near = near_size(log);
    constexpr int FEW = (1 << LOG_MIN) / LF < REGISTERS ? (1 << LOG_MIN) / LF : REGISTERS;
    if (log == LOG_MIN) {
        first_pass<FEW>(from, begin, begin + near, z);
        last_spans(z + begin, near, FEW * LF);
    } else {
        first_pass<REGISTERS>(from, begin, begin + near, z);
        last_spans(z + begin, near, REGISTERS * LF);
    }
}

template <class From>
void transform(const From& from, int log, float* z) {
    const int64_t size = int64_t(1) << log, near = near_size(log);
    for (int64_t begin = 0; begin < size; begin += near) near_spans(from, log, begin, z);
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

INLINE float scale_of(int log) { return 1.0f / float(1 << (log / 2)); }

// The spans from near_size on, then z = signs o (scale z), in one walk over z.
INLINE void last_spans_and_signs(int log, const uint8_t* signs, float* z) {
    const int64_t size = int64_t(1) << log, near = near_size(log);
    const float scale = scale_of(log);
    if (near == size) {
        for (int64_t at = 0; at < size; at += LF)
            store(z + at, flipped(load<vf>(z + at) * scale, sign_lanes(signs, at)));
        return;
    }
    constexpr int FAR = 1 << (LOG_MAX - NEAR_LOG);
    static_assert(FAR == 4 && LOG_MAX % 2 == 0 && NEAR_LOG % 2 == 0, "a block is near, or four times as large");
    for (int64_t at = 0; at < near; at += LF) {
        vf x[FAR];
#pragma GCC unroll 4
        for (int i = 0; i < FAR; i++) x[i] = load<vf>(z + i * near + at);
        register_butterflies(x);
#pragma GCC unroll 4
        for (int i = 0; i < FAR; i++) store(z + i * near + at, flipped(x[i] * scale, sign_lanes(signs, i * near + at)));
    }
}

// out = base + z.  PAST: past the caches.
template <bool PAST>
INLINE void add_base(const float* z, const float* base, int64_t there, float* out) {
    const auto one = [&](int64_t at) { out[at] = base ? base[at] + z[at] : z[at]; };
    int64_t at = 0;
    if constexpr (PAST)
        for (; at < there && reinterpret_cast<uintptr_t>(out + at) % VB; at++) one(at);
    if (base) {
        for (; at + LF <= there; at += LF) put<PAST>(out + at, load<vf>(base + at) + load<vf>(z + at));
    } else {
        for (; at + LF <= there; at += LF) put<PAST>(out + at, load<vf>(z + at));
    }
    for (; at < there; at++) one(at);
    if constexpr (PAST) fence();
}

void finish(float* z, int log, const uint8_t* signs, const Target& target) {
    last_spans_and_signs(log, signs, z);
    const int64_t there = target.there;
    target.stream ? add_base<true>(z, target.base, there, target.out)
                  : add_base<false>(z, target.base, there, target.out);
}

}  // namespace
}  // namespace shoal
