// Calls over coded blocks, for whoever starts the bodies.
#pragma once
#include <cmath>

#include "cuda/body_block.h"
#include "cuda/start_ring.h"

namespace shoal::cuda {

inline Blocks blocks_of(const GridCall& grid) {
    Blocks blocks{};
    blocks.starts = grid.starts;
    blocks.places = grid.places;
    blocks.logs = grid.logs;
    blocks.length = grid.length;
    blocks.first = grid.first;
    std::memcpy(blocks.signs.words, grid.signs_key, 32);
    if (grid.dither_key) std::memcpy(blocks.dither.words, grid.dither_key, 32);
    return blocks;
}

// The largest float that is not above the bound.
inline float float_bound(int64_t bound) {
    const float near = float(bound);
    return int64_t(near) <= bound ? near : std::nextafterf(near, 0.0f);
}

// f(integral_constant) for the widths that diffs are coded in.
template <class F>
void with_coded_bits(int bits, F f) {
    switch (bits) {
        case 8:
            return f(std::integral_constant<int, 8>{});
        case 12:
            return f(std::integral_constant<int, 12>{});
        case 16:
            return f(std::integral_constant<int, 16>{});
        default:
            return f(std::integral_constant<int, 32>{});
    }
}

template <class Starter>
void start_rotate(const Starter& starter, const GridCall& grid, const float* x, float* out) {
    starter.crews(RotateBody{blocks_of(grid), x, out}, grid.count);
}

// The first STREAMS_MAX masks in the same pass, others on top.
template <class Starter>
void start_encode(const Starter& starter, const GridCall& grid, const Encoding& e, const MaskCall& masks, int64_t bytes,
                  const Queue& queue) {
    Alignment alignment;
    alignment.add(e.out);
    const EncodeCall call{e.x,       e.base,          e.alpha, float_bound(e.bound),
                          e.offset,  e.inverse_steps, e.out,   alignment.bytes(),
                          e.squares, e.clipped,       e.totals};
    with_coded_bits(e.bits, [&]<int BITS>(std::integral_constant<int, BITS>) {
        starter.crews(EncodeBody<BITS>{blocks_of(grid), streams_of(masks, 0), call}, grid.count);
    });
    if (masks.count > STREAMS_MAX) {
        const MaskCall rest{masks.keys + STREAMS_MAX * 32, masks.signs + STREAMS_MAX, masks.count - STREAMS_MAX,
                            masks.lane, masks.first};
        add_streams(e.out, e.bits, bytes, rest, e.out, queue);
    }
}

template <class Starter>
void start_decode(const Starter& starter, const GridCall& grid, const Decoding& d, const MaskCall& masks) {
    Alignment alignment;
    alignment.add(d.words);
    const DecodeCall call{d.words, alignment.bytes(), d.dithered, d.table, d.scales, d.base, d.out};
    with_coded_bits(d.bits, [&]<int BITS>(std::integral_constant<int, BITS>) {
        starter.crews(DecodeBody<BITS>{blocks_of(grid), streams_of(masks, 0), call}, grid.count);
    });
}

}  // namespace shoal::cuda
