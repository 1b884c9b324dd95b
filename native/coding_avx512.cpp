#define SHOAL_VECTOR_BYTES 64
// GCC 12 warns about its own immintrin.h (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "level_codes.h"

namespace shoal {
const CodingTable avx512_coding = SHOAL_CODING_TABLE;
}
