#define SHOAL_VECTOR_BYTES 16
#include "level_codes.h"

namespace shoal {
const CodingTable portable_coding = SHOAL_CODING_TABLE;
}
