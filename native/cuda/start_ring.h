// Calls over ring words, for whoever starts the bodies.
#pragma once
#include <cstring>

#include "cuda/body_ring.h"
#include "cuda/start_sums.h"

namespace shoal::cuda {

// f(integral_constant) for the ring's width.
template <class F>
void with_bits(int bits, F f) {
    switch (bits) {
        case 8:
            return f(std::integral_constant<int, 8>{});
        case 12:
            return f(std::integral_constant<int, 12>{});
        case 16:
            return f(std::integral_constant<int, 16>{});
        case 32:
            return f(std::integral_constant<int, 32>{});
        default:
            return f(std::integral_constant<int, 64>{});
    }
}

// Streams [from, from + STREAMS_MAX) of a call, or fewer.
inline Streams streams_of(const MaskCall& masks, int64_t from) {
    Streams streams{};
    streams.count = int(std::min<int64_t>(STREAMS_MAX, masks.count - from));
    for (int i = 0; i < streams.count; i++) {
        std::memcpy(streams.keys[i].words, masks.keys + (from + i) * 32, 32);
        streams.minus |= uint64_t(masks.signs[from + i] < 0) << i;
    }
    return streams;
}

// More streams than one call takes: the next call adds to what the last one wrote.
template <class Starter>
void start_masks(const Starter& starter, const char* words, int bits, int64_t bytes, const MaskCall& masks, char* out) {
    Alignment alignment;
    alignment.add(words);
    alignment.add(out);
    const char* source = words;
    int64_t from = 0;
    do {
        with_bits(bits, [&]<int BITS>(std::integral_constant<int, BITS>) {
            starter.each(
                MaskBody<BITS>{streams_of(masks, from), source, out, bytes, masks.lane, masks.first, alignment.bytes()},
                steps_of(bytes, UNIT_BYTES<BITS>));
        });
        source = out;
        from += STREAMS_MAX;
    } while (from < masks.count);
}

template <class Starter>
void start_sum(const Starter& starter, const char* const* inputs, int count, int bits, int64_t bytes, char* out) {
    Alignment alignment;
    for (int i = 0; i < count; i++) alignment.add(inputs[i]);
    alignment.add(out);
    with_bits(bits, [&]<int BITS>(std::integral_constant<int, BITS>) {
        SumBody<BITS> body{};
        std::copy(inputs, inputs + count, body.inputs);
        body.count = count;
        body.out = out;
        body.bytes = bytes;
        body.aligned = alignment.bytes();
        starter.each(body, steps_of(bytes, UNIT_BYTES<BITS>));
    });
}

}  // namespace shoal::cuda
