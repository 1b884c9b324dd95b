#pragma once
#include <cstddef>

namespace shoal::cuda {

// Bytes that all Memory together may have from now on.
void limit_memory(size_t bytes);

}  // namespace shoal::cuda
