// One element of a coded block, and one step of its rotation.  The contract stands in
// src/shoal/kernels/reference_coding.py.
#pragma once
#include "cuda/element_cipher.h"

namespace shoal::cuda {

constexpr int LANE_DITHER = 4, LANE_SIGNS = 5, LANE_MODEL = 0;  // reference_ring
constexpr int TILE_LOG = 14, TILE_ELEMENTS = 1 << TILE_LOG;     // of the largest block

// Where element e of a block lies in its tile: neighbours in any of the orders in which a warp visits them lie in
// different banks of shared memory.  Its bits 5 to 10 go into the low five: 8 into two of them, 10 where 5 goes.
SHOAL_BOTH int banked(int e) {
    const int high = e >> 5;
    return e ^ ((high & 31) ^ (high << 1 & 16) ^ (high >> 5 & 1));
}

SHOAL_BOTH float scale_of(int log) { return 1.0f / float(1 << (log / 2)); }

SHOAL_BOTH float with_sign(float x, bool minus) { return bits_as<float>(bits_as<uint32_t>(x) ^ uint32_t(minus) << 31); }

SHOAL_BOTH bool sign_at(const uint32_t* signs, int e) { return signs[e >> 5] >> (e & 31) & 1; }

// Spans `span`, 2 * span ... of 2^SPANS elements, one of the groups that a block of `size` elements has of them.
template <int SPANS>
SHOAL_BOTH void butterflies(float* z, int span, int group) {
    constexpr int N = 1 << SPANS;
    const int first = group / span * (N * span) + group % span;
    float x[N];
    SHOAL_UNROLL
    for (int i = 0; i < N; i++) x[i] = z[banked(first + i * span)];
    SHOAL_UNROLL
    for (int s = 0; s < SPANS; s++) {
        SHOAL_UNROLL
        for (int i = 0; i < N; i++)
            if (!(i >> s & 1)) {
                const float a = x[i], b = x[i + (1 << s)];
                x[i] = a + b;
                x[i + (1 << s)] = a - b;
            }
    }
    SHOAL_UNROLL
    for (int i = 0; i < N; i++) z[banked(first + i * span)] = x[i];
}

// --- rounding ------------------------------------------------------------------------------------------------------

struct Rounding {
    float alpha, inverse, limit;
    uint32_t offset;  // of the dither
};

SHOAL_BOTH float floor_of(float u) {  // |u| < 2^31
    const float cut = float(int32_t(u));
    return cut > u ? cut - 1.0f : cut;
}

// y = alpha * z, rounded with the dither of its place; `clipped` counts those beyond the limit.
SHOAL_BOTH int32_t rounded(float y, uint32_t dither, const Rounding& how, int64_t& clipped) {
    float u = y * how.inverse;
    clipped += (u < 0 ? -u : u) > how.limit;
    u = u == u ? u : 0.0f;
    u = u > -how.limit ? u : -how.limit;
    u = u < how.limit ? u : how.limit;
    const float xi = (float((dither + how.offset) & 0xffff) + 0.5f) * 0x1p-16f;  // exact
    const float whole = floor_of(u);
    return int32_t(whole) + ((u - whole) + xi >= 1.0f);
}

// Whole numbers exact in double, one product, rounded once more.
SHOAL_BOTH float unrounded(int32_t word, int32_t known, double scale) {
    return float((double(word) * 131072.0 - double(known)) * scale);
}

// Words e = 0 ... of a unit's lanes: 64 of 8 bits, 32 of 12 or 16, 16 of 32.
template <int BITS>
SHOAL_BOTH void put_word(uint32_t (&x)[16], int e, int32_t v) {
    if constexpr (BITS == 8) {
        x[e >> 2] |= (uint32_t(v) & 0xff) << 8 * (e & 3);
    } else if constexpr (BITS == 32) {
        x[e] = uint32_t(v);
    } else {
        x[e >> 1] |= (uint32_t(v) & 0xffff) << 16 * (e & 1);
    }
}

template <int BITS>
SHOAL_BOTH int32_t get_word(const uint32_t (&x)[16], int e) {
    if constexpr (BITS == 8) {
        return int8_t(x[e >> 2] >> 8 * (e & 3));
    } else if constexpr (BITS == 12) {
        return int32_t((x[e >> 1] >> 16 * (e & 1)) << 20) >> 20;
    } else if constexpr (BITS == 16) {
        return int16_t(x[e >> 1] >> 16 * (e & 1));
    } else {
        return int32_t(x[e]);
    }
}

}  // namespace shoal::cuda
