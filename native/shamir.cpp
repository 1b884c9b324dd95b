// No tables and no branches on the bytes of secrets, shares or coefficients: what a computation takes depends on the
// lengths only.  Abscissas are public.  A compiler could still make branches of the masks: GCC 12.2 at -O3 for x86-64
// does not (in its machine code each conditional jump compares counters, lengths or addresses); look again for others.
#include "shamir.h"

#include <cstring>

namespace shoal {

namespace {

constexpr uint8_t MODULUS = 0x1B;  // x^8 = x^4 + x^3 + x + 1 (FIPS 197, section 4.2)

inline uint8_t times_x(uint8_t a) { return uint8_t(a << 1) ^ uint8_t(-(a >> 7) & MODULUS); }

// a * b for a secret a; all bits of b are looked at alike, too.
inline uint8_t multiply(uint8_t a, uint8_t b) {
    uint8_t product = 0;
    for (int bit = 0; bit < 8; bit++) {
        product ^= uint8_t(-(b >> bit & 1)) & a;
        a = times_x(a);
    }
    return product;
}

// a^254 = 1 / a; 0 for 0
uint8_t inverse(uint8_t a) {
    uint8_t power = a, result = 1;
    for (int i = 0; i < 7; i++) {
        power = multiply(power, power);
        result = multiply(result, power);
    }
    return result;
}

}  // namespace

void shamir_split(const uint8_t* secret, int64_t length, const uint8_t* coefficients, int64_t degree,
                  const uint8_t* abscissas, int64_t n, uint8_t* shares) {
    for (int64_t j = 0; j < n; j++) {
        uint8_t* share = shares + j * length;
        const uint8_t x = abscissas[j];
        std::memset(share, 0, size_t(length));
        for (int64_t i = degree - 1; i >= 0; i--) {
            const uint8_t* row = coefficients + i * length;
            for (int64_t b = 0; b < length; b++) share[b] = multiply(share[b] ^ row[b], x);
        }
        for (int64_t b = 0; b < length; b++) share[b] ^= secret[b];
    }
}

void shamir_combine(const uint8_t* shares, int64_t n, int64_t length, const uint8_t* abscissas, uint8_t* secret) {
    std::memset(secret, 0, size_t(length));
    for (int64_t j = 0; j < n; j++) {
        uint8_t factor = 1;  // of share j in the interpolation at 0
        for (int64_t i = 0; i < n; i++)
            if (i != j) factor = multiply(factor, multiply(abscissas[i], inverse(abscissas[i] ^ abscissas[j])));
        for (int64_t b = 0; b < length; b++) secret[b] ^= multiply(shares[j * length + b], factor);
    }
}

}  // namespace shoal
