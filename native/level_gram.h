// Inner products of all pairs, and statistics, per block of GRAM_BLOCK elements in GRAM_LANES running sums.
#pragma once
#include <utility>  // integer_sequence

#include "level_mean.h"

namespace shoal {
namespace {

constexpr int SIDE = VB == 64 ? 4 : 3;       // pairs are taken SIDE x SIDE at a time
constexpr int PARTS = int(GRAM_LANES) / LD;  // registers that hold the lanes

INLINE double lanes_sum(const double* s) {
    double sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    return sum == sum ? sum : __builtin_nan("");
}

// sums[a * stride + b] += rows[a] * columns[b] over `length` elements from byte `at` (a multiple of GRAM_LANES).
// EXACT: products are exact in double, so that a fused multiply-add gives the same bits.
// ahead: how many elements further to ask for what comes next, or 0.
template <class T, int A, int B, bool DIAGONAL, bool EXACT>
void pair_block(const char* const* rows, const char* const* columns, int64_t at, int64_t length, int64_t ahead,
                double* sums, int64_t stride) {
    constexpr int64_t LINE = 64 / T::SIZE;
    for (int part = 0; part < PARTS; part++) {
        vd sum[A][B];
        for (int a = 0; a < A; a++)
            for (int b = DIAGONAL ? a : 0; b < B; b++)
                sum[a][b] = load<vd>(sums + (a * stride + b) * GRAM_LANES + part * LD);
        for (int64_t k = part * LD; k < length; k += GRAM_LANES) {
            if (DIAGONAL && part == 0 && ahead && k % LINE == 0)
                for (int a = 0; a < A; a++) __builtin_prefetch(rows[a] + at + (k + ahead) * T::SIZE, 0, 2);
            vd y[B];
            for (int b = 0; b < B; b++) y[b] = widen<T>(columns[b] + at + k * T::SIZE);
            for (int a = 0; a < A; a++) {
                vd x = DIAGONAL ? y[a] : widen<T>(rows[a] + at + k * T::SIZE);
                for (int b = DIAGONAL ? a : 0; b < B; b++) sum[a][b] = add_product<EXACT>(x, y[b], sum[a][b]);
            }
        }
        for (int a = 0; a < A; a++)
            for (int b = DIAGONAL ? a : 0; b < B; b++)
                store(sums + (a * stride + b) * GRAM_LANES + part * LD, sum[a][b]);
    }
}

using PairBlock = void (*)(const char* const*, const char* const*, int64_t, int64_t, int64_t, double*, int64_t);

// Off the diagonal the first side is SIDE long: only the last inputs make a shorter one.
template <class T, bool EXACT, int... N>
INLINE PairBlock pick_pair_block(int64_t b, bool diagonal, std::integer_sequence<int, N...>) {
    static constexpr PairBlock on[] = {pair_block<T, N + 1, N + 1, true, EXACT>...};
    static constexpr PairBlock off[] = {pair_block<T, SIDE, N + 1, false, EXACT>...};
    return (diagonal ? on : off)[b - 1];
}

// All pairs of n rows.
template <class T, bool EXACT>
INLINE void all_pairs(const char* const* rows, int64_t n, int64_t at, int64_t length, int64_t ahead, double* sums) {
    for (int64_t i = 0; i < n; i += SIDE)
        for (int64_t j = i; j < n; j += SIDE) {
            const int64_t b = n - j < SIDE ? n - j : SIDE;
            pick_pair_block<T, EXACT>(b, i == j, std::make_integer_sequence<int, SIDE>{})(
                rows + i, rows + j, at, length, ahead, sums + (i * n + j) * GRAM_LANES, n);
        }
}

template <class T>
INLINE void widen_tile(const char* x, const char* base, int64_t at, int64_t length, double* to) {
    int64_t k = 0;
    auto one = [](const char* from, const char* minus)
                   __attribute__((always_inline)) { return minus ? widen<T>(from) - widen<T>(minus) : widen<T>(from); };
    const char *from = x + at * T::SIZE, *minus = base ? base + at * T::SIZE : nullptr;
    for (; k + LD <= length; k += LD) store(to + k, one(from + k * T::SIZE, minus ? minus + k * T::SIZE : nullptr));
    if (k < length) {
        alignas(64) char copies[2][VB] = {};
        copy_bytes(copies[0], from + k * T::SIZE, (length - k) * T::SIZE);
        if (minus) copy_bytes(copies[1], minus + k * T::SIZE, (length - k) * T::SIZE);
        store(to + k, one(copies[0], minus ? copies[1] : nullptr));
        k += LD;
    }
    for (; k % GRAM_LANES; k += LD) store(to + k, vd{});
}

// Rows as they are where they can be read in whole steps; else (a base is subtracted, or the ragged end) widened in
// tiles.
template <class T, bool EXACT>
void gram_block(const Call& c, int64_t begin, int64_t end, char* scratch) {
    const int64_t n = c.count;
    double* wide = reinterpret_cast<double*>(scratch);
    const char** tiles = reinterpret_cast<const char**>(scratch + SCRATCH_BYTES - ROWS_BYTES);
    double* sums = reinterpret_cast<double*>(scratch + SCRATCH_BYTES);  // [n][n][GRAM_LANES], i <= j
    for (int64_t i = 0; i < n * n * GRAM_LANES; i++) sums[i] = 0;
    const auto tile_of = [&](int64_t size) {
        const int64_t fitting = (16 << 10) / (size * n) / GRAM_LANES * GRAM_LANES;
        return fitting < GRAM_LANES ? GRAM_LANES : fitting;
    };
    int64_t k = begin;
    if (!c.base) {
        const int64_t tile = tile_of(T::SIZE), whole = end - (end - begin) % GRAM_LANES;
        for (; k < whole; k += tile) {
            const int64_t length = whole - k < tile ? whole - k : tile;
            all_pairs<T, EXACT>(c.inputs, n, k * T::SIZE, length, k + 2 * tile <= whole ? tile : 0, sums);
        }
        k = whole;
    }
    const int64_t tile = tile_of(8);
    for (int64_t i = 0; i < n; i++) tiles[i] = reinterpret_cast<const char*>(wide + i * tile);
    for (; k < end; k += tile) {
        const int64_t length = end - k < tile ? end - k : tile;
        for (int64_t i = 0; i < n; i++) widen_tile<T>(c.inputs[i], c.base, k, length, wide + i * tile);
        all_pairs<Float64, EXACT>(tiles, n, 0, (length + GRAM_LANES - 1) / GRAM_LANES * GRAM_LANES, 0, sums);
    }
    double* found = c.gram + begin / GRAM_BLOCK * n * n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i; j < n; j++)
            found[i * n + j] = found[j * n + i] = lanes_sum(sums + (i * n + j) * GRAM_LANES);
}

// [begin, end) is one block.
template <class T>
bool gram(const Call& c, int64_t begin, int64_t end, char* scratch) {
    if (T::TYPE != F64 && !c.base) {
        gram_block<T, T::TYPE != F64>(c, begin, end, scratch);
    } else {
        gram_block<T, false>(c, begin, end, scratch);
    }
    return true;
}

template <class T>
bool stats(const Call& c, int64_t begin, int64_t end, char*) {
    Statistics& found = c.statistics[begin / GRAM_BLOCK];
    found = {0, 0, 0, -1};
    const char* x = c.inputs[0];
    vd largest[PARTS] = {}, sum[PARTS] = {};
    vl bad[PARTS] = {};
    for (int64_t k = begin; k < end; k += GRAM_LANES)
        for (int part = 0; part < PARTS; part++) {
            const int64_t at = k + part * LD, left = end - at;
            if (left <= 0) break;
            vd v;
            if (left >= LD) {
                v = widen<T>(x + at * T::SIZE);
            } else {
                alignas(64) char copy[VB] = {};
                copy_bytes(copy, x + at * T::SIZE, left * T::SIZE);
                v = widen<T>(copy);
            }
            vl good = v - v == vd{};
            bad[part] -= ~good;
            v = good ? v : vd{};
            largest[part] = magnitude(v) > largest[part] ? magnitude(v) : largest[part];
            sum[part] += v * v;
        }
    double lanes[GRAM_LANES];
    for (int part = 0; part < PARTS; part++) {
        store(lanes + part * LD, sum[part]);
        for (int e = 0; e < LD; e++) {
            found.largest = largest[part][e] > found.largest ? largest[part][e] : found.largest;
            found.bad += bad[part][e];
        }
    }
    found.squares = lanes_sum(lanes);
    typename T::bits bits;
    for (int64_t k = begin; found.bad && found.first < 0; k++) {
        copy_bytes(&bits, x + k * T::SIZE, T::SIZE);
        if ((bits & T::INF) == T::INF) found.first = k;
    }
    return found.bad == 0;
}

}  // namespace
}  // namespace shoal
