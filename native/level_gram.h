// Inner products of all pairs, and statistics, per block of GRAM_BLOCK elements in GRAM_LANES running sums.
#pragma once
#include "level_mean.h"

namespace shoal {
namespace {

constexpr int SIDE = VB == 64 ? 4 : 3;       // pairs are taken SIDE x SIDE at a time
constexpr int PARTS = int(GRAM_LANES) / LD;  // registers that hold the lanes

INLINE double lanes_sum(const double* s) {
    double sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    return sum == sum ? sum : __builtin_nan("");
}

// The next tile of the rows of a diagonal block: asked for while this one is multiplied.
struct Ahead {
    const char* const* rows;  // null: nothing to ask for
    int64_t at;               // bytes
    int size;                 // of an element
};

// sums[a * stride + b] += rows[a] * columns[b] over `length` doubles (a multiple of GRAM_LANES).
// EXACT: products are exact in double, so that a fused multiply-add gives the same bits.
template <int A, int B, bool DIAGONAL, bool EXACT>
INLINE void pair_block(const double* rows, const double* columns, int64_t row_stride, int64_t length, double* sums,
                       int64_t stride, const Ahead& ahead) {
    for (int part = 0; part < PARTS; part++) {
        vd sum[A][B];
        for (int a = 0; a < A; a++)
            for (int b = DIAGONAL ? a : 0; b < B; b++)
                sum[a][b] = load<vd>(sums + (a * stride + b) * GRAM_LANES + part * LD);
        for (int64_t k = part * LD; k < length; k += GRAM_LANES) {
            if (DIAGONAL && part == 0 && ahead.rows && (k * ahead.size) % 64 == 0)
                for (int a = 0; a < A; a++) __builtin_prefetch(ahead.rows[a] + ahead.at + k * ahead.size, 0, 2);
            vd y[B];
            for (int b = 0; b < B; b++) y[b] = load<vd>(columns + b * row_stride + k);
            for (int a = 0; a < A; a++) {
                vd x = DIAGONAL ? y[a] : load<vd>(rows + a * row_stride + k);
                for (int b = DIAGONAL ? a : 0; b < B; b++) {
#if defined(__AVX512F__)
                    if constexpr (EXACT) {
                        sum[a][b] = _mm512_fmadd_pd(x, y[b], sum[a][b]);
                        continue;
                    }
#elif defined(__FMA__)
                    if constexpr (EXACT) {
                        sum[a][b] = _mm256_fmadd_pd(x, y[b], sum[a][b]);
                        continue;
                    }
#endif
                    sum[a][b] += x * y[b];
                }
            }
        }
        for (int a = 0; a < A; a++)
            for (int b = DIAGONAL ? a : 0; b < B; b++)
                store(sums + (a * stride + b) * GRAM_LANES + part * LD, sum[a][b]);
    }
}

using PairBlock = void (*)(const double*, const double*, int64_t, int64_t, double*, int64_t, const Ahead&);

template <int A, int B, bool DIAGONAL, bool EXACT>
void run_pair_block(const double* rows, const double* columns, int64_t row_stride, int64_t length, double* sums,
                    int64_t stride, const Ahead& ahead) {
    pair_block<A, B, DIAGONAL, EXACT>(rows, columns, row_stride, length, sums, stride, ahead);
}

template <bool EXACT>
INLINE PairBlock pick_pair_block(int64_t a, int64_t b, bool diagonal) {
    // The first side is SIDE long off the diagonal, because only the last block of inputs is shorter.
    if constexpr (SIDE == 4) {
        static constexpr PairBlock on[] = {run_pair_block<1, 1, true, EXACT>, run_pair_block<2, 2, true, EXACT>,
                                           run_pair_block<3, 3, true, EXACT>, run_pair_block<4, 4, true, EXACT>};
        static constexpr PairBlock off[] = {run_pair_block<4, 1, false, EXACT>, run_pair_block<4, 2, false, EXACT>,
                                            run_pair_block<4, 3, false, EXACT>, run_pair_block<4, 4, false, EXACT>};
        return diagonal ? on[a - 1] : off[b - 1];
    } else {
        static constexpr PairBlock on[] = {run_pair_block<1, 1, true, EXACT>, run_pair_block<2, 2, true, EXACT>,
                                           run_pair_block<3, 3, true, EXACT>};
        static constexpr PairBlock off[] = {run_pair_block<3, 1, false, EXACT>, run_pair_block<3, 2, false, EXACT>,
                                            run_pair_block<3, 3, false, EXACT>};
        return diagonal ? on[a - 1] : off[b - 1];
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

template <class T, bool EXACT>
void gram_block(const Call& c, int64_t begin, int64_t end, char* scratch) {
    const int64_t n = c.count;
    double* wide = reinterpret_cast<double*>(scratch);
    double* sums = reinterpret_cast<double*>(scratch + SCRATCH_BYTES);  // [n][n][GRAM_LANES], i <= j
    int64_t tile = (24 << 10) / (8 * n) / GRAM_LANES * GRAM_LANES;
    tile = tile < GRAM_LANES ? GRAM_LANES : tile;
    const int64_t stride = tile;
    for (int64_t i = 0; i < n * n * GRAM_LANES; i++) sums[i] = 0;
    for (int64_t k = begin; k < end; k += tile) {
        const int64_t length = end - k < tile ? end - k : tile;
        const int64_t full = (length + GRAM_LANES - 1) / GRAM_LANES * GRAM_LANES;
        for (int64_t i = 0; i < n; i++) widen_tile<T>(c.inputs[i], c.base, k, length, wide + i * stride);
        for (int64_t i = 0; i < n; i += SIDE)
            for (int64_t j = i; j < n; j += SIDE) {
                const int64_t a = n - i < SIDE ? n - i : SIDE, b = n - j < SIDE ? n - j : SIDE;
                pick_pair_block<EXACT>(a, b, i == j)(
                    wide + i * stride, wide + j * stride, stride, full, sums + (i * n + j) * GRAM_LANES, n,
                    {k + 2 * tile <= end ? c.inputs + i : nullptr, (k + tile) * T::SIZE, T::SIZE});
            }
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
