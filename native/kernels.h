// What a kernel is given and what a level exports.  The contract of every kernel stands in
// src/shoal/kernels/reference.py; all levels give the same bits as that file.
#pragma once
#include <cstddef>
#include <cstdint>

namespace shoal {

enum DType : int { F64, F32, F16, BF16, DTYPES };

constexpr int64_t MODELS_MAX = 1024;       // limits.MODELS_MAX
constexpr int64_t GRAM_BLOCK = 65536;      // limits.GRAM_BLOCK
constexpr int64_t GRAM_LANES = 8;          // reference.GRAM_LANES
constexpr int64_t GROUP = 16;              // values that are sorted in registers
constexpr int64_t TILE_BYTES = 192 << 10;  // working space for sorted or widened tiles (16 KiB for few inputs)
constexpr int64_t TAIL_BYTES = (MODELS_MAX + 1) * 64;  // ragged ends, filled up to a register
constexpr int64_t ROWS_BYTES = 16 << 10;               // MODELS_MAX + 1 pointers
constexpr int64_t SCRATCH_BYTES = TILE_BYTES + TAIL_BYTES + 3 * ROWS_BYTES;

// One step of a merge of sorted groups: the lower of two rows goes to `low`, the higher to `high`.
struct Step {
    uint16_t low, high;
    enum Kind : uint16_t { BOTH, LOWER, HIGHER } kind;  // which of the two anybody reads later
};

struct Statistics {
    double largest, squares;
    int64_t bad, first;
};

// A sum in double-double.
struct Total {
    double sum = 0, rest = 0;
};

// Arguments of one call.  Arrays need no alignment.  `out` may be one of `inputs`.
struct Call {
    const char* const* inputs;        // [count] arrays of one dtype
    int64_t count;                    // N >= 1
    const char* base = nullptr;       // array like an input, or null
    const double* weights = nullptr;  // [count]
    bool short_weights = false;       // their products with float32 are exact in double: see engine.cpp
    Total total = {};                 // of the weights, in order
    char* out = nullptr;
    int64_t keep = 0;             // trimmed mean: how many to drop at each end; mean around median: how many to keep
    const Step* steps = nullptr;  // merges the sorted groups of GROUP inputs
    int64_t step_count = 0;
    double* gram = nullptr;            // [blocks, count, count]
    Statistics* statistics = nullptr;  // [blocks]
    bool stream = false;               // write past the caches
};

// Work on elements [begin, end).  Returns whether all that was read is finite.  `scratch` holds scratch_bytes(...).
using Kernel = bool (*)(const Call& call, int64_t begin, int64_t end, char* scratch);

struct KernelTable {
    const char* name;
    Kernel weighted_mean[DTYPES];
    Kernel combine[DTYPES];
    Kernel median[DTYPES];
    Kernel weighted_median[DTYPES];
    Kernel trimmed_mean[DTYPES];
    Kernel weighted_trimmed_mean[DTYPES];
    Kernel mean_around_median[DTYPES];
    Kernel gram[DTYPES];
    Kernel stats[DTYPES];
    Kernel scaled_add[DTYPES];
    Kernel convert[DTYPES][DTYPES];  // [from][to]
    Kernel copy;                     // bytes
    Kernel to_columns[DTYPES];       // for rules of users: out[(k - begin) * count + i] = inputs[i][k], doubles
    Kernel from_doubles[DTYPES];     // out[k] = inputs[0][k - begin], doubles rounded once
};

extern const KernelTable portable_table;
#if defined(__x86_64__)
extern const KernelTable avx2_table;
extern const KernelTable avx512_table;
#endif

}  // namespace shoal
