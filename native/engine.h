// The kernels as the bindings call them: plain pointers and lengths in, work cut into pieces and run on the pool.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace shoal {

struct Arrays {
    const char* const* inputs;  // [count]
    int64_t count;              // 1 ... MODELS_MAX
    int64_t length;             // elements of each, and of out
    DType dtype;
    char* out;
    int threads;  // 0: default
};

// Levels that this machine can run, lowest first, and the one in use (the highest, or SHOAL_LEVEL).
std::vector<const KernelTable*> levels();
const KernelTable& level();
// Throws std::invalid_argument if the machine cannot run it.
void use_level(const char* name);

// Weights are finite, > 0, unscaled, or null for none; the contract of each stands in kernels/reference.py.
bool weighted_mean(const Arrays& a, const double* weights);
bool combine(const Arrays& a, const char* base, const double* coefficients);
bool median(const Arrays& a, const double* weights);
bool trimmed_mean(const Arrays& a, const double* weights, int64_t trim);
bool mean_around_median(const Arrays& a, int64_t keep);
void gram(const Arrays& a, const char* base, double* found);  // found[blocks][count][count]
Statistics stats(const Arrays& a);
void convert(const Arrays& a, DType to);
bool scaled_add(const char* y, double scale, const Arrays& x);
void copy(const Arrays& bytes);

// A user's rule, compiled: values[m][count] and weights[count] to out[m].  Not 0: it failed.
using Rule = int32_t (*)(const double* values, const double* weights, int64_t count, int64_t m, double* out);
// Returns what the rule answered: 0, or the first other answer; then out is not to be used.
int32_t run_rule(const Arrays& a, const double* weights, Rule rule, bool& finite);

}  // namespace shoal
