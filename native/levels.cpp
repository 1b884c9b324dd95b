// Which level runs.
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "engine.h"

namespace shoal {

std::vector<const KernelTable*> levels() {
    std::vector<const KernelTable*> found{&portable_table};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("x86-64-v3")) found.push_back(&avx2_table);
    if (__builtin_cpu_supports("x86-64-v4")) found.push_back(&avx512_table);
#endif
    return found;
}

namespace {

const KernelTable* find_level(const std::string& name) {
    std::string known;
    for (const KernelTable* table : levels()) {
        if (table->name == name) return table;
        known += std::string(known.empty() ? "" : ", ") + table->name;
    }
    throw std::invalid_argument("level " + name + " cannot run on this machine; expected one of: " + known);
}

std::atomic<const KernelTable*>& chosen() {
    static std::atomic<const KernelTable*> table = [] {
        const char* asked = std::getenv("SHOAL_LEVEL");
        return asked && *asked ? find_level(asked) : levels().back();
    }();
    return table;
}

}  // namespace

const KernelTable& level() { return *chosen().load(); }

void use_level(const char* name) { chosen().store(find_level(name)); }

}  // namespace shoal
