// Merging networks for more inputs than fit into registers.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"

namespace shoal {

// The steps that bring `count` rows, sorted in groups of GROUP, into ascending order, as far as rows [first, stop) need
// it.  Kept for the next call.
std::shared_ptr<const std::vector<Step>> merge_steps(int64_t count, int64_t first, int64_t stop);

}  // namespace shoal
