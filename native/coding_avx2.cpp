#define SHOAL_VECTOR_BYTES 32
#include "level_codes.h"

namespace shoal {
const CodingTable avx2_coding = SHOAL_CODING_TABLE;
}
