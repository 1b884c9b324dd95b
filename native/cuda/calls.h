// The device's kernels as the bindings call them: plain pointers and scalars, all of them memory of one device, and a
// queue on which the work is put.  Nothing here waits for the device.  Arguments are checked by the bindings; contracts
// stand in src/shoal/kernels/cuda.py.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace shoal::cuda {

struct Queue {
    int device;
    void* stream;  // a cudaStream_t
};

// What the CUDA runtime answered.  `memory`: there was not enough.
struct Failure : std::runtime_error {
    Failure(const std::string& what, bool memory) : std::runtime_error(what), memory(memory) {}
    bool memory;
};

struct SumCall {
    const char* const* inputs;  // [count]
    const double* weights;      // [count]
    int count;
    int64_t length;
    DType dtype;
    char* out;
    uint32_t* flag;  // or null
};
void weighted_mean(const SumCall& call, const Queue& queue);
void combine(const SumCall& call, const char* base, const Queue& queue);
void scaled_add(const SumCall& call, const char* y, const Queue& queue);
// weights null: all count the same.  trim < 0: the median.
void order(const SumCall& call, int trim, const Queue& queue);
void convert(const char* from, DType from_type, char* out, DType to_type, int64_t length, const Queue& queue);

struct MaskCall {
    const uint8_t* keys;  // host memory, [count][32]
    const int8_t* signs;  // host memory, [count]
    int64_t count;
    uint64_t lane, first;
};
void add_streams(const char* words, int bits, int64_t bytes, const MaskCall& masks, char* out, const Queue& queue);
void sum_words(const char* const* inputs, int count, int bits, int64_t bytes, char* out, const Queue& queue);

// sums[32]
void check_sums(const char* words, int bits, int64_t bytes, const uint8_t* key, uint64_t lane, uint64_t first,
                uint64_t* sums, const Queue& queue);

// numbers[2]: largest magnitude, sum of squares; counts[2]: NaN and Inf, the first of them or -1
void stats(const char* x, DType dtype, int64_t length, double* numbers, int64_t* counts, const Queue& queue);
// found[blocks][count][count]; weights are not looked at
void gram(const SumCall& call, const char* base, double* found, const Queue& queue);

// Arrays of the grid are in device memory; keys in host memory.
struct GridCall {
    const int64_t *starts, *places;
    const uint8_t* logs;
    int64_t count, length;  // blocks; elements of the vector
    uint64_t first;
    const uint8_t *signs_key, *dither_key;
};
void rotate(const GridCall& grid, const float* x, float* out, const Queue& queue);

struct Encoding {
    const float *x, *base;  // base or null
    float alpha;
    uint32_t offset;
    int64_t bound;
    int bits;
    const float* inverse_steps;
    char* out;
    double* squares;
    int64_t *clipped, *totals;
};
void encode(const GridCall& grid, const Encoding& e, const MaskCall& masks, int64_t bytes, const Queue& queue);

struct Decoding {
    const char* words;
    int bits;
    bool dithered;
    const int32_t* table;
    const double* scales;
    const float* base;  // or null
    float* out;
};
void decode(const GridCall& grid, const Decoding& d, const MaskCall& masks, const Queue& queue);

}  // namespace shoal::cuda
