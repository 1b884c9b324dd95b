// Kernels over coordinates: what thread number `step` of as many as it takes does.  Each reads all that it needs before
// it writes, so `out` may be one of the inputs.
#pragma once
#include "cuda/element_order.h"
#include "cuda/limits.h"

namespace shoal::cuda {

struct Rows {
    const char* at[INPUTS_MAX];
    double weights[INPUTS_MAX];
    int count;
    int64_t length;
    char* out;
    uint32_t* flag;  // raised if a number that is read is not finite; may be null
    int aligned;     // that all addresses are multiples of
};

constexpr int64_t steps_of(int64_t length, int lanes) { return (length + lanes - 1) / lanes; }

// Runs body.some<WHOLE>(k, have) for N elements from k = step * N.
template <int N, int BYTES, class Body>
SHOAL_BOTH void run_some(const Body& body, int64_t step, int64_t length, int aligned) {
    const int64_t k = step * N, left = length - k;
    if (left >= N && aligned >= N * BYTES) {
        body.template some<true>(k, N);
    } else {
        body.template some<false>(k, left < N ? int(left) : N);
    }
}

SHOAL_BOTH void tell(const Rows& rows, bool finite) {
    if (!finite && rows.flag) raise_flag(rows.flag);
}

template <class T>
struct MeanBody {
    static constexpr int N = LANES_OF<T>;
    typedef typename T::Bits Bits;
    Rows rows;
    double total;  // of the weights, in order

    template <bool WHOLE>
    SHOAL_BOTH void some(int64_t k, int have) const {
        Bits out[N] = {};
        bool finite = true;
        if constexpr (T::TYPE == F64) {
            for (int e = 0; e < N; e++) {
                if (e >= have) continue;
                out[e] = narrowed<T>(wide_mean([&](const auto& add) {
                    for (int i = 0; i < rows.count; i++) {
                        const Bits bits = reinterpret_cast<const Bits*>(rows.at[i])[k + e];
                        finite = finite && is_finite<T>(bits);
                        add(bits_as<double>(bits), rows.weights[i]);
                    }
                }));
            }
        } else {
            PlainSum sums[N];
#if defined(__CUDA_ARCH__)
#    pragma unroll 8
#endif
            for (int i = 0; i < rows.count; i++) {
                Bits bits[N];
                load_lanes<WHOLE>(rows.at[i], k, have, bits);
                SHOAL_UNROLL
                for (int e = 0; e < N; e++) sums[e].add(rows.weights[i] * widened<T>(bits[e]));
            }
            SHOAL_UNROLL
            for (int e = 0; e < N; e++) {
                const double mean = sums[e].sum / total;
                // Weights add up to less than 1, and double holds the product of any: what is not finite was read so.
                finite = finite && mean - mean == 0;
                out[e] = narrowed<T>(mean);
            }
        }
        store_lanes<WHOLE>(rows.out, k, have, out);
        tell(rows, finite);
    }
    SHOAL_BOTH void operator()(int64_t step) const {
        run_some<N, sizeof(Bits)>(*this, step, rows.length, rows.aligned);
    }
};

// base + sum of c_i (x_i - base), or y + scale * x: one term and `added`.
template <class T>
struct CombineBody {
    static constexpr int N = LANES_OF<T>;
    typedef typename T::Bits Bits;
    Rows rows;
    const char* base;  // or null
    bool added;        // base is added but not subtracted

    template <bool WHOLE>
    SHOAL_BOTH void some(int64_t k, int have) const {
        Bits out[N] = {}, start[N] = {};
        bool finite = true;
        if (base) load_lanes<WHOLE>(base, k, have, start);
        SHOAL_UNROLL
        for (int e = 0; e < N; e++) {
            if (!WHOLE && e >= have) continue;
            const double from = widened<T>(start[e]);
            finite = finite && is_finite<T>(start[e]);
            const auto terms = [&](const auto& add) {
                for (int i = 0; i < rows.count; i++) {
                    const Bits bits = reinterpret_cast<const Bits*>(rows.at[i])[k + e];
                    finite = finite && is_finite<T>(bits);
                    add(widened<T>(bits), rows.weights[i]);
                }
            };
            if (added) {
                double sum = from;
                terms([&](double x, double c) { sum = sum + c * x; });
                out[e] = narrowed<T>(sum);
            } else {
                out[e] = narrowed<T>(combined<T>(terms, base != nullptr, from));
            }
        }
        store_lanes<WHOLE>(rows.out, k, have, out);
        tell(rows, finite);
    }
    SHOAL_BOTH void operator()(int64_t step) const {
        run_some<N, sizeof(Bits)>(*this, step, rows.length, rows.aligned);
    }
};

// Median (trim < 0) or trimmed mean of up to M inputs.  Wide: float64, sorted as 64 bits; else all other dtypes, as 32:
// one body for them, since what takes nvcc its time is the network.
template <bool WIDE, int M, bool WEIGHTED>
struct OrderBody {
    using Key = std::conditional_t<WIDE, int64_t, int32_t>;
    using Cell = std::conditional_t<WEIGHTED, Indexed<Key>, Plain<Key>>;
    static constexpr int N = M <= 8 && !WEIGHTED ? (WIDE ? 2 : 4) : 1;  // few registers for many inputs
    Rows rows;
    double total;
    int trim;
    DType dtype;

    SHOAL_BOTH void operator()(int64_t step) const {
        if constexpr (WIDE) {
            of<Float64>(step);
        } else {
            const int64_t k = step * N, left = rows.length - k;
            const int have = left < N ? int(left) : N;
            Key keys[M][N];
            bool finite = true;
            SHOAL_UNROLL
            for (int i = 0; i < M; i++) {
                if (dtype == F32) {
                    load_keys<Float32>(i, k, have, keys[i], finite);
                } else if (dtype == F16) {
                    load_keys<Float16>(i, k, have, keys[i], finite);
                } else {
                    load_keys<Bfloat16>(i, k, have, keys[i], finite);
                }
            }
            double found[N];
            find(keys, found, [this](Key key) {
                return dtype == F32   ? widened<Float32>(total_order<Float32>(key))
                       : dtype == F16 ? widened<Float16>(int16_t(total_order<Float16>(key)))
                                      : widened<Bfloat16>(int16_t(total_order<Bfloat16>(key)));
            });
            if (dtype == F32) {
                store_numbers<Float32>(k, have, found);
            } else if (dtype == F16) {
                store_numbers<Float16>(k, have, found);
            } else {
                store_numbers<Bfloat16>(k, have, found);
            }
            tell(rows, finite);
        }
    }

  private:
    template <class T>
    SHOAL_BOTH void of(int64_t step) const {
        const int64_t k = step * N, left = rows.length - k;
        const int have = left < N ? int(left) : N;
        Key keys[M][N];
        bool finite = true;
        SHOAL_UNROLL
        for (int i = 0; i < M; i++) load_keys<T>(i, k, have, keys[i], finite);
        double found[N];
        find(keys, found, [](Key key) { return widened<T>(total_order<T>(key)); });
        store_numbers<T>(k, have, found);
        tell(rows, finite);
    }

    // Beyond the inputs: above all of them, by the index where a key is as high.
    template <class T>
    SHOAL_BOTH void load_keys(int i, int64_t k, int have, Key (&keys)[N], bool& finite) const {
        typename T::Bits bits[N] = {};
        if (i < rows.count) {
            if (have == N && rows.aligned >= N * int(sizeof bits[0])) {
                load_lanes<true>(rows.at[i], k, have, bits);
            } else {
                load_lanes<false>(rows.at[i], k, have, bits);
            }
        }
        SHOAL_UNROLL
        for (int e = 0; e < N; e++) {
            finite = finite && is_finite<T>(bits[e]);
            keys[e] = i < rows.count ? total_order<T>(Key(bits[e])) : Key(T::REST);
        }
    }

    template <class Value>
    SHOAL_BOTH void find(const Key (&keys)[M][N], double (&found)[N], const Value& value) const {
        const Ordering ask{rows.count, WEIGHTED ? rows.weights : nullptr, total, trim};
        SHOAL_UNROLL
        for (int e = 0; e < N; e++) {
            Cell v[M];
            SHOAL_UNROLL
            for (int i = 0; i < M; i++) v[i] = Cell::of(keys[i][e], i);
            sort_cells(v);
            found[e] = trim < 0 ? median_of<WIDE>(v, ask, value) : trimmed_of<WIDE>(v, ask, value);
        }
    }

    template <class T>
    SHOAL_BOTH void store_numbers(int64_t k, int have, const double (&found)[N]) const {
        typename T::Bits out[N];
        SHOAL_UNROLL
        for (int e = 0; e < N; e++) out[e] = narrowed<T>(found[e]);
        if (have == N && rows.aligned >= N * int(sizeof out[0])) {
            store_lanes<true>(rows.out, k, have, out);
        } else {
            store_lanes<false>(rows.out, k, have, out);
        }
    }
};

template <class From, class To>
struct ConvertBody {
    static constexpr int N = sizeof(typename From::Bits) == 8 || sizeof(typename To::Bits) == 8 ? 2 : 4;
    const char* from;
    char* out;
    int64_t length;
    int aligned;

    template <bool WHOLE>
    SHOAL_BOTH void some(int64_t k, int have) const {
        typename From::Bits bits[N];
        typename To::Bits made[N];
        load_lanes<WHOLE>(from, k, have, bits);
        SHOAL_UNROLL
        for (int e = 0; e < N; e++) made[e] = narrowed<To>(widened<From>(bits[e]));
        store_lanes<WHOLE>(out, k, have, made);
    }
    SHOAL_BOTH void operator()(int64_t step) const { run_some<N, VECTOR_BYTES / N>(*this, step, length, aligned); }
};

}  // namespace shoal::cuda
