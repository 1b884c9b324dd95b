// Order statistics: median, trimmed mean, mean around the median, and the weighted ones.
#pragma once
#include "level_mean.h"
#include "level_sort.h"

namespace shoal {
namespace {

// (a + b) / 2, rounded once.  For float32 and less in float32, which gives the same as float64 rounded again: a sum of
// two p-bit numbers survives double rounding from 2p + 2 bits (Figueroa 1995).
template <class V>
INLINE V middle_of(V a, V b) {
    V sum = a + b, halves = a * 0.5f + b * 0.5f;
    return sum - sum == V{} ? sum * 0.5f : halves;
}

// Writes the mean of two registers of keys, or the first of them.
template <class T, bool EVEN, bool PAST, class V>
INLINE void put_middle(char* out, V low, V high) {
    typedef typename T::bits Bits;
    constexpr Bits ABS = Bits(~(Bits(1) << (8 * sizeof(Bits) - 1)));
    V a = key_of(low), b = key_of(high);
    if constexpr (!EVEN) {
        put<PAST>(out, (a & ABS) > T::INF ? V{} + T::QUIET : a);
    } else if constexpr (T::TYPE == F64) {
        narrow<T, PAST>(out, middle_of(bits_as<vd>(a), bits_as<vd>(b)));
    } else if constexpr (T::TYPE == F32) {
        vf m = middle_of(bits_as<vf>(a), bits_as<vf>(b));
        put<PAST>(out, m == m ? bits_as<vi>(m) : vi{} + Float32::QUIET);
    } else {
        alignas(64) char from[2][VB];
        store(from[0], a);
        store(from[1], b);
        for (int part = 0; part < VB; part += VB / 4) {
            vfh m = middle_of(float_of(T{}, load<vsq>(from[0] + part)), float_of(T{}, load<vsq>(from[1] + part)));
            put<PAST>(out + part, nearest(T{}, one_nan(m)));
        }
    }
}

// --- median --------------------------------------------------------------------------------------------------------

// Up to GROUP inputs, all in registers: calls finish(v, out) for each register of sorted keys; what finish does not
// read the compiler does not sort.
template <class T, int N, class Finish>
INLINE bool for_registers(const Call& c, int64_t begin, int64_t end, char* scratch, Finish finish) {
    typedef typename Cells<T>::Values Cell;
    typename Cell::Top top{};
    auto step = [&](const char* const* rows, int64_t at, char* out) __attribute__((always_inline)) {
        typename Cell::V v[N];
        take_all<Cell, N>(v, rows, at, 0, top, std::make_integer_sequence<int, N>{});
        sort_registers<N>(v);
        finish(v, out);
    };
    int64_t k = begin;
    for (; k + Cell::LANES <= end; k += Cell::LANES) step(c.inputs, k * T::SIZE, c.out + k * T::SIZE);
    if (k < end) {
        const char* tails[N];
        for (int i = 0; i < N; i++) {
            char* copy = scratch + i * VB;
            store(copy, vd{});
            copy_bytes(copy, c.inputs[i] + k * T::SIZE, (end - k) * T::SIZE);
            tails[i] = copy;
        }
        alignas(64) char last[VB];
        step(tails, 0, last);
        copy_bytes(c.out + k * T::SIZE, last, (end - k) * T::SIZE);
    }
    return below(top, T::INF);
}

template <class T, int N, bool PAST>
bool median_registers(const Call& c, int64_t begin, int64_t end, char* scratch) {
    bool finite =
        for_registers<T, N>(c, begin, end, scratch, [](const auto* v, char* out) __attribute__((always_inline)) {
            put_middle<T, N % 2 == 0, PAST>(out, v[(N - 1) / 2], v[N / 2]);
        });
    if (PAST) fence();
    return finite;
}

template <class T, bool PAST, class Sizes>
struct Medians;
template <class T, bool PAST, int... N>
struct Medians<T, PAST, std::integer_sequence<int, N...>> {
    static constexpr Kernel run[] = {median_registers<T, N + 1, PAST>...};  // [inputs - 1]
};

template <class T, int W, bool EVEN>
bool median_merged(const Call& c, int64_t begin, int64_t end, char* scratch) {
    typedef typename Cells<T>::Values Cell;
    return for_sorted<T, Cell, W>(
        c, begin, end, scratch, [&](typename Cell::V* tile, int64_t k, int64_t m) __attribute__((always_inline)) {
            alignas(64) char made[W * VB];
            char* to = m == W * Cell::LANES ? c.out + k * T::SIZE : made;
            for (int w = 0; w < W; w++)
                put_middle<T, EVEN, false>(to + w * VB, tile[(c.count - 1) / 2 * W + w], tile[c.count / 2 * W + w]);
            if (to == made) copy_bytes(c.out + k * T::SIZE, made, m * T::SIZE);
        });
}

template <class T>
bool median(const Call& c, int64_t begin, int64_t end, char* scratch) {
    typedef std::make_integer_sequence<int, int(GROUP)> Sizes;
    if (c.count <= GROUP) {
        const bool past = c.stream && aligned(c.out + begin * T::SIZE);
        return (past ? Medians<T, true, Sizes>::run : Medians<T, false, Sizes>::run)[c.count - 1](c, begin, end,
                                                                                                  scratch);
    }
    const bool wide = wide_rows<vd>(c.count);
    if (c.count % 2 == 0)
        return wide ? median_merged<T, 4, true>(c, begin, end, scratch)
                    : median_merged<T, 1, true>(c, begin, end, scratch);
    return wide ? median_merged<T, 4, false>(c, begin, end, scratch)
                : median_merged<T, 1, false>(c, begin, end, scratch);
}

// --- means of some of the sorted values ----------------------------------------------------------------------------

// Sorted rows as pointers to float bits.
template <class T, int W, class V>
INLINE const char* const* bit_rows(V* tile, int64_t first, int64_t stop, bool keys, char* scratch) {
    const char** rows = reinterpret_cast<const char**>(scratch + SCRATCH_BYTES - 2 * ROWS_BYTES);
    for (int64_t r = first; r < stop; r++) {
        if (keys)
            for (int w = 0; w < W; w++) tile[r * W + w] = key_of(tile[r * W + w]);
        rows[r] = reinterpret_cast<const char*>(tile + r * W);
    }
    return rows;
}

template <class T, int W, bool PAST>
bool trimmed_tiles(const Call& c, int64_t begin, int64_t end, char* scratch) {
    typedef typename Cells<T>::Values Cell;
    constexpr int64_t LANES = W * Cell::LANES;
    const int64_t first = c.keep, stop = c.count - c.keep;
    bool finite = for_sorted<T, Cell, W>(
        c, begin, end, scratch, [&](typename Cell::V* tile, int64_t k, int64_t m) __attribute__((always_inline)) {
            const char* const* rows = bit_rows<T, W>(tile, first, stop, c.count > GROUP, scratch);
            if (m == LANES) {
                mean_rows<T, PAST>(rows + first, stop - first, c.weights, c.total, c.out + k * T::SIZE, 0, LANES,
                                   scratch);
            } else {
                alignas(64) char made[W * VB];
                mean_rows<T, false>(rows + first, stop - first, c.weights, c.total, made, 0, LANES, scratch);
                copy_bytes(c.out + k * T::SIZE, made, m * T::SIZE);
            }
        });
    if (PAST) fence();
    return finite;
}

// float32, up to GROUP inputs: sorted and summed in registers.
template <bool PAST, int... I>
INLINE void put_trimmed(char* out, const vi* v, int64_t first, int64_t stop, vd total,
                        std::integer_sequence<int, I...>) {
    vd low{}, high{};
    auto add = [&](vi key, int i) __attribute__((always_inline)) {
        if (i < first || i >= stop) return;
        vi bits = key_of(key);
        vfh half[2];
        __builtin_memcpy(half, &bits, sizeof bits);
        low = i == first ? to_double(half[0]) : low + to_double(half[0]);
        high = i == first ? to_double(half[1]) : high + to_double(half[1]);
    };
    (add(v[I], I), ...);
    narrow<Float32, PAST>(out, low / total);
    narrow<Float32, PAST>(out + VB / 2, high / total);
}

template <int N, bool PAST>
bool trimmed_registers(const Call& c, int64_t begin, int64_t end, char* scratch) {
    const vd total = all(c.total.sum);
    bool finite =
        for_registers<Float32, N>(c, begin, end, scratch, [&](const vi* v, char* out) __attribute__((always_inline)) {
            put_trimmed<PAST>(out, v, c.keep, c.count - c.keep, total, std::make_integer_sequence<int, N>{});
        });
    if (PAST) fence();
    return finite;
}

template <bool PAST, class Sizes>
struct Trimmed;
template <bool PAST, int... N>
struct Trimmed<PAST, std::integer_sequence<int, N...>> {
    static constexpr Kernel run[] = {trimmed_registers<N + 1, PAST>...};  // [inputs - 1]
};

// weights are ones, the total is how many are left
template <class T>
bool trimmed_mean(const Call& c, int64_t begin, int64_t end, char* scratch) {
    const bool past = c.stream && aligned(c.out + begin * T::SIZE);
    if (T::TYPE == F32 && c.count <= GROUP) {
        typedef std::make_integer_sequence<int, int(GROUP)> Sizes;
        return (past ? Trimmed<true, Sizes>::run : Trimmed<false, Sizes>::run)[c.count - 1](c, begin, end, scratch);
    }
    if (!wide_rows<vd>(c.count)) return trimmed_tiles<T, 1, false>(c, begin, end, scratch);
    return past ? trimmed_tiles<T, 4, true>(c, begin, end, scratch)
                : trimmed_tiles<T, 4, false>(c, begin, end, scratch);
}

// source: reference.mean_around_median; rows are LD sorted values each, `at` bytes into a tile row
template <class T>
INLINE vd mean_around(const char* const* rows, int64_t count, int64_t keep, int64_t at, const double* ones) {
    vd middle = widen<T>(rows[(count - 1) / 2] + at) * 0.5 + widen<T>(rows[count / 2] + at) * 0.5;
    vl start{};
    for (int64_t first = 0; first < count - keep; first++) {
        vl nearer = widen<T>(rows[first + keep] + at) - middle < middle - widen<T>(rows[first] + at);
        start -= (start == first) & nearer;
    }
    if constexpr (T::TYPE == F64) {
        double window[MODELS_MAX], result[LD];
        for (int e = 0; e < LD; e++) {
            for (int64_t i = 0; i < keep; i++) copy_bytes(&window[i], rows[start[e] + i] + at + e * 8, 8);
            result[e] = wide_mean_one(window, ones, keep);
        }
        return load<vd>(result);
    } else {
        vd sum{};
        for (int64_t r = 0; r < count; r++) {
            vd x = widen<T>(rows[r] + at);
            vl inside = (start <= r) & (start > r - keep);
            sum = start == r ? x : inside ? sum + x : sum;
        }
        return sum / all(double(keep));
    }
}

template <class T, int W>
bool around_tiles(const Call& c, int64_t begin, int64_t end, char* scratch) {
    typedef typename Cells<T>::Values Cell;
    return for_sorted<T, Cell, W>(c, begin, end, scratch, [&](typename Cell::V* tile, int64_t k, int64_t m) {
        const char* const* rows = bit_rows<T, W>(tile, 0, c.count, c.count > GROUP, scratch);
        alignas(64) char made[W * VB];
        for (int64_t at = 0; at < W * VB; at += LD * T::SIZE)
            narrow<T, false>(made + at, mean_around<T>(rows, c.count, c.keep, at, c.weights));
        copy_bytes(c.out + k * T::SIZE, made, m * T::SIZE);
    });
}

template <class T>
bool mean_around_median(const Call& c, int64_t begin, int64_t end, char* scratch) {
    return wide_rows<vd>(c.count) ? around_tiles<T, 4>(c, begin, end, scratch)
                                  : around_tiles<T, 1>(c, begin, end, scratch);
}

// --- with weights --------------------------------------------------------------------------------------------------

INLINE vd lookup(const double* table, vl index) {
#if defined(__AVX512F__)
    return _mm512_i64gather_pd(bits_as<__m512i>(index), table, 8);
#elif defined(__AVX2__)
    return _mm256_i64gather_pd(table, bits_as<__m256i>(index), 8);
#else
    return vd{table[index[0]], table[index[1]]};
#endif
}

template <class T>
INLINE vd value_of(vl packed) {
    vih key = __builtin_convertvector(bits_as<vl>(bits_as<vul>(packed) >> 32), vih);
    if constexpr (T::TYPE == F32) {
        return to_double(bits_as<vfh>(half_key_of(key, INT32_MAX)));
    } else {
        vih bits = half_key_of(key, INT16_MAX);
        return to_double(float_of(T{}, bits_as<vsq>(__builtin_convertvector(bits, vsh))));
    }
}
template <class T>
INLINE vd value_of(Indexed cell) {
    return bits_as<vd>(key_of(cell.key));
}

INLINE vl index_of(vl packed) { return packed & 0xffffffff; }
INLINE vl index_of(Indexed cell) { return cell.index; }

template <class T, int W, class V>
INLINE vd weighted_middle(const Call& c, const V* column) {
    vd low = value_of<T>(column[(c.count - 1) * W]), high = low, reached{};
    vl done{}, next{};
    for (int64_t r = 0; r < c.count; r++) {
        vd x = value_of<T>(column[r * W]);
        reached += lookup(c.weights, index_of(column[r * W]));
        vl here = (2 * reached >= c.total.sum) & ~done;
        high = next | here ? x : high;
        low = here ? x : low;
        next = here & (2 * reached == c.total.sum);
        done |= here;
    }
    if constexpr (T::TYPE == F64) return middle_of(low, high);
    return low * 0.5 + high * 0.5;
}

template <class T, int W, class V>
INLINE vd weighted_rest(const Call& c, const V* column) {
    const int64_t first = c.keep, stop = c.count - c.keep;
    if constexpr (T::TYPE == F64) {
        double x[MODELS_MAX], w[MODELS_MAX], result[LD];
        for (int e = 0; e < LD; e++) {
            for (int64_t r = first; r < stop; r++) {
                x[r - first] = value_of<T>(column[r * W])[e];
                w[r - first] = c.weights[column[r * W].index[e]];
            }
            result[e] = wide_mean_one(x, w, stop - first);
        }
        return load<vd>(result);
    } else {
        vd total = lookup(c.weights, index_of(column[first * W]));
        vd sum = total * value_of<T>(column[first * W]);
        for (int64_t r = first + 1; r < stop; r++) {
            vd w = lookup(c.weights, index_of(column[r * W]));
            total += w;
            sum += w * value_of<T>(column[r * W]);
        }
        return sum / total;
    }
}

template <class T, int W, bool MEDIAN>
bool weighted_tiles(const Call& c, int64_t begin, int64_t end, char* scratch) {
    typedef typename Cells<T>::WithIndex Cell;
    return for_sorted<T, Cell, W>(c, begin, end, scratch, [&](typename Cell::V* tile, int64_t k, int64_t m) {
        alignas(64) char made[W * LD * T::SIZE];
        for (int w = 0; w < W; w++) {
            vd x = MEDIAN ? weighted_middle<T, W>(c, tile + w) : weighted_rest<T, W>(c, tile + w);
            narrow<T, false>(made + w * LD * T::SIZE, x);
        }
        copy_bytes(c.out + k * T::SIZE, made, m * T::SIZE);
    });
}

template <class T, bool MEDIAN>
bool weighted_order(const Call& c, int64_t begin, int64_t end, char* scratch) {
    typedef typename Cells<T>::WithIndex::V V;
    return wide_rows<V>(c.count) ? weighted_tiles<T, 4, MEDIAN>(c, begin, end, scratch)
                                 : weighted_tiles<T, 1, MEDIAN>(c, begin, end, scratch);
}

}  // namespace
}  // namespace shoal
