// One coordinate of the sums over inputs: weighted mean, base + combination.  The bits are those of
// src/shoal/kernels/reference.py; compiled without contraction, so that a product is rounded before it is added.
#pragma once
#include "cuda/element_number.h"

namespace shoal::cuda {

constexpr double HUGE_ROW = 0x1p400, TINY_ROW = 0x1p-400, SHIFT = 0x1p600;

SHOAL_BOTH double magnitude(double x) { return bits_as<double>(bits_as<int64_t>(x) & INT64_MAX); }

SHOAL_BOTH double fused(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
    return __fma_rn(a, b, c);
#else
    return __builtin_fma(a, b, c);
#endif
}

SHOAL_BOTH double two_sum(double a, double b, double& error) {
    const double s = a + b, t = s - a;
    error = (a - (s - t)) + (b - t);
    return s;
}

// A sum in double-double of products and their errors (Dekker 1971).
struct WideSum {
    double hi = 0, lo = 0;
    bool begun = false;

    SHOAL_BOTH void add(double p, double error) {
        if (!begun) {
            hi = p;
            lo = error;
            begun = true;
            return;
        }
        double t;
        hi = two_sum(hi, p, t);
        lo = lo + (t + error);
    }
};

struct PlainSum {
    double sum = 0;
    bool begun = false;

    // The first term is taken as it is: -0 must stay.
    SHOAL_BOTH void add(double term) {
        sum = begun ? sum + term : term;
        begun = true;
    }
};

// reference._mean_rows with wide=True; `terms(f)` calls f(value, weight) for every term in order, and may be called
// twice.
template <class Terms>
SHOAL_BOTH double wide_mean(const Terms& terms) {
    double largest = 0, total = 0, total_rest = 0;
    PlainSum plain;
    bool finite = true;
    terms([&](double x, double w) {
        const double size = magnitude(x);
        largest = size > largest ? size : largest;
        finite = finite && size - size == 0;
        double lost;
        total = two_sum(total, w, lost);
        total_rest += lost;
        plain.add(x * w);
    });
    if (!finite || largest == 0) return plain.sum / total;
    const double scale = largest >= HUGE_ROW ? 1 / SHIFT : largest < TINY_ROW ? SHIFT : 1;
    WideSum sum;
    terms([&](double x, double w) {
        const double v = x * scale, p = v * w;
        sum.add(p, fused(v, w, -p));
    });
    double rest;
    const double hi = two_sum(sum.hi, sum.lo, rest);
    const double quotient = hi / total, p = quotient * total, error = fused(quotient, total, -p);
    return (quotient + ((((hi - p) - error) + rest) - quotient * total_rest) / total) * (1 / scale);
}

// The same with wide=False; every weight counts, also those of zeros.
template <class Terms>
SHOAL_BOTH double plain_mean(const Terms& terms) {
    PlainSum sum;
    double total = 0;
    terms([&](double x, double w) {
        sum.add(w * x);
        total += w;
    });
    return sum.sum / total;
}

// reference.combine; `terms(f)` calls f(value, coefficient).
template <class T, class Terms>
SHOAL_BOTH double combined(const Terms& terms, bool has_base, double base) {
    if constexpr (T::TYPE != F64) {
        PlainSum sum;
        terms([&](double x, double c) { sum.add(c * (has_base ? x - base : x)); });
        return !has_base ? sum.sum : sum.sum == 0 ? base : base + sum.sum;
    } else {
        WideSum sum;
        terms([&](double x, double c) {
            double low = 0;
            const double high = has_base ? two_sum(x, -base, low) : x, p = high * c;
            sum.add(p, fused(high, c, -p) + c * low);
        });
        if (!has_base) return sum.hi + sum.lo;
        if (sum.hi == 0 && sum.lo == 0) return base;
        double t;
        const double s = two_sum(base, sum.hi, t);
        return s + (t + sum.lo);
    }
}

}  // namespace shoal::cuda
