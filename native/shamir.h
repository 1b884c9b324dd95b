// Shamir's secret sharing over GF(2^8).  The contract stands in src/shoal/kernels/reference_shamir.py.
#pragma once
#include <cstdint>

namespace shoal {

// shares[n][length] = secret + coefficients[0] x + coefficients[1] x^2 + ... at abscissas[n]
void shamir_split(const uint8_t* secret, int64_t length, const uint8_t* coefficients, int64_t degree,
                  const uint8_t* abscissas, int64_t n, uint8_t* shares);
// secret[length] from shares[n][length]; abscissas are distinct and not 0
void shamir_combine(const uint8_t* shares, int64_t n, int64_t length, const uint8_t* abscissas, uint8_t* secret);

}  // namespace shoal
