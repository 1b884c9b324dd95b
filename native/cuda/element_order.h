// One coordinate of the order statistics: up to 32 values sorted in registers by a network (Batcher 1968).  The bits
// are those of src/shoal/kernels/reference.py.
#pragma once
#include <type_traits>
#include <utility>  // integer_sequence

#include "cuda/element_mean.h"

namespace shoal::cuda {

struct Exchange {
    int low, high;
};

// Batcher's odd-even merge sort of M values, a power of two.
template <int M>
struct Network {
    static constexpr int count() {
        int found = 0;
        for (int p = 1; p < M; p *= 2)
            for (int k = p; k >= 1; k /= 2)
                for (int j = k % p; j + k < M; j += 2 * k)
                    for (int i = 0; i < k && i + j + k < M; i++) found += (i + j) / (2 * p) == (i + j + k) / (2 * p);
        return found;
    }
    static constexpr int SIZE = count();

    struct Steps {
        Exchange at[SIZE];
    };
    static constexpr Steps steps() {
        Steps made{};
        int found = 0;
        for (int p = 1; p < M; p *= 2)
            for (int k = p; k >= 1; k /= 2)
                for (int j = k % p; j + k < M; j += 2 * k)
                    for (int i = 0; i < k && i + j + k < M; i++)
                        if ((i + j) / (2 * p) == (i + j + k) / (2 * p)) made.at[found++] = {i + j, i + j + k};
        return made;
    }
};

template <int M>
inline constexpr typename Network<M>::Steps STEPS = Network<M>::steps();

// What is sorted: a key alone, or with the number of the input it came from (ties: first input first).
template <class Key>
struct Plain {
    Key key;
    SHOAL_BOTH static Plain of(Key key, int) { return {key}; }
    SHOAL_BOTH bool above(const Plain& other) const { return key > other.key; }
    SHOAL_BOTH int input() const { return 0; }
};

template <class Key>
struct Indexed {
    Key key;
    int index;
    SHOAL_BOTH static Indexed of(Key key, int index) { return {key, index}; }
    SHOAL_BOTH bool above(const Indexed& other) const {
        return key > other.key || (key == other.key && index > other.index);
    }
    SHOAL_BOTH int input() const { return index; }
};

template <int LOW, int HIGH, class Cell, int M>
SHOAL_BOTH void exchange(Cell (&v)[M]) {
    const Cell a = v[LOW], b = v[HIGH];
    const bool swap = a.above(b);
    v[LOW] = swap ? b : a;
    v[HIGH] = swap ? a : b;
}

template <class Cell, int M, int... I>
SHOAL_BOTH void sort_steps(Cell (&v)[M], std::integer_sequence<int, I...>) {
    (exchange<STEPS<M>.at[I].low, STEPS<M>.at[I].high>(v), ...);
}

template <class Cell, int M>
SHOAL_BOTH void sort_cells(Cell (&v)[M]) {
    sort_steps(v, std::make_integer_sequence<int, Network<M>::SIZE>{});
}

// (a + b) / 2 as reference._mean_rows gives it for two values of weight 0.5.
template <bool WIDE>
SHOAL_BOTH double middle_of(double a, double b) {
    if (!WIDE) return a * 0.5 + b * 0.5;
    const double sum = a + b;
    return sum - sum == 0 ? sum * 0.5 : a * 0.5 + b * 0.5;
}

// What is asked of one coordinate.  weights are scaled, or null: then all count the same.
struct Ordering {
    int count;
    const double* weights;
    double total;  // of the weights, summed in the order of the inputs
    int trim;      // -1: the median
};

// v holds `count` cells in ascending order, and beyond them cells that count for nothing; value(key) is the number that
// a key stands for; WIDE: of a float64.
template <bool WIDE, class Cell, int M, class Value>
SHOAL_BOTH double median_of(const Cell (&v)[M], const Ordering& ask, const Value& value) {
    auto low = v[0].key, high = v[0].key;
    bool two = false;
    if (!ask.weights) {
        // By bits: a chain of choices nvcc turns into an index, and so the registers into memory.
        low = high = 0;
        SHOAL_UNROLL
        for (int i = 0; i < M; i++) {
            low |= v[i].key & -decltype(low)(i == (ask.count - 1) / 2);
            high |= v[i].key & -decltype(low)(i == ask.count / 2);
        }
        two = ask.count % 2 == 0;
    } else {
        double reached = 0;
        bool done = false, next = false;
        SHOAL_UNROLL
        for (int i = 0; i < M; i++) {
            if (i >= ask.count) continue;
            reached += ask.weights[v[i].input()];
            // Rounding may leave the last sum below the half of the total.
            const bool here = !done && (2 * reached >= ask.total || i == ask.count - 1);
            high = next ? v[i].key : high;
            two = two || next;
            low = here ? v[i].key : low;
            next = here && 2 * reached == ask.total;
            done = done || here;
        }
    }
    return two ? middle_of<WIDE>(value(low), value(high)) : value(low);
}

template <bool WIDE, class Cell, int M, class Value>
SHOAL_BOTH double trimmed_of(const Cell (&v)[M], const Ordering& ask, const Value& value) {
    const auto terms = [&](const auto& add) {
        SHOAL_UNROLL
        for (int i = 0; i < M; i++)
            if (i >= ask.trim && i < ask.count - ask.trim)
                add(value(v[i].key), ask.weights ? ask.weights[v[i].input()] : 1.0);
    };
    if constexpr (WIDE) {
        return wide_mean(terms);
    } else {
        return plain_mean(terms);
    }
}

}  // namespace shoal::cuda
