// Masks on ring words at one level.  Included by level_ring.h only.
//
// All streams of one call are at the same counters, so their words are added up as they come out of the rounds, and put
// into the order of the stream only once for a group, however many streams there are.
#pragma once
#include "level_packing.h"

namespace shoal {
namespace {

// x + y or x - y, in lanes of W.
template <class W>
INLINE v32 added(v32 x, v32 y, bool plus) {
    return plus ? v32(W(x) + W(y)) : v32(W(x) - W(y));
}

// The sum of all masks over one group, in the order of the stream.
template <class W>
INLINE void masks_of_group(const Masks& masks, uint64_t lane, uint64_t block, char* to) {
    // Words of 64 bits are two neighbours of the stream: they make one number only in its order.
    constexpr bool ORDER_EACH = sizeof(W{}[0]) == 8;
    const Counters at(block);
    alignas(64) v32 total[16] = {};
    for (int64_t i = 0; i < masks.count; i++) {
        alignas(64) v32 x[16];
        rounds(masks.keys + i * KEY_BYTES, lane, at, x);
        if constexpr (ORDER_EACH) {
            alignas(64) char ordered[GROUP_BYTES];
            put_in_order(x, ordered);
            std::memcpy(x, ordered, sizeof x);
        }
        const bool plus = masks.signs[i] > 0;
        for (int w = 0; w < 16; w++) total[w] = added<W>(total[w], x[w], plus);
    }
    if constexpr (ORDER_EACH)
        std::memcpy(to, total, GROUP_BYTES);
    else
        put_in_order(total, to);
}

template <class W>
void add_masks(const char* words, const Masks& masks, uint64_t lane, uint64_t first, int64_t bytes, char* out) {
    each_group(first, bytes, [&](uint64_t block, int64_t offset, int64_t some) {
        alignas(64) char total[GROUP_BYTES];
        masks_of_group<W>(masks, lane, block, total);
        int64_t b = 0;
        for (; b + VB <= some; b += VB) store(out + b, v32(load<W>(words + b) + load<W>(total + offset + b)));
        if (b < some) {  // a ragged end: bytes beyond it are zero, and dropped
            alignas(64) char end[VB] = {};
            std::memcpy(end, words + b, size_t(some - b));
            alignas(64) char mask[VB] = {};
            std::memcpy(mask, total + offset + b, size_t(some - b));
            store(end, v32(load<W>(end) + load<W>(mask)));
            std::memcpy(out + b, end, size_t(some - b));
        }
        words += some, out += some;
    });
}

// A group may begin or end in the middle of a register's words, or of a pair: what is left of it waits for the next.
void add_masks12(const char* words, const Masks& masks, uint64_t lane, uint64_t first, int64_t count, char* out) {
    alignas(64) char buffer[VB + GROUP_BYTES];
    char* const group = buffer + VB;
    int64_t left = 0;  // bytes of masks before `group`
    each_group(first * 2, count * 2, [&](uint64_t block, int64_t offset, int64_t bytes) {
        masks_of_group<v16>(masks, lane, block, group);
        const char* mask = group + offset - left;
        for (left += bytes; left >= VB; left -= VB) {
            pack12(unpack12(words) + load<v16>(mask), out);
            mask += VB, words += BYTES12, out += BYTES12;
        }
        std::memmove(group - left, mask, size_t(left));
    });
    if (left > 0) {
        alignas(64) char end[VB] = {};
        std::memcpy(end, group - left, size_t(left));
        pack12_end(unpack12_end(words, left / 2) + load<v16>(end), out, left / 2);
    }
}

void add_streams(const char* words, int bits, const Masks& masks, uint64_t lane, uint64_t first, int64_t count,
                 char* out) {
    const uint64_t from = bits == 12 ? first : first * uint64_t(bits / 8);
    const int64_t bytes = stream_bytes(count, bits);
    switch (bits) {
        case 8:
            return add_masks<v8>(words, masks, lane, from, bytes, out);
        case 12:
            return add_masks12(words, masks, lane, first, count, out);
        case 16:
            return add_masks<v16>(words, masks, lane, from, bytes, out);
        case 32:
            return add_masks<v32>(words, masks, lane, from, bytes, out);
        default:
            return add_masks<v64>(words, masks, lane, from, bytes, out);
    }
}

}  // namespace
}  // namespace shoal
