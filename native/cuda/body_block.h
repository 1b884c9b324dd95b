// Kernels over coded blocks (and others that share their numbers): a crew of threads does one block, in phases.  In a
// phase no thread reads what another one writes; between two of them all threads meet.  So the host twin can run a
// phase thread by thread, in any order.
#pragma once
#include "cuda/element_block.h"

namespace shoal::cuda {

constexpr int WORKERS = 256;        // threads of a crew that do units of words
constexpr int CREW = WORKERS + 32;  // and a warp for the sums that must run in order
constexpr int SIGN_WORDS = TILE_ELEMENTS / 32;
constexpr int CHECK_SUMS = 32;    // reference_ring.CHECKS
constexpr int PARTIAL_SUMS = 16;  // reference_coding.folded

// What a crew shares, besides its tile z[TILE_ELEMENTS]: that is shared memory, or the device's where a crew cannot
// have 64 KiB of the former.
struct Room {
    uint32_t signs[SIGN_WORDS];
    double squares[PARTIAL_SUMS];
    unsigned long long clipped, total;
    unsigned long long sums[CHECK_SUMS];
};

SHOAL_BOTH void add_shared(unsigned long long* to, int64_t x) {
#if defined(__CUDA_ARCH__)
    atomicAdd(to, static_cast<unsigned long long>(x));
#else
    *to += static_cast<unsigned long long>(x);
#endif
}

// The grid's arrays, in the device's memory.
struct Blocks {
    const int64_t* starts;  // in the vector
    const int64_t* places;  // counted from block 0
    const uint8_t* logs;
    int64_t length;  // of the vector
    uint64_t first;  // the place of block 0
    StreamKey signs, dither;

    SHOAL_BOTH int size(int64_t block) const { return 1 << logs[block]; }
};

// Sign bits of a block's places.  They begin at a multiple of 8 bytes of the stream, so they may need a block more.
SHOAL_BOTH void make_signs(const Blocks& blocks, int64_t block, int thread, Room& room) {
    const int words = blocks.size(block) / 32;
    const uint64_t first = (blocks.first + uint64_t(blocks.places[block])) / 32;  // word of the stream
    const uint64_t counter = first / 16 + uint64_t(thread);
    if (counter * 16 >= first + uint64_t(words)) return;
    uint32_t x[16];
    cipher_block(blocks.signs, LANE_SIGNS, counter, x);
    SHOAL_UNROLL
    for (int i = 0; i < 16; i++) {
        const int64_t at = int64_t(counter * 16 + uint64_t(i) - first);
        if (at >= 0 && at < words) room.signs[at] = x[i];
    }
}

// Passes of four spans; the last one of what is left, which is an even number.
SHOAL_BOTH int passes_of(int log) { return (log + 3) / 4; }

SHOAL_BOTH void do_pass(int pass, int log, int thread, float* z) {
    const int span = 1 << 4 * pass, size = 1 << log;
    if (log - 4 * pass >= 4) {
        for (int group = thread; group < size / 16; group += CREW) butterflies<4>(z, span, group);
    } else {
        for (int group = thread; group < size / 4; group += CREW) butterflies<2>(z, span, group);
    }
}

// z = signs o (x - base), where x has elements
SHOAL_BOTH void read_block(const Blocks& blocks, int64_t block, const float* x, const float* base, int thread, float* z,
                           const Room& room) {
    const int64_t start = blocks.starts[block], there = blocks.length - start;
    for (int e = thread; e < blocks.size(block); e += CREW) {
        float value = 0.0f;
        if (e < there) value = base ? x[start + e] - base[start + e] : x[start + e];
        z[banked(e)] = with_sign(value, sign_at(room.signs, e));
    }
}

// out = H (signs o x), scaled, at the blocks' places
struct RotateBody {
    static constexpr bool TILE = true;
    Blocks blocks;
    const float* x;
    float* out;

    SHOAL_BOTH int phases(int64_t block) const { return 3 + passes_of(blocks.logs[block]); }
    SHOAL_BOTH void phase(int phase, int64_t block, int thread, float* z, Room& room) const {
        const int log = blocks.logs[block], passes = passes_of(log);
        if (phase == 0) {
            make_signs(blocks, block, thread, room);
        } else if (phase == 1) {
            read_block(blocks, block, x, nullptr, thread, z, room);
        } else if (phase < 2 + passes) {
            do_pass(phase - 2, log, thread, z);
        } else {
            float* to = out + blocks.places[block];
            for (int e = thread; e < 1 << log; e += CREW) to[e] = z[banked(e)] * scale_of(log);
        }
    }
};

// Words of one unit of stream: of 32 bits there are two units for the 32 elements that one block of dither gives.
template <int BITS>
inline constexpr int DITHER_UNIT = BITS == 8 ? 64 : 32;  // elements that a thread does at a time

struct EncodeCall {
    const float *x, *base;  // base or null
    float alpha, limit;
    uint32_t offset;
    const float* inverse_steps;  // [blocks]
    char* out;
    int aligned;  // that out is a multiple of
    double* squares;
    int64_t *clipped, *totals;  // [blocks] each
};

template <int BITS>
struct EncodeBody {
    static constexpr bool TILE = true;
    Blocks blocks;
    Streams streams;
    EncodeCall call;

    SHOAL_BOTH int phases(int64_t block) const { return 4 + passes_of(blocks.logs[block]); }
    SHOAL_BOTH void phase(int phase, int64_t block, int thread, float* z, Room& room) const {
        const int log = blocks.logs[block], passes = passes_of(log);
        if (phase == 0) {
            if (thread == 0) room.clipped = room.total = 0;
            make_signs(blocks, block, thread, room);
        } else if (phase == 1) {
            read_block(blocks, block, call.x, call.base, thread, z, room);
        } else if (phase < 2 + passes) {
            do_pass(phase - 2, log, thread, z);
        } else if (phase == 2 + passes) {
            if (thread < WORKERS) {
                do_units(block, log, thread, z, room);
            } else if (thread < WORKERS + PARTIAL_SUMS) {
                sum_squares(log, thread - WORKERS, z, room);
            }
        } else if (thread == 0) {
            for (int half = PARTIAL_SUMS / 2; half; half /= 2)
                for (int i = 0; i < half; i++) room.squares[i] += room.squares[i + half];
            call.squares[block] = room.squares[0];
            call.clipped[block] = int64_t(room.clipped);
            call.totals[block] = int64_t(room.total);
        }
    }

  private:
    SHOAL_BOTH void sum_squares(int log, int part, const float* z, Room& room) const {
        const float scale = scale_of(log);
        double sum = 0;
        for (int e = part; e < 1 << log; e += PARTIAL_SUMS) {
            const double y = double(call.alpha * (z[banked(e)] * scale));
            sum += y * y;  // the product is exact
        }
        room.squares[part] = sum;
    }

    SHOAL_BOTH void do_units(int64_t block, int log, int thread, float* z, Room& room) const {
        const Rounding how{call.alpha, call.inverse_steps[block], call.limit, call.offset};
        const float scale = scale_of(log);
        const int64_t place = blocks.places[block];
        int64_t clipped = 0, total = 0;
        for (int first = thread * DITHER_UNIT<BITS>; first < 1 << log; first += WORKERS * DITHER_UNIT<BITS>) {
            const uint64_t at = blocks.first + uint64_t(place + first);
            uint32_t words[16] = {}, masks[16], dither[16];
            SHOAL_UNROLL
            for (int e = 0; e < DITHER_UNIT<BITS>; e++) {
                if (e % 32 == 0) cipher_block(blocks.dither, LANE_DITHER, (at + uint64_t(e)) / 32, dither);
                const float y = how.alpha * (z[banked(first + e)] * scale);
                const int32_t v = rounded(y, dither[e % 32 >> 1] >> 16 * (e & 1), how, clipped);
                total += v;
                put_word<BITS>(words, e % UNIT<BITS>, v);
                if (e % UNIT<BITS> != UNIT<BITS> - 1) continue;
                const int unit = first + e + 1 - UNIT<BITS>;
                masks_of_block<BITS>(streams, LANE_MODEL, (at + uint64_t(e)) / UNIT<BITS>, masks);
                add_lanes<BITS>(words, masks, false);
                store_unit<BITS>(call.out + (place + unit) * BITS / 8, UNIT_BYTES<BITS>, call.aligned >= VECTOR_BYTES,
                                 words);
                SHOAL_UNROLL
                for (int i = 0; i < 16; i++) words[i] = 0;
            }
        }
        add_shared(&room.clipped, clipped);
        add_shared(&room.total, total);
    }
};

struct DecodeCall {
    const char* words;
    int aligned;  // that words is a multiple of
    bool dithered;
    const int32_t* table;  // [65536]
    const double* scales;  // [blocks]
    const float* base;     // or null
    float* out;
};

template <int BITS>
struct DecodeBody {
    static constexpr bool TILE = true;
    Blocks blocks;
    Streams streams;
    DecodeCall call;

    SHOAL_BOTH int phases(int64_t block) const { return 2 + passes_of(blocks.logs[block]); }
    SHOAL_BOTH void phase(int phase, int64_t block, int thread, float* z, Room& room) const {
        const int log = blocks.logs[block], passes = passes_of(log);
        if (phase == 0) {
            make_signs(blocks, block, thread, room);
            if (thread < WORKERS) do_units(block, log, thread, z);
        } else if (phase < 1 + passes) {
            do_pass(phase - 1, log, thread, z);
        } else {
            const int64_t start = blocks.starts[block], there = blocks.length - start;
            const float scale = scale_of(log);
            for (int e = thread; e < 1 << log && e < there; e += CREW) {
                const float r = with_sign(z[banked(e)] * scale, sign_at(room.signs, e));
                call.out[start + e] = call.base ? call.base[start + e] + r : r;
            }
        }
    }

  private:
    SHOAL_BOTH void do_units(int64_t block, int log, int thread, float* z) const {
        const double scale = call.scales[block];
        const int64_t place = blocks.places[block];
        for (int first = thread * DITHER_UNIT<BITS>; first < 1 << log; first += WORKERS * DITHER_UNIT<BITS>) {
            const uint64_t at = blocks.first + uint64_t(place + first);
            uint32_t words[16], masks[16], dither[16] = {};
            SHOAL_UNROLL
            for (int e = 0; e < DITHER_UNIT<BITS>; e++) {
                if (e % UNIT<BITS> == 0) {
                    load_unit<BITS>(call.words + (place + first + e) * BITS / 8, UNIT_BYTES<BITS>,
                                    call.aligned >= VECTOR_BYTES, words);
                    if (streams.count) {
                        masks_of_block<BITS>(streams, LANE_MODEL, (at + uint64_t(e)) / UNIT<BITS>, masks);
                        add_lanes<BITS>(words, masks, false);
                    }
                }
                int32_t known = 0;
                if (call.dithered) {
                    if (e % 32 == 0) cipher_block(blocks.dither, LANE_DITHER, (at + uint64_t(e)) / 32, dither);
                    known = call.table[dither[e % 32 >> 1] >> 16 * (e & 1) & 0xffff];
                }
                z[banked(first + e)] = unrounded(get_word<BITS>(words, e % UNIT<BITS>), known, scale);
            }
        }
    }
};

}  // namespace shoal::cuda
