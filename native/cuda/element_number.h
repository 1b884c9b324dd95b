// Numbers of one dtype, for device and host alike: widen to double, round once, total order.  What each must give
// stands in src/shoal/kernels/reference.py.
//
// Everything in element_*.h is compiled twice: by nvcc for the kernels, and by the ordinary compiler for the host twin
// (host_*.cpp), which runs the same code thread by thread and is tested against the reference bit for bit.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernels.h"

#if defined(__CUDACC__)
#    define SHOAL_BOTH __host__ __device__ __forceinline__
#    define SHOAL_UNROLL _Pragma("unroll")
#else
#    define SHOAL_BOTH inline __attribute__((always_inline))
#    define SHOAL_UNROLL  // registers have no addresses on a device only
#endif

namespace shoal::cuda {

template <class To, class From>
SHOAL_BOTH To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &value, sizeof to);
    return to;
}

// Bits: as in memory.  Key: what it is sorted as; registers have 32 bits or 64.
struct Float64 {
    typedef int64_t Bits;
    typedef int64_t Key;
    static constexpr DType TYPE = F64;
    static constexpr int64_t INF = 0x7ff0000000000000, QUIET = 0x7ff8000000000000, REST = INT64_MAX;
};

struct Float32 {
    typedef int32_t Bits;
    typedef int32_t Key;
    static constexpr DType TYPE = F32;
    static constexpr int32_t INF = 0x7f800000, QUIET = 0x7fc00000, REST = INT32_MAX;
};

struct Float16 {
    typedef int16_t Bits;
    typedef int32_t Key;
    static constexpr DType TYPE = F16;
    static constexpr int16_t INF = 0x7c00, QUIET = 0x7e00, REST = INT16_MAX;
};

struct Bfloat16 {
    typedef int16_t Bits;
    typedef int32_t Key;
    static constexpr DType TYPE = BF16;
    static constexpr int16_t INF = 0x7f80, QUIET = 0x7fc0, REST = INT16_MAX;
};

template <class T>
SHOAL_BOTH bool is_finite(typename T::Bits bits) {
    return (bits & T::INF) != T::INF;
}

SHOAL_BOTH float float_of(Float16, int16_t half) {
    const uint32_t wide = uint16_t(half);
    const float scaled = bits_as<float>((wide & 0x7fff) << 13) * 0x1p112f;
    const uint32_t top = (wide & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    return bits_as<float>((wide & 0x8000) << 16 | bits_as<uint32_t>(scaled) | top);
}

SHOAL_BOTH float float_of(Bfloat16, int16_t half) { return bits_as<float>(uint32_t(uint16_t(half)) << 16); }

// Exact; a signalling NaN becomes a quiet one.
template <class T>
SHOAL_BOTH double widened(typename T::Bits bits) {
    if constexpr (T::TYPE == F64) {
        return bits_as<double>(bits);
    } else if constexpr (T::TYPE == F32) {
        return double(bits_as<float>(bits));
    } else {
        return double(float_of(T{}, bits));
    }
}

// double -> float32 to odd: a second rounding to fewer bits then gives what one rounding would (Boldo & Melquiond
// 2008).  x is no NaN.
SHOAL_BOTH uint32_t odd_bits(double x) {
    const float near = float(x);
    const double wide = double(near), size = x < 0 ? -x : x;
    uint32_t bits = bits_as<uint32_t>(near);
    if ((wide < 0 ? -wide : wide) > size) bits--;
    return wide != x ? bits | 1 : bits;
}

// float32 bits, no NaN -> 16 bits, to nearest even.
SHOAL_BOTH int16_t nearest(Float16, uint32_t bits) {
    const uint32_t sign = bits & 0x80000000, a = bits ^ sign;
    const uint32_t magic = 126u << 23;  // 0.5: its unit in the last place is float16's smallest number
    uint32_t result;
    if (a >= 0x47800000) {
        result = 0x7c00;
    } else if (a < 0x38800000) {
        result = bits_as<uint32_t>(bits_as<float>(a) + bits_as<float>(magic)) - magic;
    } else {
        result = (a - (112u << 23) + 0xfff + (a >> 13 & 1)) >> 13;
    }
    return int16_t(result | sign >> 16);
}

SHOAL_BOTH int16_t nearest(Bfloat16, uint32_t bits) { return int16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16); }

// Rounded once, to nearest even; every NaN becomes the quiet one.
template <class T>
SHOAL_BOTH typename T::Bits narrowed(double x) {
    if (x != x) return T::QUIET;
    if constexpr (T::TYPE == F64) {
        return bits_as<int64_t>(x);
    } else if constexpr (T::TYPE == F32) {
        return bits_as<int32_t>(float(x));
    } else {
        return nearest(T{}, odd_bits(x));
    }
}

// Signed integers that sort as IEEE 754 totalOrder sorts the numbers; its own inverse.
template <class T>
SHOAL_BOTH typename T::Key total_order(typename T::Key bits) {
    return bits < 0 ? bits ^ typename T::Key(T::REST) : bits;
}

// --- several neighbours of one row ---------------------------------------------------------------------------------

constexpr int VECTOR_BYTES = 16;  // the widest load and store of one thread

template <class T>
constexpr int LANES_OF = VECTOR_BYTES / int(sizeof(typename T::Bits));

#if defined(__CUDA_ARCH__)
template <int BYTES>
struct VectorOf;
template <>
struct VectorOf<2> {
    typedef ushort1 type;
};
template <>
struct VectorOf<4> {
    typedef uint1 type;
};
template <>
struct VectorOf<8> {
    typedef uint2 type;
};
template <>
struct VectorOf<16> {
    typedef uint4 type;
};
#endif

// Elements k ... k + N - 1 of a row.  WHOLE: all are there, and their address is a multiple of their bytes; else the
// first `have` are, and the others read as 0.
template <bool WHOLE, int N, class Bits>
SHOAL_BOTH void load_lanes(const char* row, int64_t k, int have, Bits (&to)[N]) {
    const Bits* from = reinterpret_cast<const Bits*>(row) + k;
    if constexpr (WHOLE) {
#if defined(__CUDA_ARCH__)
        typedef typename VectorOf<N* int(sizeof(Bits))>::type Vector;
        const Vector all = *reinterpret_cast<const Vector*>(from);
        memcpy(to, &all, sizeof all);
#else
        memcpy(to, from, sizeof to);
#endif
    } else {
        SHOAL_UNROLL
        for (int i = 0; i < N; i++) to[i] = i < have ? from[i] : Bits(0);
    }
}

template <bool WHOLE, int N, class Bits>
SHOAL_BOTH void store_lanes(char* row, int64_t k, int have, const Bits (&values)[N]) {
    Bits* to = reinterpret_cast<Bits*>(row) + k;
    if constexpr (WHOLE) {
#if defined(__CUDA_ARCH__)
        typedef typename VectorOf<N* int(sizeof(Bits))>::type Vector;
        Vector all;
        memcpy(&all, values, sizeof all);
        *reinterpret_cast<Vector*>(to) = all;
#else
        memcpy(to, values, sizeof values);
#endif
    } else {
        SHOAL_UNROLL
        for (int i = 0; i < N; i++)
            if (i < have) to[i] = values[i];
    }
}

// Says that something was found; any thread may, any number of times.
SHOAL_BOTH void raise_flag(uint32_t* flag) {
#if defined(__CUDA_ARCH__)
    atomicOr(flag, 1u);
#else
    *flag |= 1u;
#endif
}

}  // namespace shoal::cuda
