// Kernels over ring words: what the thread that has unit number `unit` does.
#pragma once
#include "cuda/element_cipher.h"

namespace shoal::cuda {

// The part of a vector of `bytes` that one unit is.
template <int BITS>
struct Part {
    int64_t at;
    int bytes;
    bool whole;  // and both addresses allow steps of 16 bytes
    SHOAL_BOTH Part(int64_t unit, int64_t all, int aligned) : at(unit * UNIT_BYTES<BITS>) {
        const int64_t left = all - at;
        bytes = left < UNIT_BYTES<BITS> ? int(left) : UNIT_BYTES<BITS>;
        whole = left >= UNIT_BYTES<BITS> && aligned >= VECTOR_BYTES;
    }
};

// out = words + masks
template <int BITS>
struct MaskBody {
    Streams streams;
    const char* words;
    char* out;
    int64_t bytes;
    uint64_t lane, first;
    int aligned;

    SHOAL_BOTH void operator()(int64_t unit) const {
        const Part<BITS> part(unit, bytes, aligned);
        uint32_t x[16], masks[16];
        masks_of_unit<BITS>(streams, lane, first + uint64_t(unit) * UNIT<BITS>, masks);
        load_unit<BITS>(words + part.at, part.bytes, part.whole, x);
        add_lanes<BITS>(x, masks, false);
        store_unit<BITS>(out + part.at, part.bytes, part.whole, x);
    }
};

// out = sum of the inputs
template <int BITS>
struct SumBody {
    const char* inputs[SUM_INPUTS_MAX];
    int count;
    char* out;
    int64_t bytes;
    int aligned;

    SHOAL_BOTH void operator()(int64_t unit) const {
        const Part<BITS> part(unit, bytes, aligned);
        uint32_t total[16], x[16];
        load_unit<BITS>(inputs[0] + part.at, part.bytes, part.whole, total);
        for (int i = 1; i < count; i++) {
            load_unit<BITS>(inputs[i] + part.at, part.bytes, part.whole, x);
            add_lanes<BITS>(total, x, false);
        }
        store_unit<BITS>(out + part.at, part.bytes, part.whole, total);
    }
};

}  // namespace shoal::cuda
