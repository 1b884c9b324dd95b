#include "cuda/launcher.h"
#include "cuda/start_sums.h"

namespace shoal::cuda {

void order(const SumCall& call, int trim, const Queue& queue) { start_order(Launcher(queue), call, trim); }

}  // namespace shoal::cuda
