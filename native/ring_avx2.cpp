#define SHOAL_VECTOR_BYTES 32
#include "level_ring.h"

namespace shoal {
const RingTable avx2_ring = SHOAL_RING_TABLE;
}
