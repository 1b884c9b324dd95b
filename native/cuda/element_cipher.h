// ChaCha20 (Bernstein 2008, 64-bit counter and lane), and ring words in the 64 bytes of one of its blocks.  The
// contract stands in src/shoal/kernels/reference_ring.py.
#pragma once
#include "cuda/element_number.h"
#include "cuda/limits.h"

namespace shoal::cuda {

constexpr int CIPHER_BYTES = 64;

struct StreamKey {
    uint32_t words[8];
};

// Streams that are added, or taken away where `minus` has the bit.
struct Streams {
    StreamKey keys[STREAMS_MAX];
    uint64_t minus;
    int count;
};

SHOAL_BOTH uint32_t turned(uint32_t x, int by) { return x << by | x >> (32 - by); }

SHOAL_BOTH void quarter(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
    a += b, d = turned(d ^ a, 16);
    c += d, b = turned(b ^ c, 12);
    a += b, d = turned(d ^ a, 8);
    c += d, b = turned(b ^ c, 7);
}

SHOAL_BOTH void cipher_block(const StreamKey& key, uint64_t lane, uint64_t counter, uint32_t (&x)[16]) {
    const uint32_t sigma[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    const uint32_t last[4] = {uint32_t(counter), uint32_t(counter >> 32), uint32_t(lane), uint32_t(lane >> 32)};
    SHOAL_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = sigma[i];
        x[4 + i] = key.words[i];
        x[8 + i] = key.words[4 + i];
        x[12 + i] = last[i];
    }
#if defined(__CUDA_ARCH__)
#    pragma unroll 2
#endif
    for (int round = 0; round < 10; round++) {
        quarter(x[0], x[4], x[8], x[12]);
        quarter(x[1], x[5], x[9], x[13]);
        quarter(x[2], x[6], x[10], x[14]);
        quarter(x[3], x[7], x[11], x[15]);
        quarter(x[0], x[5], x[10], x[15]);
        quarter(x[1], x[6], x[11], x[12]);
        quarter(x[2], x[7], x[8], x[13]);
        quarter(x[3], x[4], x[9], x[14]);
    }
    SHOAL_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] += sigma[i];
        x[4 + i] += key.words[i];
        x[8 + i] += key.words[4 + i];
        x[12 + i] += last[i];
    }
}

// --- words of a unit: 64 bytes of stream, as 16 numbers of 32 bits in the stream's order -----------------------------

template <int BITS>
inline constexpr int STREAM_WORD = BITS == 12 ? 2 : BITS / 8;  // bytes of stream per element
template <int BITS>
inline constexpr int UNIT = CIPHER_BYTES / STREAM_WORD<BITS>;  // elements: 64, 32, 16 or 8
template <int BITS>
inline constexpr int UNIT_BYTES = UNIT<BITS> * BITS / 8;  // on the wire: 64, or 48

// Lane by lane, modulo 2^BITS (12 bits: in lanes of 16).
template <int BITS>
SHOAL_BOTH void add_lanes(uint32_t (&total)[16], const uint32_t (&x)[16], bool minus) {
    if constexpr (BITS == 64) {
        SHOAL_UNROLL
        for (int i = 0; i < 16; i += 2) {
            const uint64_t a = uint64_t(total[i + 1]) << 32 | total[i], b = uint64_t(x[i + 1]) << 32 | x[i];
            const uint64_t sum = minus ? a - b : a + b;
            total[i] = uint32_t(sum);
            total[i + 1] = uint32_t(sum >> 32);
        }
    } else {
        // Top bits apart, so that no lane carries into its neighbour.
        constexpr uint32_t top = BITS == 8 ? 0x80808080 : BITS == 32 ? 0 : 0x80008000;
        SHOAL_UNROLL
        for (int i = 0; i < 16; i++) {
            const uint32_t a = total[i], b = x[i];
            if constexpr (BITS == 32) {
                total[i] = minus ? a - b : a + b;
            } else {
                total[i] =
                    minus ? ((a | top) - (b & ~top)) ^ (~(a ^ b) & top) : ((a & ~top) + (b & ~top)) ^ ((a ^ b) & top);
            }
        }
    }
}

// The sum of all streams over block `counter` of each.
template <int BITS>
SHOAL_BOTH void masks_of_block(const Streams& streams, uint64_t lane, uint64_t counter, uint32_t (&total)[16]) {
    SHOAL_UNROLL
    for (int i = 0; i < 16; i++) total[i] = 0;
    for (int s = 0; s < streams.count; s++) {
        uint32_t x[16];
        cipher_block(streams.keys[s], lane, counter, x);
        add_lanes<BITS>(total, x, streams.minus >> s & 1);
    }
}

// The same for the unit that begins at any element: it may lie in two blocks.
template <int BITS>
SHOAL_BOTH void masks_of_unit(const Streams& streams, uint64_t lane, uint64_t element, uint32_t (&total)[16]) {
    const uint64_t byte = element * STREAM_WORD<BITS>, counter = byte / CIPHER_BYTES;
    const int offset = int(byte % CIPHER_BYTES);
    masks_of_block<BITS>(streams, lane, counter, total);
    if (offset == 0) return;
    uint32_t next[16];
    masks_of_block<BITS>(streams, lane, counter + 1, next);
    unsigned char both[2 * CIPHER_BYTES];
    memcpy(both, total, sizeof total);
    memcpy(both + sizeof total, next, sizeof next);
    memcpy(total, both + offset, sizeof total);
}

// --- the wire ------------------------------------------------------------------------------------------------------

// 12 bits in lanes of 16 <-> wire: 16 numbers of two words each, 12 numbers of the wire.
SHOAL_BOTH void squeeze12(const uint32_t (&x)[16], uint32_t (&wire)[12]) {
    SHOAL_UNROLL
    for (int i = 0; i < 4; i++) {
        uint32_t p[4];
        SHOAL_UNROLL
        for (int j = 0; j < 4; j++) p[j] = (x[4 * i + j] & 0xfff) | (x[4 * i + j] >> 4 & 0xfff000);
        wire[3 * i] = p[0] | p[1] << 24;
        wire[3 * i + 1] = p[1] >> 8 | p[2] << 16;
        wire[3 * i + 2] = p[2] >> 16 | p[3] << 8;
    }
}

SHOAL_BOTH void spread12(const uint32_t (&wire)[12], uint32_t (&x)[16]) {
    SHOAL_UNROLL
    for (int i = 0; i < 4; i++) {
        const uint32_t a = wire[3 * i], b = wire[3 * i + 1], c = wire[3 * i + 2];
        const uint32_t p[4] = {a & 0xffffff, (a >> 24 | b << 8) & 0xffffff, (b >> 16 | c << 16) & 0xffffff, c >> 8};
        SHOAL_UNROLL
        for (int j = 0; j < 4; j++) x[4 * i + j] = (p[j] & 0xfff) | (p[j] & 0xfff000) << 4;
    }
}

// `bytes` bytes of the wire; all of them in steps of 16 if the address allows.
template <int BYTES>
SHOAL_BOTH void load_wire(const char* from, int bytes, bool whole, uint32_t (&to)[BYTES / 4]) {
#if defined(__CUDA_ARCH__)
    if (whole) {
        SHOAL_UNROLL
        for (int i = 0; i < BYTES / 16; i++) {
            const uint4 v = reinterpret_cast<const uint4*>(from)[i];
            to[4 * i] = v.x, to[4 * i + 1] = v.y, to[4 * i + 2] = v.z, to[4 * i + 3] = v.w;
        }
        return;
    }
#endif
    (void)whole;
    SHOAL_UNROLL
    for (int i = 0; i < BYTES / 4; i++) {
        to[i] = 0;
        SHOAL_UNROLL
        for (int b = 0; b < 4; b++)
            if (4 * i + b < bytes) to[i] |= uint32_t(uint8_t(from[4 * i + b])) << 8 * b;
    }
}

template <int BYTES>
SHOAL_BOTH void store_wire(char* to, int bytes, bool whole, const uint32_t (&from)[BYTES / 4]) {
#if defined(__CUDA_ARCH__)
    if (whole) {
        SHOAL_UNROLL
        for (int i = 0; i < BYTES / 16; i++)
            reinterpret_cast<uint4*>(to)[i] =
                make_uint4(from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]);
        return;
    }
#endif
    (void)whole;
    SHOAL_UNROLL
    for (int i = 0; i < BYTES / 4; i++) {
        SHOAL_UNROLL
        for (int b = 0; b < 4; b++)
            if (4 * i + b < bytes) to[4 * i + b] = char(from[i] >> 8 * b);
    }
}

// One unit of words, or its first `bytes`, in lanes.
template <int BITS>
SHOAL_BOTH void load_unit(const char* from, int bytes, bool whole, uint32_t (&x)[16]) {
    if constexpr (BITS == 12) {
        uint32_t wire[12];
        load_wire<48>(from, bytes, whole, wire);
        spread12(wire, x);
    } else {
        load_wire<64>(from, bytes, whole, x);
    }
}

template <int BITS>
SHOAL_BOTH void store_unit(char* to, int bytes, bool whole, const uint32_t (&x)[16]) {
    if constexpr (BITS == 12) {
        uint32_t wire[12];
        squeeze12(x, wire);
        store_wire<48>(to, bytes, whole, wire);
    } else {
        store_wire<64>(to, bytes, whole, x);
    }
}

}  // namespace shoal::cuda
