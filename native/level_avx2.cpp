#define SHOAL_VECTOR_BYTES 32
#include "level_table.h"

namespace shoal {
const KernelTable avx2_table = SHOAL_TABLE("avx2");
}
