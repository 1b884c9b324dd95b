// What one call takes: pointers, weights and keys travel as a kernel's parameters, of which every driver takes 4 KiB.
#pragma once

namespace shoal::cuda {

constexpr int INPUTS_MAX = 128;      // of a mean or a combination
constexpr int ORDER_MAX = 32;        // of an order statistic: all values of a coordinate are in registers
constexpr int SUM_INPUTS_MAX = 257;  // of a sum of ring words: ring.INPUTS_MAX
constexpr int STREAMS_MAX = 64;      // masks of one launch

}  // namespace shoal::cuda
