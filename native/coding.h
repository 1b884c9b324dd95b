// Kernels on one block of a diff: what a level exports.  The contract of every step stands in
// src/shoal/kernels/reference_coding.py; all levels give the same bits as that file.
#pragma once
#include <cstddef>
#include <cstdint>

namespace shoal {

constexpr int LOG_MIN = 6, LOG_MAX = 14;    // of a block's size; even
constexpr int64_t TILE = 1 << LOG_MAX;      // elements of the largest block
constexpr int64_t DITHER_VALUES = 1 << 16;  // reference_coding.DITHER_VALUES
constexpr int64_t CODE_SLACK = 8;           // bytes that pack_codes may write beyond its end

struct Found {
    double squares;
    int64_t clipped, total;
};

struct Rounding {
    const uint16_t* dither;  // of the block's places
    uint16_t offset;
    float alpha, inverse, limit;
};

// A dither table that rises by `slope` from one index to the next, but for falls by 2**17, one at most in each of its
// parts: so it is for the offsets of up to about PARTS peers.  Registers hold it, where the table needs the second
// cache.
struct Sawtooth {
    static constexpr int PARTS = 32, PART_LOG = 11;
    static constexpr int64_t PART = 1 << PART_LOG;
    static constexpr int32_t FALL = 1 << 17, SLOPE_MAX = 1 << 10, VALUE_MAX = 1 << 28;
    static_assert(PARTS * PART == DITHER_VALUES);
    int32_t slope;
    int32_t value[PARTS];  // of the part's first index, less slope * index; within VALUE_MAX
    int32_t fall[PARTS];   // the index that it comes at, or the next part's first
};

struct Undithering {
    const uint16_t* dither;    // of the block's places; null if the table is all zero
    const int32_t* table;      // [DITHER_VALUES]
    const Sawtooth* sawtooth;  // the same, or null; not every level looks at it
    double scale;
    const float* base;  // of the block's elements: `finish` reads them soon; or null
};

// Where the numbers of a block go: out = base + numbers.
struct Target {
    const float* base;  // or null
    float* out;
    int64_t there;
    bool stream;  // past the caches
};

// Centroids and boundaries of 2**bits codes.
struct Codebook {
    static constexpr int BUCKETS = 1024, FEW_BUCKETS = 32;
    int bits;
    float boundaries[256], centroids[256];  // the last boundary is Inf
    // 4 bits (FEW_BUCKETS, which two registers hold) and 8: bucket of z = clamp((z - low) * per_unit); below it lie
    // `under` boundaries, in it at most `most`.
    float low, per_unit;
    int32_t most;
    int32_t under[BUCKETS];
};

// Blocks have 2**log elements; z is aligned to 64 and holds one; `there` elements of x, base and out are there.
struct CodingTable {
    // z = H (signs o (x - base)), unscaled; base may be null.
    void (*rotate)(const float* x, const float* base, int64_t there, const uint8_t* signs, int log, float* z);
    // out = base + signs o (2**-s H r), from what a dequantise or decode_codes has left of r in z, which is lost
    void (*finish)(float* z, int log, const uint8_t* signs, const Target& target);
    // z from `rotate`; to: int8, uint16 (12 bits, not packed; 16 bits) or int32 words
    Found (*quantise8)(const float* z, int log, const Rounding& how, char* to);
    Found (*quantise16)(const float* z, int log, const Rounding& how, char* to);
    Found (*quantise32)(const float* z, int log, const Rounding& how, char* to);
    // r = float32((word * 131072 - table) * scale), and of H r the spans that near elements have
    void (*dequantise8)(const char* words, int log, const Undithering& how, float* z);
    void (*dequantise12)(const char* words, int log, const Undithering& how, float* z);
    void (*dequantise16)(const char* words, int log, const Undithering& how, float* z);
    void (*dequantise32)(const char* words, int log, const Undithering& how, float* z);
    // Words of 12 bits in uint16 <-> two in three bytes; count is a multiple of 64.  Unpacked words have their sign.
    void (*pack12)(const uint16_t* words, int64_t count, char* to);
    void (*unpack12)(const char* from, int64_t count, uint16_t* words);
    // z from `rotate` is scaled; codes of one byte; returns the block's scale.
    float (*encode_codes)(float* z, int log, const Codebook& book, uint8_t* codes);
    // r = scale * centroid, and of H r the spans that near elements have
    void (*decode_codes)(const uint8_t* codes, int log, const Codebook& book, float scale, float* z);
    // Codes of one byte <-> packed; count is a multiple of 64; pack_codes may write CODE_SLACK bytes more.
    void (*pack_codes)(const uint8_t* codes, int64_t count, int bits, char* to);
    void (*unpack_codes)(const char* from, int64_t count, int bits, uint8_t* codes);
    // One run: the largest magnitude; x / scale to nearest within [-levels, levels]; base + q * scale.
    float (*absmax)(const float* x, int64_t count);
    void (*quantise_absmax)(const float* x, int64_t count, float levels, float scale, int8_t* q);
    void (*dequantise)(const int8_t* q, int64_t count, float scale, const float* base, float* out);
};

extern const CodingTable portable_coding;
#if defined(__x86_64__)
extern const CodingTable avx2_coding;
extern const CodingTable avx512_coding;
#endif

}  // namespace shoal
