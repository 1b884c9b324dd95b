// Sums over inputs: weighted mean, base + combination, scaled add, conversions, copy.
#pragma once
#include "level_vector.h"

namespace shoal {
namespace {

// --- float64: sums in double-double --------------------------------------------------------------------------------

constexpr double HUGE_ROW = 0x1p400, TINY_ROW = 0x1p-400, SHIFT = 0x1p600;
// Between these, Dekker's splitting gives the exact error of a product; outside, and at no level with a fused
// multiply-add, the careful path is taken.
[[maybe_unused]] constexpr double SPLIT_MIN = 0x1p-900, SPLIT_MAX = 0x1p900;

template <class V>
INLINE V two_sum(V a, V b, V& error) {
    V s = a + b;
    V t = s - a;
    error = (a - (s - t)) + (b - t);
    return s;
}

// The error of p = a * b.  Without FMA: of products in the safe range only.
INLINE vd product_error(vd a, vd b, vd p) {
#if defined(__AVX512F__)
    return _mm512_fmsub_pd(a, b, p);
#elif defined(__FMA__)
    return _mm256_fmsub_pd(a, b, p);
#else
    vd t = a * 134217729.0, u = b * 134217729.0;
    vd ah = t - (t - a), bh = u - (u - b);
    vd al = a - ah, bl = b - bh;
    return ((ah * bh - p) + ah * bl + al * bh) + al * bl;
#endif
}

// Lanes whose product_error is exact.
INLINE vl exact_products([[maybe_unused]] vd a, [[maybe_unused]] vd b, [[maybe_unused]] vd p) {
#if defined(__AVX512F__) || defined(__FMA__)
    return ~vl{};
#else
    vd size = magnitude(p);
    return ((size > SPLIT_MIN) & (size < SPLIT_MAX) & (magnitude(a) < SPLIT_MAX) & (magnitude(b) < SPLIT_MAX)) |
           (a == vd{});
#endif
}

struct WideSum {
    double hi = 0, lo = 0;
    INLINE void start(double p, double error) {
        hi = p;
        lo = error;
    }
    INLINE void add(double p, double error) {
        double t;
        hi = two_sum(hi, p, t);
        lo = lo + (t + error);
    }
};

// One coordinate of reference._mean_rows, whatever its values.
[[gnu::noinline]] double wide_mean_one(const double* x, const double* w, int64_t count) {
    double largest = 0, total = 0, total_rest = 0, plain = x[0] * w[0];
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        double size = __builtin_fabs(x[i]);
        largest = size > largest ? size : largest;
        finite &= size < __builtin_inf();
        double lost;
        total = two_sum(total, w[i], lost);
        total_rest += lost;
        if (i) plain += x[i] * w[i];
    }
    if (!finite || largest == 0) return plain / total;
    const double scale = largest >= HUGE_ROW ? 1 / SHIFT : largest < TINY_ROW ? SHIFT : 1;
    WideSum sum;
    for (int64_t i = 0; i < count; i++) {
        double v = x[i] * scale, p = v * w[i], error = __builtin_fma(v, w[i], -p);
        i ? sum.add(p, error) : sum.start(p, error);
    }
    double rest;
    double hi = two_sum(sum.hi, sum.lo, rest);
    double quotient = hi / total, p = quotient * total, error = __builtin_fma(quotient, total, -p);
    return (quotient + ((((hi - p) - error) + rest) - quotient * total_rest) / total) * (1 / scale);
}

[[gnu::noinline]] vd wide_mean_careful(const char* const* rows, int64_t count, int64_t at, const double* w) {
    double column[MODELS_MAX], result[LD];
    for (int k = 0; k < LD; k++) {
        for (int64_t i = 0; i < count; i++) copy_bytes(&column[i], rows[i] + at + k * 8, 8);
        result[k] = wide_mean_one(column, w, count);
    }
    return load<vd>(result);
}

template <int U>
INLINE void wide_mean_block(const char* const* rows, int64_t count, int64_t at, const double* w, Total total,
                            vd* mean) {
    vd hi[U], lo[U], largest[U];
    vl exact[U];
    for (int u = 0; u < U; u++) {
        vd x = load<vd>(rows[0] + at + u * VB), weight = all(w[0]);
        hi[u] = x * weight;
        lo[u] = product_error(x, weight, hi[u]);
        exact[u] = exact_products(x, weight, hi[u]);
        largest[u] = magnitude(x);
    }
    for (int64_t i = 1; i < count; i++) {
        vd weight = all(w[i]);
        for (int u = 0; u < U; u++) {
            vd x = load<vd>(rows[i] + at + u * VB), p = x * weight, t;
            vd error = product_error(x, weight, p), size = magnitude(x);
            exact[u] &= exact_products(x, weight, p);
            largest[u] = largest[u] > size ? largest[u] : size;
            hi[u] = two_sum(hi[u], p, t);
            lo[u] = lo[u] + (t + error);
        }
    }
    const vd totals = all(total.sum);
    for (int u = 0; u < U; u++) {
        vd rest, sum = two_sum(hi[u], lo[u], rest);
        vd quotient = sum / totals, p = quotient * totals;
        vd wide =
            quotient + ((((sum - p) - product_error(quotient, totals, p)) + rest) - quotient * total.rest) / totals;
        vl zero = largest[u] == vd{};
        vl plain = ((largest[u] >= TINY_ROW) & (largest[u] < HUGE_ROW) & (hi[u] - hi[u] == vd{}) & exact[u] &
                    exact_products(quotient, totals, p)) |
                   zero;
        mean[u] = zero ? hi[u] / totals : wide;
        if (any(~plain)) [[unlikely]]
            mean[u] = wide_mean_careful(rows, count, at + u * VB, w);
    }
}

// --- weighted mean -------------------------------------------------------------------------------------------------

template <class T, int U, bool EXACT>
INLINE void mean_block(const char* const* rows, int64_t count, int64_t at, const double* w, Total total, vd* mean) {
    constexpr int STEP = LD * T::SIZE;
    if constexpr (T::TYPE == F64) {
        wide_mean_block<U>(rows, count, at, w, total, mean);
    } else {
        const bool many = U > 1 && count > STREAMS_MAX;
        vd sum[U];
        for (int u = 0; u < U; u++) sum[u] = all(w[0]) * widen<T>(rows[0] + at + u * STEP);
        for (int64_t i = 1; i < count; i++) {
            const char* row = rows[i] + at;
            vd weight = all(w[i]);
            if (many) fetch(row, 2 * U * STEP, U * STEP);
            for (int u = 0; u < U; u++) sum[u] = add_product<EXACT>(weight, widen<T>(row + u * STEP), sum[u]);
        }
        for (int u = 0; u < U; u++) mean[u] = sum[u] / all(total.sum);
    }
}

// Runs body(rows, at, out, U) over [begin, end): U registers of doubles at a time, then one, and the ragged end on a
// copy filled up with zeros.
template <class T, int U, class Body>
INLINE void for_blocks(const char* const* rows, int64_t count, char* out, int out_size, int64_t begin, int64_t end,
                       char* scratch, Body body) {
    int64_t k = begin;
    for (; k + U * LD <= end; k += U * LD) body.template operator()<U>(rows, k * T::SIZE, out + k * out_size);
    for (; k + LD <= end; k += LD) body.template operator()<1>(rows, k * T::SIZE, out + k * out_size);
    if (k == end) return;
    const char** tails = reinterpret_cast<const char**>(scratch + SCRATCH_BYTES - ROWS_BYTES);
    char* copies = scratch + TILE_BYTES;
    constexpr int BYTES = LD * T::SIZE;
    for (int64_t i = 0; i < count; i++) {
        char* copy = copies + i * BYTES;
        for (int b = 0; b < BYTES; b++) copy[b] = 0;
        copy_bytes(copy, rows[i] + k * T::SIZE, (end - k) * T::SIZE);
        tails[i] = copy;
    }
    alignas(64) char last[VB];
    body.template operator()<1>(tails, 0, last);
    copy_bytes(out + k * out_size, last, (end - k) * out_size);
}

// A coordinate's sum is finite if all its inputs are (float64: unless it overflows); `seen` collects NaN.
INLINE bool clean(vd seen) { return !any(seen != seen); }

template <class T, bool PAST, bool EXACT = false>
bool mean_rows(const char* const* rows, int64_t count, const double* w, Total total, char* out, int64_t begin,
               int64_t end, char* scratch) {
    vd seen{};
    for_blocks<T, T::TYPE == F64 ? 4 : 8>(rows, count, out, T::SIZE, begin, end, scratch,
                                          [&]<int U>(const char* const* from, int64_t at, char* to)
                                              __attribute__((always_inline)) {
                                                  vd mean[U];
                                                  mean_block<T, U, EXACT>(from, count, at, w, total, mean);
                                                  for (int u = 0; u < U; u++) {
                                                      seen += mean[u] - mean[u];
                                                      narrow<T, PAST>(to + u * LD * T::SIZE, mean[u]);
                                                  }
                                              });
    return clean(seen);
}

template <class T, bool EXACT>
bool weighted_mean_with(const Call& c, int64_t begin, int64_t end, char* scratch) {
    if (c.stream && aligned(c.out + begin * T::SIZE)) {
        bool finite = mean_rows<T, true, EXACT>(c.inputs, c.count, c.weights, c.total, c.out, begin, end, scratch);
        fence();
        return finite;
    }
    return mean_rows<T, false, EXACT>(c.inputs, c.count, c.weights, c.total, c.out, begin, end, scratch);
}

template <class T>
bool weighted_mean(const Call& c, int64_t begin, int64_t end, char* scratch) {
    return T::TYPE != F64 && c.short_weights ? weighted_mean_with<T, T::TYPE != F64>(c, begin, end, scratch)
                                             : weighted_mean_with<T, false>(c, begin, end, scratch);
}

// --- is all finite? (only asked when a sum says that it may not be) ------------------------------------------------

template <class T>
bool all_finite(const char* x, int64_t length) {
    typename T::bits bits;
    bool finite = true;
    for (int64_t k = 0; k < length; k++) {
        copy_bytes(&bits, x + k * T::SIZE, T::SIZE);
        finite &= (bits & T::INF) != T::INF;
    }
    return finite;
}

// --- base + sum of c_i (x_i - base) --------------------------------------------------------------------------------

// One coordinate in float64, for levels without a fused multiply-add.
[[gnu::noinline]] double wide_combine_one(const double* x, const double* base, const double* c, int64_t count) {
    WideSum sum;
    for (int64_t i = 0; i < count; i++) {
        double dl = 0, dh = base ? two_sum(x[i], -*base, dl) : x[i];
        double p = dh * c[i], error = __builtin_fma(dh, c[i], -p);
        double rest = error + c[i] * dl;
        i ? sum.add(p, rest) : sum.start(p, rest);
    }
    if (!base) return sum.hi + sum.lo;
    if (sum.hi == 0 && sum.lo == 0) return *base;
    double t, s = two_sum(*base, sum.hi, t);
    return s + (t + sum.lo);
}

[[gnu::noinline]] vd wide_combine_careful(const char* const* rows, const char* base, int64_t count, int64_t at,
                                          const double* c) {
    double column[MODELS_MAX], start = 0, result[LD];
    for (int k = 0; k < LD; k++) {
        for (int64_t i = 0; i < count; i++) copy_bytes(&column[i], rows[i] + at + k * 8, 8);
        if (base) copy_bytes(&start, base + at + k * 8, 8);
        result[k] = wide_combine_one(column, base ? &start : nullptr, c, count);
    }
    return load<vd>(result);
}

template <int U, bool BASE>
INLINE void wide_combine_block(const char* const* rows, const char* base, int64_t count, int64_t at, const double* c,
                               vd* result) {
    vd hi[U] = {}, lo[U] = {};
    vl exact[U];
    for (int u = 0; u < U; u++) exact[u] = ~vl{};
    for (int64_t i = 0; i < count; i++) {
        vd coefficient = all(c[i]);
        for (int u = 0; u < U; u++) {
            vd x = load<vd>(rows[i] + at + u * VB), dl{}, dh = x, t;
            if (BASE) dh = two_sum(x, -load<vd>(base + at + u * VB), dl);
            vd p = dh * coefficient, rest = product_error(dh, coefficient, p) + coefficient * dl;
            exact[u] &= exact_products(dh, coefficient, p);
            if (i == 0) {
                hi[u] = p;
                lo[u] = rest;
            } else {
                hi[u] = two_sum(hi[u], p, t);
                lo[u] = lo[u] + (t + rest);
            }
        }
    }
    for (int u = 0; u < U; u++) {
        result[u] = hi[u] + lo[u];
        if (BASE) {
            vd start = load<vd>(base + at + u * VB), t, s = two_sum(start, hi[u], t);
            result[u] = (hi[u] == vd{}) & (lo[u] == vd{}) ? start : s + (t + lo[u]);
        }
        if (any(~exact[u])) [[unlikely]]
            result[u] = wide_combine_careful(rows, BASE ? base : nullptr, count, at + u * VB, c);
    }
}

template <class T, int U, bool BASE>
INLINE void combine_block(const char* const* rows, const char* base, int64_t count, int64_t at, const double* c,
                          vd* result) {
    constexpr int STEP = LD * T::SIZE;
    if constexpr (T::TYPE == F64) {
        wide_combine_block<U, BASE>(rows, base, count, at, c, result);
    } else {
        vd start[U], sum[U];
        for (int u = 0; u < U; u++) {
            start[u] = BASE ? widen<T>(base + at + u * STEP) : vd{};
            vd x = widen<T>(rows[0] + at + u * STEP);
            sum[u] = all(c[0]) * (BASE ? x - start[u] : x);
        }
        for (int64_t i = 1; i < count; i++) {
            vd coefficient = all(c[i]);
            for (int u = 0; u < U; u++) {
                vd x = widen<T>(rows[i] + at + u * STEP);
                sum[u] += coefficient * (BASE ? x - start[u] : x);
            }
        }
        for (int u = 0; u < U; u++) result[u] = BASE ? (sum[u] == vd{} ? start[u] : start[u] + sum[u]) : sum[u];
    }
}

// Coefficients can make finite inputs overflow, so a block whose results are not finite is looked at once more, before
// it is written (out may be one of the inputs).
template <class T, int U>
INLINE bool block_finite(const char* const* rows, int64_t count, int64_t at, const vd* result) {
    vd seen{};
    for (int u = 0; u < U; u++) seen += result[u] - result[u];
    if (clean(seen)) [[likely]]
        return true;
    for (int64_t i = 0; i < count; i++)
        if (!all_finite<T>(rows[i] + at, U * LD)) return false;
    return true;
}

template <class T, bool PAST, bool BASE>
bool combine_rows(const Call& c, const char* const* rows, int64_t begin, int64_t end, char* scratch) {
    bool finite = true;
    const int64_t count = c.count + BASE;
    for_blocks<T, 4>(rows, count, c.out, T::SIZE, begin, end, scratch,
                     [&]<int U>(const char* const* from, int64_t at, char* to) __attribute__((always_inline)) {
                         vd result[U];
                         combine_block<T, U, BASE>(from, BASE ? from[c.count] : nullptr, c.count, at, c.weights,
                                                   result);
                         finite &= block_finite<T, U>(from, count, at, result);
                         for (int u = 0; u < U; u++) narrow<T, PAST>(to + u * LD * T::SIZE, result[u]);
                     });
    if (PAST) fence();
    return finite;
}

template <class T>
bool combine(const Call& c, int64_t begin, int64_t end, char* scratch) {
    const char** rows = reinterpret_cast<const char**>(scratch + SCRATCH_BYTES - 2 * ROWS_BYTES);
    for (int64_t i = 0; i < c.count; i++) rows[i] = c.inputs[i];
    if (c.base) rows[c.count] = c.base;
    const bool past = c.stream && aligned(c.out + begin * T::SIZE);
    if (c.base)
        return past ? combine_rows<T, true, true>(c, rows, begin, end, scratch)
                    : combine_rows<T, false, true>(c, rows, begin, end, scratch);
    return past ? combine_rows<T, true, false>(c, rows, begin, end, scratch)
                : combine_rows<T, false, false>(c, rows, begin, end, scratch);
}

// --- y + scale * x: inputs are {y, x} ------------------------------------------------------------------------------

template <class T, bool PAST>
bool scaled_add_rows(const Call& c, int64_t begin, int64_t end, char* scratch) {
    bool finite = true;
    const vd scale = all(c.weights[0]);
    for_blocks<T, 4>(c.inputs, 2, c.out, T::SIZE, begin, end, scratch,
                     [&]<int U>(const char* const* from, int64_t at, char* to) __attribute__((always_inline)) {
                         constexpr int STEP = LD * T::SIZE;
                         vd result[U];
                         for (int u = 0; u < U; u++)
                             result[u] = widen<T>(from[0] + at + u * STEP) + scale * widen<T>(from[1] + at + u * STEP);
                         finite &= block_finite<T, U>(from, 2, at, result);
                         for (int u = 0; u < U; u++) narrow<T, PAST>(to + u * STEP, result[u]);
                     });
    if (PAST) fence();
    return finite;
}

template <class T>
bool scaled_add(const Call& c, int64_t begin, int64_t end, char* scratch) {
    return c.stream && aligned(c.out + begin * T::SIZE) ? scaled_add_rows<T, true>(c, begin, end, scratch)
                                                        : scaled_add_rows<T, false>(c, begin, end, scratch);
}

// --- conversions ---------------------------------------------------------------------------------------------------

template <class From, class To, bool PAST>
void convert_rows(const Call& c, int64_t begin, int64_t end, char* scratch) {
    for_blocks<From, 4>(c.inputs, 1, c.out, To::SIZE, begin, end, scratch,
                        [&]<int U>(const char* const* from, int64_t at, char* to) __attribute__((always_inline)) {
                            for (int u = 0; u < U; u++)
                                narrow<To, PAST>(to + u * LD * To::SIZE,
                                                 widen<From>(from[0] + at + u * LD * From::SIZE));
                        });
    if (PAST) fence();
}

template <class From, class To>
bool convert(const Call& c, int64_t begin, int64_t end, char* scratch) {
    if (c.stream && aligned(c.out + begin * To::SIZE)) {
        convert_rows<From, To, true>(c, begin, end, scratch);
    } else {
        convert_rows<From, To, false>(c, begin, end, scratch);
    }
    return true;
}

// --- copy: the limit that other kernels are measured against -------------------------------------------------------

inline bool copy(const Call& c, int64_t begin, int64_t end, char*) {
    const char* from = c.inputs[0];
    int64_t k = begin;
    if (c.stream && aligned(c.out + begin)) {
        for (; k + 4 * VB <= end; k += 4 * VB) {
            vd part[4];
            for (int u = 0; u < 4; u++) part[u] = load<vd>(from + k + u * VB);
            for (int u = 0; u < 4; u++) store_past(c.out + k + u * VB, part[u]);
        }
        fence();
    }
    copy_bytes(c.out + k, from + k, end - k);
    return true;
}

// --- rules of users: values[k * count + i] of coordinates [begin, end) in `scratch`, written by engine.cpp ----------

template <class T>
bool to_columns(const Call& c, int64_t begin, int64_t end, char* scratch) {
    double* values = reinterpret_cast<double*>(c.out);
    vd seen{};
    const char* tail[1];
    alignas(64) char copy[VB];
    for (int64_t i = 0; i < c.count; i++) {
        for (int64_t k = begin; k < end; k += LD) {
            const int64_t left = end - k < LD ? end - k : LD;
            tail[0] = c.inputs[i] + k * T::SIZE;
            if (left < LD) {
                store(copy, vd{});
                copy_bytes(copy, tail[0], left * T::SIZE);
                tail[0] = copy;
            }
            vd x = widen<T>(tail[0]);
            seen += x - x;
            for (int64_t e = 0; e < left; e++) values[(k - begin + e) * c.count + i] = x[e];
        }
    }
    (void)scratch;
    return clean(seen);
}

// inputs[0] holds doubles of coordinates [begin, end), from its start.
template <class T>
bool from_doubles(const Call& c, int64_t begin, int64_t end, char* scratch) {
    Call shifted = c;
    shifted.out = c.out + begin * T::SIZE;
    shifted.stream = false;
    return convert<Float64, T>(shifted, 0, end - begin, scratch);
}

}  // namespace
}  // namespace shoal
