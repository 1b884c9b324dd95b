// Masks on ring words at one level.  Included by level_ring.h only.
//
// All streams of one call are at the same counters, so their words are added up as they come out of the rounds, and put
// into the order of the stream only once for a group, however many streams there are, on the way to the words.
#pragma once
#include "level_packing.h"

namespace shoal {
namespace {

// x + y or x - y, in lanes of W.
template <class W>
INLINE v32 added(v32 x, v32 y, bool plus) {
    return plus ? v32(W(x) + W(y)) : v32(W(x) - W(y));
}

// Words of 64 bits are two neighbours of the stream: they make one number only in its order.
template <class W>
constexpr bool ORDER_FIRST = sizeof(W{}[0]) == 8;

// The sum of all masks over one group: as the rounds leave it, or in the order of the stream (ORDER_FIRST).
template <class W>
INLINE void masks_of_group(const Masks& masks, uint64_t lane, uint64_t block, v32* total) {
    const Counters at(block);
    for (int w = 0; w < 16; w++) total[w] = v32{};
    for (int64_t i = 0; i < masks.count; i++) {
        alignas(64) v32 x[16];
        rounds(masks.keys + i * KEY_BYTES, lane, at, x);
        if constexpr (ORDER_FIRST<W>) {
            alignas(64) char ordered[GROUP_BYTES];
            put_in_order(x, ordered);
            std::memcpy(x, ordered, sizeof x);
        }
        const bool plus = masks.signs[i] > 0;
        if (i == 0 && plus) {
            std::memcpy(total, x, sizeof x);
        } else {
            for (int w = 0; w < 16; w++) total[w] = added<W>(total[w], x[w], plus);
        }
    }
}

// As in_order, of such a sum.
template <class W, class Put>
INLINE void in_order_of(v32* total, Put put) {
    if constexpr (ORDER_FIRST<W>) {
        for (int w = 0; w < 16; w++) put(w * VB, total[w]);
    } else {
        in_order(total, put);
    }
}

template <class W>
void add_masks(const char* words, const Masks& masks, uint64_t lane, uint64_t first, int64_t bytes, char* out) {
    each_group(first, bytes, [&](uint64_t block, int64_t offset, int64_t some) {
        alignas(64) v32 total[16];
        masks_of_group<W>(masks, lane, block, total);
        const auto add = [](const char* from, v32 mask, char* to) { store(to, v32(load<W>(from) + W(mask))); };
        if (some == GROUP_BYTES) {
            in_order_of<W>(total, [&](int64_t at, v32 mask) { add(words + at, mask, out + at); });
        } else {
            alignas(64) char ordered[GROUP_BYTES];
            in_order_of<W>(total, [&](int64_t at, v32 mask) { store(ordered + at, mask); });
            const char* mask = ordered + offset;
            int64_t b = 0;
            for (; b + VB <= some; b += VB) add(words + b, load<v32>(mask + b), out + b);
            if (b < some) {  // a ragged end: bytes beyond it are zero, and dropped
                alignas(64) char end[VB] = {}, end_mask[VB] = {};
                std::memcpy(end, words + b, size_t(some - b));
                std::memcpy(end_mask, mask + b, size_t(some - b));
                add(end, load<v32>(end_mask), end);
                std::memcpy(out + b, end, size_t(some - b));
            }
        }
        words += some, out += some;
    });
}

// A group may begin or end in the middle of a register's words, or of a pair: what is left of it waits for the next.
void add_masks12(const char* words, const Masks& masks, uint64_t lane, uint64_t first, int64_t count, char* out) {
    alignas(64) char buffer[VB + GROUP_BYTES];
    char* const group = buffer + VB;
    int64_t left = 0;  // bytes of masks before `group`
    const auto add = [](const char* from, v16 mask, char* to) { pack12(unpack12(from) + mask, to); };
    each_group(first * 2, count * 2, [&](uint64_t block, int64_t offset, int64_t bytes) {
        alignas(64) v32 total[16];
        masks_of_group<v16>(masks, lane, block, total);
        if (left == 0 && bytes == GROUP_BYTES) {
            alignas(64) v16 ordered[16];
            put_in_order(total, reinterpret_cast<char*>(ordered));
            for (int i = 0; i < 16; i += 4) add_four12(words + i * BYTES12, ordered + i, out + i * BYTES12);
            words += GROUP_BYTES * 3 / 4, out += GROUP_BYTES * 3 / 4;
            return;
        }
        put_in_order(total, group);
        const char* mask = group + offset - left;
        for (left += bytes; left >= VB; left -= VB) {
            add(words, load<v16>(mask), out);
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
