// Columns of values in ascending totalOrder: sorting networks in registers for up to GROUP inputs, merges of such
// groups in a tile that stays in the first-level cache for more.
#pragma once
#include <utility>  // integer_sequence: a type, no code

#include "level_vector.h"

namespace shoal {
namespace {

typedef int16_t vsh __attribute__((vector_size(VB / 4)));  // int16, as many lanes as vd has
typedef uint64_t vul __attribute__((vector_size(VB)));

// Bits of a float <-> signed integer that sorts as totalOrder; its own inverse.
INLINE vs key_of(vs bits) { return bits ^ ((bits >> 15) & INT16_MAX); }
INLINE vi key_of(vi bits) { return bits ^ ((bits >> 31) & INT32_MAX); }
INLINE vih half_key_of(vih bits, int32_t mask) { return bits ^ ((bits >> 31) & mask); }
INLINE vl key_of(vl bits) {
#if defined(__AVX512F__)
    return bits ^ ((bits >> 63) & INT64_MAX);
#else
    return bits ^ ((bits < vl{}) & INT64_MAX);
#endif
}

template <class V>
INLINE V lower(V a, V b) {
    return a < b ? a : b;
}
template <class V>
INLINE V higher(V a, V b) {
    return a < b ? b : a;
}

template <class V>
INLINE void exchange(V& a, V& b) {
    V low = lower(a, b);
    b = higher(a, b);
    a = low;
}

struct Indexed {
    vl key, index;
};

INLINE void exchange(Indexed& a, Indexed& b) {
    vl swap = (b.key < a.key) | ((b.key == a.key) & (b.index < a.index));
    vl k = (a.key ^ b.key) & swap, i = (a.index ^ b.index) & swap;
    a.key ^= k;
    b.key ^= k;
    a.index ^= i;
    b.index ^= i;
}

template <class V>
INLINE void exchange_low(V& a, V& b) {
    a = lower(a, b);
}
template <class V>
INLINE void exchange_high(V& a, V& b) {
    b = higher(a, b);
}
INLINE void exchange_low(Indexed& a, Indexed& b) { exchange(a, b); }
INLINE void exchange_high(Indexed& a, Indexed& b) { exchange(a, b); }

// --- cells: what is sorted -----------------------------------------------------------------------------------------
// take(from, i, top): LANES values of input i; `top` collects the largest magnitude, as bits.

template <class Vector, class Bits>
struct Plain {
    typedef Vector V;
    typedef Vector Top;
    static constexpr int LANES = VB / int(sizeof(Bits));
    static constexpr Bits ABS = Bits(~(Bits(1) << (8 * sizeof(Bits) - 1)));
    static INLINE V take(const char* from, int64_t, Top& top) {
        V bits = load<V>(from);
        top = higher(top, bits & ABS);
        return key_of(bits);
    }
    static INLINE V bits(V key) { return key_of(key); }
};

// Key and number of the input in one integer: equal values keep the order of the inputs.
struct Packed32 {
    typedef vl V;
    typedef vih Top;
    static constexpr int LANES = LD;
    static INLINE V take(const char* from, int64_t i, Top& top) {
        vih bits = load<vih>(from);
        top = higher(top, bits & INT32_MAX);
        return (__builtin_convertvector(half_key_of(bits, INT32_MAX), vl) << 32) | i;
    }
    static INLINE V bits(V v) { return v; }
};

struct Packed16 {
    typedef vl V;
    typedef vih Top;
    static constexpr int LANES = LD;
    static INLINE V take(const char* from, int64_t i, Top& top) {
        vih bits = __builtin_convertvector(load<vsh>(from), vih);
        top = higher(top, bits & INT16_MAX);
        return (__builtin_convertvector(half_key_of(bits, INT16_MAX), vl) << 32) | i;
    }
    static INLINE V bits(V v) { return v; }
};

struct Indexed64 {
    typedef Indexed V;
    typedef vl Top;
    static constexpr int LANES = LD;
    static INLINE V take(const char* from, int64_t i, Top& top) {
        vl bits = load<vl>(from);
        top = higher(top, bits & INT64_MAX);
        return {key_of(bits), vl{} + i};
    }
    static INLINE V bits(V v) { return v; }
};

template <class T>
struct Cells;
template <>
struct Cells<Float64> {
    typedef Plain<vl, int64_t> Values;
    typedef Indexed64 WithIndex;
};
template <>
struct Cells<Float32> {
    typedef Plain<vi, int32_t> Values;
    typedef Packed32 WithIndex;
};
template <>
struct Cells<Float16> {
    typedef Plain<vs, int16_t> Values;
    typedef Packed16 WithIndex;
};
template <>
struct Cells<Bfloat16> {
    typedef Plain<vs, int16_t> Values;
    typedef Packed16 WithIndex;
};

// --- Batcher's odd-even merge sort (Knuth TAOCP 3, 5.3.4, algorithm M) -----------------------------------------------

template <int N>
struct Network {
    uint8_t low[64], high[64];
    int size = 0;
    constexpr Network() : low{}, high{} {
        for (int p = 1; p < N; p *= 2)
            for (int k = p; k >= 1; k /= 2)
                for (int j = k % p; j + k < N; j += 2 * k)
                    for (int i = 0; i < k && i + j + k < N; i++)
                        if ((i + j) / (2 * p) == (i + j + k) / (2 * p)) {
                            low[size] = uint8_t(i + j);
                            high[size++] = uint8_t(i + j + k);
                        }
    }
};

template <int N>
constexpr Network<N> network{};

template <int N, class V, int... S>
INLINE void sort_steps([[maybe_unused]] V* v, std::integer_sequence<int, S...>) {
    (exchange(v[network<N>.low[S]], v[network<N>.high[S]]), ...);
}

template <int N, class V>
INLINE void sort_registers(V* v) {
    sort_steps<N>(v, std::make_integer_sequence<int, network<N>.size>{});
}

template <class Cell, int N, int... I>
INLINE void take_all(typename Cell::V* v, const char* const* rows, int64_t at, int64_t first, typename Cell::Top& top,
                     std::integer_sequence<int, I...>) {
    ((v[I] = Cell::take(rows[I] + at, first + I, top)), ...);
}

template <class V, int... I>
INLINE void put_all(V* to, int64_t stride, const V* v, std::integer_sequence<int, I...>) {
    ((to[I * stride] = v[I]), ...);
}

// Sort N inputs into tile rows `stride` apart; as float bits if they are final, else as keys.
template <class Cell, int N>
void sort_group(const char* const* rows, int64_t at, int64_t first, typename Cell::V* to, int64_t stride, bool final,
                typename Cell::Top& top) {
    constexpr std::make_integer_sequence<int, N> each{};
    typename Cell::V v[N];
    take_all<Cell, N>(v, rows, at, first, top, each);
    sort_registers<N>(v);
    if (final)
        for (int i = 0; i < N; i++) v[i] = Cell::bits(v[i]);
    put_all(to, stride, v, each);
}

template <class Cell>
using SortGroup = void (*)(const char* const*, int64_t, int64_t, typename Cell::V*, int64_t, bool, typename Cell::Top&);

template <class Cell, class Sizes>
struct Groups;
template <class Cell, int... N>
struct Groups<Cell, std::integer_sequence<int, N...>> {
    static constexpr SortGroup<Cell> sort[] = {sort_group<Cell, N + 1>...};  // [size - 1]
};

template <class V, int W>
INLINE void merge_groups(V* tile, const Step* steps, int64_t count) {
    for (const Step* step = steps; step != steps + count; step++) {
        V *a = tile + step->low * W, *b = tile + step->high * W;
        if (step->kind == Step::BOTH) {
            for (int w = 0; w < W; w++) exchange(a[w], b[w]);
        } else if (step->kind == Step::LOWER) {
            for (int w = 0; w < W; w++) exchange_low(a[w], b[w]);
        } else {
            for (int w = 0; w < W; w++) exchange_high(a[w], b[w]);
        }
    }
}

template <class Top, class Bits>
INLINE bool below(Top top, Bits limit) {
    auto mask = top >= limit;
    char bytes[sizeof mask], seen = 0;
    store(bytes, mask);
    for (char byte : bytes) seen |= byte;
    return !seen;
}

// Calls finish(tile, k, m) for tiles of W registers: coordinates [k, k + m), row r in tile[r * W ...], sorted as far as
// the steps say.  Rows are float bits (Plain cells, one group) or keys.  Returns whether all that was read is finite.
template <class T, class Cell, int W, class Finish>
INLINE bool for_sorted(const Call& c, int64_t begin, int64_t end, char* scratch, Finish finish) {
    typedef typename Cell::V V;
    typedef Groups<Cell, std::make_integer_sequence<int, int(GROUP)>> Sorts;
    constexpr int64_t LANES = W * Cell::LANES, BYTES = LANES * T::SIZE;
    V* tile = reinterpret_cast<V*>(scratch);
    const char** tails = reinterpret_cast<const char**>(scratch + SCRATCH_BYTES - ROWS_BYTES);
    typename Cell::Top top{};
    for (int64_t k = begin; k < end; k += LANES) {
        const char* const* rows = c.inputs;
        int64_t at = k * T::SIZE, m = end - k < LANES ? end - k : LANES;
        if (m < LANES) {
            char* copies = scratch + TILE_BYTES;
            for (int64_t i = 0; i < c.count; i++) {
                tails[i] = copies + i * BYTES;
                for (int64_t b = 0; b < BYTES; b++) copies[i * BYTES + b] = 0;
                copy_bytes(copies + i * BYTES, c.inputs[i] + at, m * T::SIZE);
            }
            rows = tails;
            at = 0;
        }
        for (int64_t g = 0; g < c.count; g += GROUP) {
            const int64_t size = c.count - g < GROUP ? c.count - g : GROUP;
            for (int w = 0; w < W; w++)
                Sorts::sort[size - 1](rows + g, at + w * Cell::LANES * T::SIZE, g, tile + g * W + w, W,
                                      c.count <= GROUP, top);
        }
        merge_groups<V, W>(tile, c.steps, c.step_count);
        finish(tile, k, m);
    }
    return below(top, T::INF);
}

// Registers in a tile row: 4 while the tile stays small, else 1.
template <class V>
INLINE bool wide_rows(int64_t count) {
    return count * 4 * int64_t(sizeof(V)) <= (48 << 10);
}

}  // namespace
}  // namespace shoal
