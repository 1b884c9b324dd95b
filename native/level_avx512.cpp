#define SHOAL_VECTOR_BYTES 64
// GCC 12 warns about its own immintrin.h (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "level_table.h"

namespace shoal {
const KernelTable avx512_table = SHOAL_TABLE("avx512");
}
