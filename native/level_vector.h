// Vectors of one level: widen to double, round once to a dtype.  Included by the level files only, inside their own
// namespaces; SHOAL_VECTOR_BYTES says how wide a register is.
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__x86_64__)
#    include <immintrin.h>
#endif

#include "kernels.h"

#define INLINE __attribute__((always_inline)) inline

namespace shoal {
namespace {

constexpr int VB = SHOAL_VECTOR_BYTES;
constexpr int LD = VB / 8;  // doubles in a register

typedef double vd __attribute__((vector_size(VB)));
typedef float vf __attribute__((vector_size(VB)));
typedef int64_t vl __attribute__((vector_size(VB)));
typedef int32_t vi __attribute__((vector_size(VB)));
typedef int16_t vs __attribute__((vector_size(VB)));
// As many lanes as vd has:
typedef float vfh __attribute__((vector_size(VB / 2)));
typedef int32_t vih __attribute__((vector_size(VB / 2)));
typedef uint32_t vuh __attribute__((vector_size(VB / 2)));
typedef uint16_t vsq __attribute__((vector_size(VB / 4)));

template <class V>
INLINE V load(const void* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <class V>
INLINE void store(void* to, V v) {
    __builtin_memcpy(to, &v, sizeof v);
}

template <class To, class From>
INLINE To bits_as(From v) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    __builtin_memcpy(&to, &v, sizeof to);
    return to;
}

// Past the caches: for outputs that nobody reads soon.  `to` must be aligned to the size of V.
template <class V>
INLINE void store_past(void* to, V v) {
#if defined(__x86_64__)
    if constexpr (sizeof v == 4) {
        _mm_stream_si32(static_cast<int*>(to), bits_as<int>(v));
    } else if constexpr (sizeof v == 8) {
        _mm_stream_si64(static_cast<long long*>(to), bits_as<long long>(v));
    } else if constexpr (sizeof v == 16) {
        _mm_stream_si128(static_cast<__m128i*>(to), bits_as<__m128i>(v));
#    if defined(__AVX2__)
    } else if constexpr (sizeof v == 32) {
        _mm256_stream_si256(static_cast<__m256i*>(to), bits_as<__m256i>(v));
#    endif
#    if defined(__AVX512F__)
    } else if constexpr (sizeof v == 64) {
        _mm512_stream_si512(static_cast<__m512i*>(to), bits_as<__m512i>(v));
#    endif
    } else {
        store(to, v);
    }
#else
    store(to, v);
#endif
}

template <bool PAST, class V>
INLINE void put(void* to, V v) {
    if constexpr (PAST) {
        store_past(to, v);
    } else {
        store(to, v);
    }
}

// With more inputs than this, the processor loses count of the streams it reads ahead, and must be told (measured: 32
// inputs twice as fast; for 8 it would be slower).
constexpr int64_t STREAMS_MAX = 12;

// Asks for `bytes` that will be read soon; a hint, any address is allowed.
INLINE void fetch(const char* from, int64_t ahead, int64_t bytes) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(from) + uintptr_t(ahead);
    for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(reinterpret_cast<const void*>(at + uintptr_t(b)), 0, 2);
}

INLINE void fence() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

INLINE void copy_bytes(void* to, const void* from, int64_t bytes) { __builtin_memcpy(to, from, size_t(bytes)); }

INLINE vd all(double x) { return x - vd{}; }
INLINE vd magnitude(vd x) { return bits_as<vd>(bits_as<vl>(x) & INT64_MAX); }

template <class M>
INLINE bool any(M mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask(bits_as<__m512i>(mask), bits_as<__m512i>(mask)) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256(bits_as<__m256i>(mask), bits_as<__m256i>(mask));
#else
    vl words = bits_as<vl>(mask);
    return (words[0] | words[1]) != 0;
#endif
}

// --- one dtype each: bits <-> float32 lanes (exact) <-> double lanes -----------------------------------------------

struct Float64 {
    typedef int64_t bits;
    static constexpr int SIZE = 8;
    static constexpr DType TYPE = F64;
    static constexpr int64_t INF = 0x7ff0000000000000, QUIET = 0x7ff8000000000000;
};

struct Float32 {
    typedef int32_t bits;
    static constexpr int SIZE = 4;
    static constexpr DType TYPE = F32;
    static constexpr int32_t INF = 0x7f800000, QUIET = 0x7fc00000;
};

struct Float16 {
    typedef int16_t bits;
    static constexpr int SIZE = 2;
    static constexpr DType TYPE = F16;
    static constexpr int16_t INF = 0x7c00, QUIET = 0x7e00;
};

struct Bfloat16 {
    typedef int16_t bits;
    static constexpr int SIZE = 2;
    static constexpr DType TYPE = BF16;
    static constexpr int16_t INF = 0x7f80, QUIET = 0x7fc0;
};

INLINE vfh float_of(Float16, vsq h) {
#if defined(__AVX512F__)
    return _mm256_cvtph_ps(bits_as<__m128i>(h));
#elif defined(__F16C__)
    return _mm_cvtph_ps(_mm_cvtsi64_si128(bits_as<long long>(h)));
#else
    vuh wide = __builtin_convertvector(h, vuh);
    vuh top = (wide & 0x7c00) == 0x7c00;
    vuh scaled = bits_as<vuh>(bits_as<vfh>((wide & 0x7fff) << 13) * 0x1p112f);
    return bits_as<vfh>(((wide & 0x8000) << 16) | scaled | (top & 0x7f800000));
#endif
}

INLINE vfh float_of(Bfloat16, vsq h) { return bits_as<vfh>(__builtin_convertvector(h, vuh) << 16); }

// GCC 12 does __builtin_convertvector between float and double in halves.
INLINE vd to_double(vfh x) {
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(x);
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(x);
#else
    return __builtin_convertvector(x, vd);
#endif
}

INLINE vfh to_float(vd x) {
#if defined(__AVX512F__)
    return _mm512_cvtpd_ps(x);
#elif defined(__AVX2__)
    return _mm256_cvtpd_ps(x);
#else
    return __builtin_convertvector(x, vfh);
#endif
}

INLINE vfh one_nan(vfh x) {
    vih bits = bits_as<vih>(x);
    return bits_as<vfh>(x == x ? bits : vih{} + Float32::QUIET);
}

// float32 -> 16 bits, to nearest even; NaN must be the quiet one.
INLINE vsq nearest(Float16, vfh x) {
#if defined(__AVX512F__)
    return bits_as<vsq>(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    return bits_as<vsq>(_mm_cvtsi128_si64(_mm_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
#else
    vuh bits = bits_as<vuh>(x);
    vuh sign = bits & 0x80000000;
    vuh a = bits ^ sign;
    const vuh magic = vuh{} + (126u << 23);  // 0.5: its unit in the last place is float16's smallest number
    vuh small = bits_as<vuh>(bits_as<vfh>(a) + bits_as<vfh>(magic)) - magic;
    vuh normal = (a - (112u << 23) + 0xfff + ((a >> 13) & 1)) >> 13;
    vuh big = a > 0x7f800000 ? vuh{} + 0x7e00 : vuh{} + 0x7c00;
    vuh result = a < 0x38800000 ? small : normal;
    result = a >= 0x47800000 ? big : result;
    return __builtin_convertvector(result | (sign >> 16), vsq);
#endif
}

INLINE vsq nearest(Bfloat16, vfh x) {
    vuh bits = bits_as<vuh>(x);
    return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, vsq);
}

// double -> float32 to odd: truncated, and the last bit set if anything was lost.  A second rounding to fewer bits then
// gives what one rounding would (Boldo & Melquiond 2008).
INLINE vfh to_odd(vd x) {
#if defined(__AVX512F__)
    __m256 cut = _mm512_cvt_roundpd_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __mmask8 lost = _mm512_cmp_pd_mask(_mm512_cvtps_pd(cut), x, _CMP_NEQ_OQ);
    __m256i bits = _mm256_castps_si256(cut);
    return _mm256_castsi256_ps(_mm256_mask_or_epi32(bits, lost, bits, _mm256_set1_epi32(1)));
#else
    vfh near = to_float(x);
    vd wide = to_double(near);
    vih away = __builtin_convertvector(magnitude(wide) > magnitude(x), vih);
    vih lost = __builtin_convertvector((wide != x) & (x == x), vih);
    return bits_as<vfh>((bits_as<vih>(near) + away) | (lost & 1));
#endif
}

template <class T>
INLINE vd widen(const char* from) {
    if constexpr (T::TYPE == F64) {
        return load<vd>(from);
    } else if constexpr (T::TYPE == F32) {
        return to_double(load<vfh>(from));
    } else {
        return to_double(float_of(T{}, load<vsq>(from)));
    }
}

// a * b + c.  EXACT: the product is exact in double, so that a fused multiply-add gives the same bits.
template <bool EXACT>
INLINE vd add_product(vd a, vd b, vd c) {
#if defined(__AVX512F__)
    if constexpr (EXACT) return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
    if constexpr (EXACT) return _mm256_fmadd_pd(a, b, c);
#endif
    return c + a * b;
}

// Round once to T, to nearest even; every NaN becomes the quiet one.
template <class T, bool PAST>
INLINE void narrow(char* to, vd x) {
    if constexpr (T::TYPE == F64) {
        put<PAST>(to, x == x ? bits_as<vl>(x) : vl{} + Float64::QUIET);
    } else if constexpr (T::TYPE == F32) {
        put<PAST>(to, one_nan(to_float(x)));
    } else {
        put<PAST>(to, nearest(T{}, one_nan(to_odd(x))));
    }
}

// Can `out` be written with store_past from here on?
INLINE bool aligned(const char* out) { return (reinterpret_cast<uintptr_t>(out) & 63) == 0; }

}  // namespace
}  // namespace shoal
