#define SHOAL_VECTOR_BYTES 16
#include "level_ring.h"

namespace shoal {
const RingTable portable_ring = SHOAL_RING_TABLE;
}
