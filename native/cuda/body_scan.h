// Kernels that reduce, in the order that src/shoal/kernels/reference.py fixes: blocks of GRAM_BLOCK elements, in each
// GRAM_LANES running sums, which one thread each carries; then the lanes are folded and the blocks added in order.
#pragma once
#include "cuda/body_block.h"
#include "cuda/body_sums.h"

namespace shoal::cuda {

constexpr int SIDE = 4;  // pairs of inputs are taken SIDE x SIDE at a time

SHOAL_BOTH double folded_lanes(const double* s) {
    const double sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    return sum == sum ? sum : bits_as<double>(Float64::QUIET);
}

SHOAL_BOTH int64_t block_end(int64_t block, int64_t length) {
    const int64_t end = (block + 1) * GRAM_BLOCK;
    return end < length ? end : length;
}

// --- largest magnitude, sum of squares, NaN and Inf ------------------------------------------------------------------

struct Seen {
    double largest, squares;
    int64_t bad, first;
};

SHOAL_BOTH void join(Seen& all, const Seen& more) {
    all.largest = more.largest > all.largest ? more.largest : all.largest;
    all.bad += more.bad;
    if (more.first >= 0 && (all.first < 0 || more.first < all.first)) all.first = more.first;
}

template <class T>
struct StatsBody {
    const char* x;
    int64_t length;
    Seen* lanes;  // [blocks][GRAM_LANES]

    SHOAL_BOTH void operator()(int64_t i) const {
        const int64_t block = i / GRAM_LANES, end = block_end(block, length);
        Seen seen{0, 0, 0, -1};
#if defined(__CUDA_ARCH__)
#    pragma unroll 16
#endif
        for (int64_t k = block * GRAM_BLOCK + i % GRAM_LANES; k < end; k += GRAM_LANES) {
            const auto bits = reinterpret_cast<const typename T::Bits*>(x)[k];
            const bool good = is_finite<T>(bits);
            const double value = good ? magnitude(widened<T>(bits)) : 0.0;
            seen.largest = value > seen.largest ? value : seen.largest;
            seen.squares = seen.squares + value * value;
            seen.bad += !good;
            if (!good && seen.first < 0) seen.first = k;
        }
        lanes[i] = seen;
    }
};

struct FoldStatsBody {
    const Seen* lanes;
    Seen* blocks;

    SHOAL_BOTH void operator()(int64_t block) const {
        Seen all{0, 0, 0, -1};
        double sums[GRAM_LANES];
        for (int i = 0; i < GRAM_LANES; i++) {
            const Seen one = lanes[block * GRAM_LANES + i];
            join(all, one);
            sums[i] = one.squares;
        }
        all.squares = folded_lanes(sums);
        blocks[block] = all;
    }
};

// One thread: blocks are added in order.
struct AddStatsBody {
    const Seen* blocks;
    int64_t count;
    double* numbers;  // [2] largest, squares
    int64_t* counts;  // [2] bad, first

    SHOAL_BOTH void operator()(int64_t) const {
        Seen all{0, 0, 0, -1};
#if defined(__CUDA_ARCH__)
#    pragma unroll 8
#endif
        for (int64_t i = 0; i < count; i++) {
            const Seen one = blocks[i];
            join(all, one);
            all.squares += one.squares;
        }
        numbers[0] = all.largest;
        numbers[1] = all.squares;
        counts[0] = all.bad;
        counts[1] = all.first;
    }
};

// --- inner products --------------------------------------------------------------------------------------------------

SHOAL_BOTH int groups_of(int count) { return (count + SIDE - 1) / SIDE; }

// Number `tile` of the squares (a, b), a <= b, of groups of SIDE inputs.
struct Square {
    int a, b;
    SHOAL_BOTH Square(int tile, int groups) : a(0), b(tile) {
        while (b >= groups - a) {
            b -= groups - a;
            a++;
        }
        b += a;
    }
};

SHOAL_BOTH int64_t squares_of(int count) { return int64_t(groups_of(count)) * (groups_of(count) + 1) / 2; }

template <class T>
struct GramBody {
    Rows rows;
    const char* base;  // or null
    double* sums;      // [blocks][squares][SIDE][SIDE][GRAM_LANES]

    SHOAL_BOTH void operator()(int64_t i) const {
        const int64_t squares = squares_of(rows.count), lane = i % GRAM_LANES, number = i / GRAM_LANES;
        const int64_t block = number / squares, end = block_end(block, rows.length);
        const Square square(int(number % squares), groups_of(rows.count));
        double sum[SIDE][SIDE] = {};
        for (int64_t k = block * GRAM_BLOCK + lane; k < end; k += GRAM_LANES) {
            double x[SIDE], y[SIDE];
            SHOAL_UNROLL
            for (int e = 0; e < SIDE; e++) {
                x[e] = value(square.a * SIDE + e, k);
                y[e] = value(square.b * SIDE + e, k);
            }
            SHOAL_UNROLL
            for (int e = 0; e < SIDE; e++) {
                SHOAL_UNROLL
                for (int f = 0; f < SIDE; f++) sum[e][f] = sum[e][f] + x[e] * y[f];
            }
        }
        double* to = sums + number * SIDE * SIDE * GRAM_LANES + lane;
        for (int e = 0; e < SIDE; e++)
            for (int f = 0; f < SIDE; f++) to[(e * SIDE + f) * GRAM_LANES] = sum[e][f];
    }

  private:
    SHOAL_BOTH double value(int input, int64_t k) const {
        typedef typename T::Bits Bits;
        if (input >= rows.count) return 0;
        const double x = widened<T>(reinterpret_cast<const Bits*>(rows.at[input])[k]);
        return base ? x - widened<T>(reinterpret_cast<const Bits*>(base)[k]) : x;
    }
};

struct FoldGramBody {
    const double* sums;
    int count;
    double* found;  // [blocks][count][count]

    SHOAL_BOTH void operator()(int64_t i) const {
        const int64_t block = i / (int64_t(count) * count);
        const int pair = int(i % (int64_t(count) * count)), row = pair / count, column = pair % count;
        const int low = row < column ? row : column, high = row < column ? column : row;
        const int a = low / SIDE, b = high / SIDE, groups = groups_of(count);
        const int64_t square = int64_t(a) * groups - int64_t(a) * (a - 1) / 2 + (b - a);
        const int64_t at = (block * squares_of(count) + square) * SIDE * SIDE + (low % SIDE) * SIDE + high % SIDE;
        found[i] = folded_lanes(sums + at * GRAM_LANES);
    }
};

// --- check sums ------------------------------------------------------------------------------------------------------

constexpr int CHECK_ROUNDS = 16;  // cipher blocks that a thread does before its sums join the others'

template <int BITS>
struct CheckBody {
    static constexpr bool TILE = false;
    using Sum = std::conditional_t<BITS == 64, uint64_t, uint32_t>;  // modulo 2^32 is enough for less
    StreamKey key;
    const char* words;
    int64_t count;
    uint64_t lane, first;
    int aligned;
    unsigned long long* sums;  // [CHECK_SUMS], zero before

    SHOAL_BOTH int phases(int64_t) const { return 3; }
    SHOAL_BOTH void phase(int phase, int64_t part, int thread, float*, Room& room) const {
        if (phase == 0 && thread < CHECK_SUMS) room.sums[thread] = 0;
        if (phase == 1 && thread < WORKERS) add_up(part * CHECK_ROUNDS * WORKERS + thread, room);
        if (phase == 2 && thread < CHECK_SUMS) add_shared(&sums[thread], int64_t(room.sums[thread]));
    }

  private:
    SHOAL_BOTH void add_up(int64_t unit, Room& room) const {
        Sum sum[CHECK_SUMS] = {};
        for (int round = 0; round < CHECK_ROUNDS; round++, unit += WORKERS) {
            const uint64_t counter = first / 16 + uint64_t(unit);
            const int64_t element = int64_t(counter * 16 - first);  // of the words; below 0: before them
            if (element >= count) break;
            uint32_t chosen[16];
            cipher_block(key, lane, counter, chosen);
            SHOAL_UNROLL
            for (int e = 0; e < 16; e++) {
                if (element + e < 0 || element + e >= count) continue;
                const Sum word = word_at(element + e);
                SHOAL_UNROLL
                for (int r = 0; r < CHECK_SUMS; r++) sum[r] += Sum(chosen[e] >> r & 1) * word;
            }
        }
        SHOAL_UNROLL
        for (int r = 0; r < CHECK_SUMS; r++) add_shared(&room.sums[r], int64_t(sum[r]));
    }

    SHOAL_BOTH Sum word_at(int64_t e) const {
        if constexpr (BITS == 12) {
            const uint8_t* three = reinterpret_cast<const uint8_t*>(words) + e / 2 * 3;
            return e % 2 ? three[1] >> 4 | three[2] << 4 : (three[0] | three[1] << 8) & 0xfff;
        } else {
            constexpr int BYTES = BITS / 8;
            using Word = std::conditional_t<BYTES == 1, uint8_t, std::conditional_t<BYTES == 2, uint16_t, Sum>>;
            if (aligned >= BYTES) return reinterpret_cast<const Word*>(words)[e];
            Sum word = 0;
            for (int b = 0; b < BYTES; b++) word |= Sum(uint8_t(words[e * BYTES + b])) << 8 * b;
            return word;
        }
    }
};

struct ClearBody {
    unsigned long long* sums;
    SHOAL_BOTH void operator()(int64_t i) const { sums[i] = 0; }
};

struct ReduceBody {
    unsigned long long *sums, mask;
    SHOAL_BOTH void operator()(int64_t i) const { sums[i] &= mask; }
};

}  // namespace shoal::cuda
