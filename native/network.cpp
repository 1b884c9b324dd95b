#include "network.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

namespace shoal {

namespace {

// Batcher's odd-even merge sort (Knuth TAOCP 3, 5.3.4, algorithm M), from sorted groups of GROUP on.
std::vector<Step> all_steps(int64_t count) {
    std::vector<Step> steps;
    for (int64_t p = GROUP; p < count; p *= 2)
        for (int64_t k = p; k >= 1; k /= 2)
            for (int64_t j = k % p; j + k < count; j += 2 * k)
                for (int64_t i = 0; i < k && i + j + k < count; i++)
                    if ((i + j) / (2 * p) == (i + j + k) / (2 * p))
                        steps.push_back({uint16_t(i + j), uint16_t(i + j + k), Step::BOTH});
    return steps;
}

// Backwards from the rows that are asked for: steps that nobody reads fall out.
std::vector<Step> pruned(std::vector<Step> steps, int64_t count, int64_t first, int64_t stop) {
    std::vector<char> read(size_t(count), 0);
    std::fill(read.begin() + first, read.begin() + stop, 1);
    std::vector<Step> kept;
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
        const bool low = read[step->low], high = read[step->high];
        if (!low && !high) continue;
        kept.push_back({step->low, step->high, low && high ? Step::BOTH : low ? Step::LOWER : Step::HIGHER});
        read[step->low] = read[step->high] = 1;
    }
    std::reverse(kept.begin(), kept.end());
    return kept;
}

}  // namespace

std::shared_ptr<const std::vector<Step>> merge_steps(int64_t count, int64_t first, int64_t stop) {
    static auto& mutex = *new std::mutex;  // never destroyed: calls may run while the process ends
    static auto& known = *new std::map<std::tuple<int64_t, int64_t, int64_t>, std::shared_ptr<const std::vector<Step>>>;
    constexpr size_t KNOWN_MAX = 64;
    std::lock_guard lock(mutex);
    auto& found = known[{count, first, stop}];
    if (!found) {
        auto made = std::make_shared<const std::vector<Step>>(pruned(all_steps(count), count, first, stop));
        if (known.size() > KNOWN_MAX) {
            known.clear();
            return known[{count, first, stop}] = made;
        }
        found = made;
    }
    return found;
}

}  // namespace shoal
