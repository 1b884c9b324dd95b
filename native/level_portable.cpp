#define SHOAL_VECTOR_BYTES 16
#include "level_table.h"

namespace shoal {
const KernelTable portable_table = SHOAL_TABLE("portable");
}
