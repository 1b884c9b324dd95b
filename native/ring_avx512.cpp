#define SHOAL_VECTOR_BYTES 64
// GCC 12 warns about its own immintrin.h (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "level_ring.h"

namespace shoal {
const RingTable avx512_ring = SHOAL_RING_TABLE;
}
