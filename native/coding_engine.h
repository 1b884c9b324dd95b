// Diffs as the bindings code them: whole vectors, cut into pieces of whole blocks, each done in one go by one thread.
// The contracts stand in src/shoal/kernels/coding.py and reference_coding.py.
#pragma once
#include <vector>

#include "coding.h"
#include "ring.h"

namespace shoal {

// Checked when made: blocks lie in ascending order, apart, each begins within the vector.
class Grid {
  public:
    // Throws std::invalid_argument.
    Grid(const int64_t* starts, const uint8_t* logs, int64_t count, int64_t first, int64_t length);

    struct Block {
        int64_t start, place, there;  // in the vector; counted from block 0; elements that the vector has of it
        int log;
    };
    // Blocks [begin, end) that one thread does at a time: at most TILE elements together.
    struct Piece {
        int64_t begin, end;
    };

    const int64_t first, length;
    int64_t places = 0;
    std::vector<Block> blocks;
    std::vector<Piece> pieces;
};

struct Encoding {
    const Grid& grid;
    const float *x, *base;  // base or null
    const uint8_t *signs_key, *dither_key;
    uint16_t offset;
    float alpha;
    const float* inverse_steps;  // [blocks]
    int64_t bound;
    int bits;
    Masks masks;
    char* out;
    double* squares;  // [blocks]
    int64_t *clipped, *totals;
    int threads;
};
void encode(const Encoding& e);

struct Decoding {
    const Grid& grid;
    const char* words;
    int bits;
    const uint8_t *signs_key, *dither_key;
    const int32_t* table;  // [DITHER_VALUES]
    const double* scales;  // [blocks]
    Masks masks;
    const float* base;  // or null
    float* out;
    int threads;
};
void decode(const Decoding& d);

// Throws std::invalid_argument if bits is not 1, 2, 3, 4 or 8.
Codebook codebook(int bits, const float* boundaries, const float* centroids);

struct Codes {
    const Grid& grid;
    const uint8_t* signs_key;
    const Codebook& book;
    int threads;
};
void encode_codes(const Codes& c, const float* x, const float* base, char* out, float* scales);
void decode_codes(const Codes& c, const char* codes, const float* scales, const float* base, float* out);

// out = signs o H x, scaled, block after block at their places: the rotation alone.
void rotate(const Grid& grid, const float* x, const uint8_t* signs_key, float* out, int threads);

// A vector cut into runs of `size` elements, the last one shorter.
struct Runs {
    int64_t length, size;
    int threads;
};
void absmax(const Runs& runs, const float* x, float* out);
void quantise_absmax(const Runs& runs, const float* x, int levels, const float* scales, int8_t* out);
void dequantise(const Runs& runs, const int8_t* q, const float* scales, const float* base, float* out);

}  // namespace shoal
