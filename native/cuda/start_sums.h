// Calls over coordinates, for whoever starts the bodies: threads of a device (launcher.h) or a loop (host_loops.h).
#pragma once
#include <algorithm>

#include "cuda/body_sums.h"
#include "cuda/calls.h"

namespace shoal::cuda {

// The largest power of two up to VECTOR_BYTES that all addresses are multiples of.
class Alignment {
  public:
    void add(const void* address) { all_ |= reinterpret_cast<uintptr_t>(address); }
    int bytes() const { return int(all_ & -all_); }

  private:
    uintptr_t all_ = VECTOR_BYTES;
};

inline Rows rows_of(const SumCall& call, const char* another) {
    Rows rows{};
    Alignment alignment;
    for (int i = 0; i < call.count; i++) {
        rows.at[i] = call.inputs[i];
        rows.weights[i] = call.weights ? call.weights[i] : 1.0;
        alignment.add(call.inputs[i]);
    }
    alignment.add(call.out);
    alignment.add(another);
    rows.count = call.count;
    rows.length = call.length;
    rows.out = call.out;
    rows.flag = call.flag;
    rows.aligned = alignment.bytes();
    return rows;
}

inline double total_of(const Rows& rows) {
    double total = 0;
    for (int i = 0; i < rows.count; i++) total += rows.weights[i];
    return total;
}

// f(T{}) for the dtype.
template <class F>
void with_type(DType dtype, F f) {
    switch (dtype) {
        case F64:
            return f(Float64{});
        case F32:
            return f(Float32{});
        case F16:
            return f(Float16{});
        default:
            return f(Bfloat16{});
    }
}

template <class Starter>
void start_mean(const Starter& starter, const SumCall& call) {
    const Rows rows = rows_of(call, nullptr);
    with_type(call.dtype, [&]<class T>(T) {
        starter.each(MeanBody<T>{rows, total_of(rows)}, steps_of(call.length, MeanBody<T>::N));
    });
}

template <class Starter>
void start_combine(const Starter& starter, const SumCall& call, const char* base, bool added) {
    const Rows rows = rows_of(call, base);
    with_type(call.dtype, [&]<class T>(T) {
        starter.each(CombineBody<T>{rows, base, added}, steps_of(call.length, CombineBody<T>::N));
    });
}

// Few sizes of networks: each takes nvcc seconds for every architecture.
template <bool WIDE, class Starter>
void start_order_of(const Starter& starter, const Rows& rows, DType dtype, bool weighted, int trim) {
    const auto start = [&]<int M, bool WEIGHTED>(std::integral_constant<int, M>, std::bool_constant<WEIGHTED>) {
        using Body = OrderBody<WIDE, M, WEIGHTED>;
        starter.each(Body{rows, total_of(rows), trim, dtype}, steps_of(rows.length, Body::N));
    };
    const auto few = std::integral_constant<int, 8>{};
    const auto most = std::integral_constant<int, ORDER_MAX>{};
    if (weighted) return rows.count <= 8 ? start(few, std::true_type{}) : start(most, std::true_type{});
    if (rows.count <= 4) return start(std::integral_constant<int, 4>{}, std::false_type{});
    if (rows.count <= 8) return start(few, std::false_type{});
    if (rows.count <= 16) return start(std::integral_constant<int, 16>{}, std::false_type{});
    start(most, std::false_type{});
}

template <class Starter>
void start_order(const Starter& starter, const SumCall& call, int trim) {
    const Rows rows = rows_of(call, nullptr);
    const bool weighted = call.weights != nullptr;
    call.dtype == F64 ? start_order_of<true>(starter, rows, F64, weighted, trim)
                      : start_order_of<false>(starter, rows, call.dtype, weighted, trim);
}

template <class Starter>
void start_convert(const Starter& starter, const char* from, DType from_type, char* out, DType to_type,
                   int64_t length) {
    Alignment alignment;
    alignment.add(from);
    alignment.add(out);
    with_type(from_type, [&]<class From>(From) {
        with_type(to_type, [&]<class To>(To) {
            using Body = ConvertBody<From, To>;
            starter.each(Body{from, out, length, alignment.bytes()}, steps_of(length, Body::N));
        });
    });
}

}  // namespace shoal::cuda
