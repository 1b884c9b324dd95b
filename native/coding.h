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

struct Undithering {
    const uint16_t* dither;  // of the block's places; null if the table is all zero
    const int32_t* table;    // [DITHER_VALUES]
    double scale;
};

// Centroids and boundaries of 2**bits codes.
struct Codebook {
    static constexpr int BUCKETS = 1024;
    int bits;
    float boundaries[256], centroids[256];  // the last boundary is Inf
    // 8 bits: bucket of z = clamp((z - low) * per_unit); below it lie `under` boundaries, in it at most `most`.
    float low, per_unit;
    int32_t most;
    int32_t under[BUCKETS];
};

// Blocks have 2**log elements; z is aligned to 64 and holds one; `there` elements of x, base and out are there.
struct CodingTable {
    // z = H (signs o (x - base)), unscaled; base may be null.
    void (*rotate)(const float* x, const float* base, int64_t there, const uint8_t* signs, int log, float* z);
    // z = H z, unscaled
    void (*butterflies)(int log, float* z);
    // out = base + signs o (2**-s z)
    void (*put)(const float* z, int log, const uint8_t* signs, const float* base, int64_t there, float* out);
    // z from `rotate`; to: int8, uint16 (12 bits, not packed; 16 bits) or int32 words
    Found (*quantise8)(const float* z, int log, const Rounding& how, char* to);
    Found (*quantise16)(const float* z, int log, const Rounding& how, char* to);
    Found (*quantise32)(const float* z, int log, const Rounding& how, char* to);
    // r = float32((word * 131072 - table) * scale)
    void (*dequantise8)(const char* words, int log, const Undithering& how, float* r);
    void (*dequantise16)(const char* words, int log, const Undithering& how, float* r);
    void (*dequantise32)(const char* words, int log, const Undithering& how, float* r);
    // Words of 12 bits in uint16 <-> two in three bytes; count is a multiple of 64.  Unpacked words have their sign.
    void (*pack12)(const uint16_t* words, int64_t count, char* to);
    void (*unpack12)(const char* from, int64_t count, uint16_t* words);
    // z from `rotate` is scaled; codes of one byte; returns the block's scale.
    float (*encode_codes)(float* z, int log, const Codebook& book, uint8_t* codes);
    void (*decode_codes)(const uint8_t* codes, int log, const Codebook& book, float scale, float* r);
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
