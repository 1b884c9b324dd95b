// Numbers of one block <-> words of the ring, with subtractive dither.
#pragma once
#include <type_traits>

#include "level_rotation.h"

namespace shoal {
namespace {

constexpr int PARTS_OF_16 = 16 / LF;  // registers that hold 16 floats
constexpr int DOUBLES = 16 / LD;      // registers that hold 16 doubles

typedef int8_t vb __attribute__((vector_size(LF)));  // as many lanes as vf has
typedef int16_t vh __attribute__((vector_size(2 * LF)));
typedef uint16_t vhu __attribute__((vector_size(2 * LF)));

INLINE vfh low_half(vf x) {
    vfh half;
    __builtin_memcpy(&half, &x, sizeof half);
    return half;
}

INLINE vfh high_half(vf x) {
    vfh half;
    __builtin_memcpy(&half, reinterpret_cast<const char*>(&x) + sizeof half, sizeof half);
    return half;
}

INLINE vi to_int(vf x) {
#if defined(__AVX512F__)
    return bits_as<vi>(_mm512_cvttps_epi32(x));
#elif defined(__AVX2__)
    return bits_as<vi>(_mm256_cvttps_epi32(x));
#else
    return __builtin_convertvector(x, vi);
#endif
}

INLINE vf floor_of(vf x) {
#if defined(__AVX512F__)
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
    return _mm256_floor_ps(x);
#else
    const vf cut = __builtin_convertvector(to_int(x), vf);  // |x| < 2**31
    return cut > x ? cut - 1.0f : cut;
#endif
}

// Sums of 16 running parts, of products that are exact in double; folded as the reference does.
struct Sum {
    vd parts[DOUBLES] = {};

    INLINE void add(int part, vf x, vf y) {
        parts[2 * part] = add_product<true>(to_double(low_half(x)), to_double(low_half(y)), parts[2 * part]);
        parts[2 * part + 1] = add_product<true>(to_double(high_half(x)), to_double(high_half(y)), parts[2 * part + 1]);
    }
    INLINE double folded() const {
        double s[16];
        for (int i = 0; i < DOUBLES; i++) store(s + i * LD, parts[i]);
        for (int half = 8; half; half /= 2)
            for (int i = 0; i < half; i++) s[i] += s[i + half];
        return s[0];
    }
};

INLINE int64_t sum_of(vi x) {
    int64_t sum = 0;
    for (int i = 0; i < LF; i++) sum += x[i];
    return sum;
}

// The low byte of each lane; GCC 12 takes several times as long without being told how.
INLINE vb low_bytes(vi v) {
#if defined(__AVX512F__)
    return bits_as<vb>(_mm512_cvtepi32_epi8(bits_as<__m512i>(v)));
#elif defined(__AVX2__)
    const __m256i every_fourth = _mm256_set1_epi32(0x0c080400);
    const __m256i four = _mm256_shuffle_epi8(bits_as<__m256i>(v), every_fourth);
    const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return bits_as<vb>(int64_t(_mm_cvtsi128_si64(both)));
#elif defined(__SSE2__)
    const __m128i words = _mm_packs_epi32(bits_as<__m128i>(v & 255), _mm_setzero_si128());
    return bits_as<vb>(int32_t(_mm_cvtsi128_si32(_mm_packus_epi16(words, words))));
#else
    return __builtin_convertvector(v, vb);
#endif
}

// What words of so many bits are kept in.
template <int BITS>
using Integer = std::conditional_t<BITS == 8, int8_t, std::conditional_t<BITS == 32, int32_t, int16_t>>;

template <class Word>
INLINE void store_words(char* to, vi v) {
    if constexpr (sizeof(Word) == 1) {
        store(to, low_bytes(v));
    } else if constexpr (sizeof(Word) == 2) {
        store(to, __builtin_convertvector(v, vh));
    } else {
        store(to, v);
    }
}

// GCC 12 widens 16 lanes one by one.
INLINE vi widened(vb x) {
#if defined(__AVX512F__)
    return bits_as<vi>(_mm512_cvtepi8_epi32(bits_as<__m128i>(x)));
#elif defined(__AVX2__)
    return bits_as<vi>(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bits_as<long long>(x))));
#else
    return __builtin_convertvector(x, vi);
#endif
}

INLINE vi widened(vhu x) {
#if defined(__AVX512F__)
    return bits_as<vi>(_mm512_cvtepu16_epi32(bits_as<__m256i>(x)));
#else
    return __builtin_convertvector(x, vi);
#endif
}

INLINE vi widened(vh x) {
#if defined(__AVX512F__)
    return bits_as<vi>(_mm512_cvtepi16_epi32(bits_as<__m256i>(x)));
#else
    return __builtin_convertvector(x, vi);
#endif
}

template <class Word>
INLINE vi load_words(const char* from) {
    if constexpr (sizeof(Word) == 1) {
        return widened(load<vb>(from));
    } else if constexpr (sizeof(Word) == 2) {
        return widened(load<vh>(from));
    } else {
        return load<vi>(from);
    }
}

template <class Word>
Found quantise(const float* z, int log, const Rounding& how, char* to) {
    const int64_t size = int64_t(1) << log;
    const float scale = scale_of(log);
    const vf alpha = every(how.alpha), inverse = every(how.inverse), limit = every(how.limit);
    const vhu offset = how.offset + vhu{};
    Sum squares;
    vi clipped{}, low{}, high{};
    for (int64_t k = 0; k < size; k += 16)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS_OF_16; part++) {
            const int64_t at = k + part * LF;
            const vf y = alpha * (load<vf>(z + at) * scale);
            squares.add(part, y, y);
            vf u = y * inverse;
            clipped -= bits_as<vf>(bits_as<vi>(u) & INT32_MAX) > limit;
            u = u == u ? u : vf{};
            u = u > -limit ? u : -limit;
            u = u < limit ? u : limit;
            const vi dither = widened(load<vhu>(how.dither + at) + offset);
            const vf xi = (__builtin_convertvector(dither, vf) + 0.5f) * 0x1p-16f;  // exact
            const vf whole = floor_of(u);
            const vi v = to_int(whole) - ((u - whole) + xi >= 1.0f);
            if constexpr (sizeof(Word) == 4) {
                low += v & 0xffff;
                high += v >> 16;
            } else {
                low += v;  // |v| < 2**15, at most 2**12 of them in a lane
            }
            store_words<Word>(to + at * int64_t(sizeof(Word)), v);
        }
    return {squares.folded(), sum_of(clipped), sum_of(low) + 65536 * sum_of(high)};
}

INLINE vi gathered(const int32_t* table, vi index) {
#if defined(__AVX512F__)
    return bits_as<vi>(_mm512_i32gather_epi32(bits_as<__m512i>(index), table, 4));
#elif defined(__AVX2__)
    return bits_as<vi>(_mm256_i32gather_epi32(table, bits_as<__m256i>(index), 4));
#else
    vi found;
    for (int i = 0; i < LF; i++) found[i] = table[index[i]];
    return found;
#endif
}

INLINE vf gathered(const float* table, vi index) {
#if defined(__AVX512F__)
    return _mm512_i32gather_ps(bits_as<__m512i>(index), table, 4);
#elif defined(__AVX2__)
    return _mm256_i32gather_ps(table, bits_as<__m256i>(index), 4);
#else
    vf found;
    for (int i = 0; i < LF; i++) found[i] = table[index[i]];
    return found;
#endif
}

INLINE vd half_to_double(const vi& x, int half) {
    vih part;
    __builtin_memcpy(&part, reinterpret_cast<const char*>(&x) + half * sizeof part, sizeof part);
#if defined(__AVX512F__)
    return _mm512_cvtepi32_pd(bits_as<__m256i>(part));
#elif defined(__AVX2__)
    return _mm256_cvtepi32_pd(bits_as<__m128i>(part));
#else
    return __builtin_convertvector(part, vd);
#endif
}

// What the table says, with its sign changed.
struct FromTable {
    const int32_t* table;
    INLINE explicit FromTable(const Undithering& how) : table(how.table) {}
    INLINE vi operator()(vi index) const { return -gathered(table, index); }
};

#if defined(__AVX512F__)
struct FromSawtooth {
    vi slope, value[2], fall[2];
    INLINE explicit FromSawtooth(const Undithering& how) : slope(how.sawtooth->slope - vi{}) {
        static_assert(Sawtooth::PARTS == 2 * LF);
        for (int half = 0; half < 2; half++) {
            value[half] = load<vi>(how.sawtooth->value + half * LF);
            fall[half] = load<vi>(how.sawtooth->fall + half * LF);
        }
    }
    INLINE vi operator()(vi index) const {
        const auto of_part = [part = __m512i(index >> Sawtooth::PART_LOG)](const vi* found) {
            return bits_as<vi>(_mm512_permutex2var_epi32(__m512i(found[0]), part, __m512i(found[1])));
        };
        const vi less = of_part(value) + slope * index;
        return (index >= of_part(fall) ? vi{} + Sawtooth::FALL : vi{}) - less;
    }
};
#else
typedef FromTable FromSawtooth;
#endif

struct Nothing {
    INLINE explicit Nothing(const Undithering&) {}
};

// BITS of a word, which has its sign; below 16 it and what a sawtooth says fit into 32 bits together.
template <int BITS, class Known>
void dequantise_words(const char* words, int64_t size, const Undithering& how, float* r) {
    typedef Integer<BITS> Word;
    const vd scale = all(how.scale);
    const uint16_t* const dither = how.dither;
    const char* const soon = reinterpret_cast<const char*>(how.base);
    const Known known(how);
    for (int64_t at = 0; at < size; at += LF) {
        if (soon) fetch(soon, at * int64_t(sizeof(float)), VB);
        const vi s = load_words<Word>(words + at * int64_t(sizeof(Word)));
        if constexpr (std::is_same_v<Known, Nothing>) {
            for (int half = 0; half < 2; half++)
                store(r + at + half * LD, to_float(half_to_double(s, half) * 131072.0 * scale));
        } else {
            const vi less = known(widened(load<vhu>(dither + at)));
            if constexpr (BITS < 16 && !std::is_same_v<Known, FromTable>) {
                const vi x = (s << 17) + less;
                for (int half = 0; half < 2; half++)
                    store(r + at + half * LD, to_float(half_to_double(x, half) * scale));
            } else {
                for (int half = 0; half < 2; half++) {
                    // The product is exact, and so is the difference.
                    const vd x = add_product<true>(half_to_double(s, half), all(131072.0), half_to_double(less, half));
                    store(r + at + half * LD, to_float(x * scale));
                }
            }
        }
    }
}

template <int BITS>
void dequantise(const char* words, int log, const Undithering& how, float* z) {
    const int64_t size = int64_t(1) << log, near = near_size(log);
    const auto fill = !how.dither    ? dequantise_words<BITS, Nothing>
                      : how.sawtooth ? dequantise_words<BITS, FromSawtooth>
                                     : dequantise_words<BITS, FromTable>;
    Undithering part = how;
    for (int64_t begin = 0; begin < size; begin += near) {
        if (how.dither) part.dither = how.dither + begin;
        if (how.base) part.base = how.base + begin;
        fill(words + begin * int64_t(sizeof(Integer<BITS>)), near, part, z + begin);
        near_spans(Plain{z}, log, begin, z);
    }
}

// --- small fields of one 64-bit word: put together, and taken apart ------------------------------------------------

typedef uint64_t vw __attribute__((vector_size(VB)));

constexpr uint64_t fields(int width, int used) {
    uint64_t mask = 0;
    for (int at = 0; at < 64; at += width) mask |= ((used == 64 ? 0 : uint64_t(1) << used) - 1) << at;
    return mask;
}

// The low BITS of every field of WIDTH bits, side by side: 64 / WIDTH * BITS bits of each lane.
template <int WIDTH, int BITS>
INLINE vw squeezed(vw x) {
    if constexpr (WIDTH == 64) {
        return x;
    } else {
        constexpr uint64_t low = fields(2 * WIDTH, BITS);
        return squeezed<2 * WIDTH, 2 * BITS>((x & low) | (x >> (WIDTH - BITS) & low << BITS));
    }
}

// The other way; bits above the fields are 0.
template <int WIDTH, int BITS>
INLINE vw spread(vw x) {
    if constexpr (WIDTH == 64) {
        return x;
    } else {
        constexpr uint64_t low = fields(2 * WIDTH, BITS);
        x = spread<2 * WIDTH, 2 * BITS>(x);
        return (x & low) | (x << (WIDTH - BITS) & low << WIDTH);
    }
}

// A lane for every BYTES bytes.  Reads 8 bytes for each, but no more than there are for the last one of all.
template <int BYTES>
INLINE vw load_apart(const char* from, bool last) {
    vw x{};
    for (int i = 0; i < LD; i++) {
        uint64_t word = 0;
        if (last && i == LD - 1) {
            __builtin_memcpy(&word, from + i * BYTES, BYTES);
        } else {
            __builtin_memcpy(&word, from + i * BYTES, 8);
        }
        x[i] = word;
    }
    return x;
}

void pack12(const uint16_t* words, int64_t count, char* to) {
    for (int64_t at = 0; at < count; at += 4 * LD) {
        const vw x = squeezed<16, 12>(load<vw>(words + at));
        for (int i = 0; i < LD; i++, to += 6) {
            const uint64_t word = x[i];
            __builtin_memcpy(to, &word, 6);
        }
    }
}

void unpack12(const char* from, int64_t count, uint16_t* words) {
    for (int64_t at = 0; at < count; at += 4 * LD, from += 6 * LD) {
        const vw x = spread<16, 12>(load_apart<6>(from, at + 4 * LD == count));
        store(words + at, bits_as<vs>(x) << 4 >> 4);
    }
}

}  // namespace
}  // namespace shoal
