#include "engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "network.h"
#include "pool.h"

namespace shoal {

namespace {

constexpr int64_t SIZES[DTYPES] = {8, 4, 2, 2};
constexpr int64_t PIECE_BYTES = 256 << 10;   // of each input, in one piece of work
constexpr int64_t INLINE_BYTES = 256 << 10;  // less than this in all is done by the caller alone: waking costs more
constexpr int64_t STREAM_BYTES = 4 << 20;    // outputs from here on are written past the caches

// Cuts [0, length) so that all pieces but the first begin where `out` is aligned for streaming.  The pieces depend on
// nothing but the arguments, and no result depends on the pieces.
struct Cut {
    int64_t head, piece, length;

    Cut(int64_t length, int64_t piece, const char* out, int64_t size) : head(0), piece(piece), length(length) {
        const int64_t off = int64_t(reinterpret_cast<uintptr_t>(out) & 63);
        if (out && off % size == 0) head = std::min(length, (64 - off) % 64 / size);
    }
    int64_t begin(int64_t i) const { return i == 0 ? 0 : std::min(length, head + (i - (head > 0)) * piece); }
    int64_t pieces() const { return (head > 0) + (length - head + piece - 1) / piece; }
};

struct Run {
    Kernel kernel;
    const Call& call;
    Cut cut;
    std::atomic<bool> finite{true};
};

bool run(Kernel kernel, const Call& call, const Cut& cut, int threads, int64_t bytes, int64_t scratch = SCRATCH_BYTES) {
    Run work{kernel, call, cut};
    if (threads <= 0) threads = default_threads();
    if (bytes <= INLINE_BYTES) threads = 1;
    run_pieces(
        cut.pieces(), threads, size_t(scratch),
        [](void* context, int64_t i, char* mine) {
            Run& r = *static_cast<Run*>(context);
            if (!r.kernel(r.call, r.cut.begin(i), r.cut.begin(i + 1), mine))
                r.finite.store(false, std::memory_order_relaxed);
        },
        &work);
    return work.finite;
}

Call call_of(const Arrays& a) {
    return {.inputs = a.inputs,
            .count = a.count,
            .out = a.out,
            .stream = a.out && a.length * SIZES[a.dtype] >= STREAM_BYTES};
}

// Coordinate by coordinate, `rows` arrays read.
bool run_columns(Kernel kernel, const Call& call, const Arrays& a, int64_t rows) {
    const int64_t size = SIZES[a.dtype];
    // Many inputs: smaller pieces, so that there are some for every thread.
    const int64_t piece = std::max<int64_t>(PIECE_BYTES / size * 8 / std::max<int64_t>(rows, 8) / 512, 1) * 512;
    return run(kernel, call, Cut(a.length, piece, a.out, size), a.threads, a.length * size * (rows + 1));
}

Total total_of(const std::vector<double>& weights) {
    FloatMode mode;
    Total total;
    for (const double w : weights) {
        const double s = total.sum + w, t = s - total.sum;
        total.rest += (total.sum - (s - t)) + (w - t);
        total.sum = s;
    }
    return total;
}

// Weights of 29 bits or fewer, such as numbers of samples: 24 bits of float32 times 29 bits are exact in double.
bool are_short(const std::vector<double>& weights) {
    return std::all_of(weights.begin(), weights.end(), [](double w) {
        int exponent;
        const double bits = std::ldexp(std::frexp(w, &exponent), 29);
        return bits == std::floor(bits) && exponent > -800;
    });
}

// reference.scaled_weights
std::vector<double> scaled(const double* weights, int64_t count) {
    FloatMode mode;
    std::vector<double> w(weights, weights + count);
    int exponent;
    for (int pass = 0; pass < 2; pass++) {
        std::frexp(pass ? total_of(w).sum : *std::max_element(w.begin(), w.end()), &exponent);
        for (double& x : w) x = std::ldexp(x, -exponent);
    }
    return w;
}

bool ordered(Kernel kernel, Call call, const Arrays& a, int64_t first, int64_t stop) {
    const auto steps = merge_steps(a.count, first, stop);
    call.steps = steps->data();
    call.step_count = int64_t(steps->size());
    return run_columns(kernel, call, a, a.count);
}

}  // namespace

bool weighted_mean(const Arrays& a, const double* weights) {
    const auto w = scaled(weights, a.count);
    Call call = call_of(a);
    call.weights = w.data();
    call.total = total_of(w);
    call.short_weights = are_short(w);
    return run_columns(level().weighted_mean[a.dtype], call, a, a.count);
}

bool combine(const Arrays& a, const char* base, const double* coefficients) {
    Call call = call_of(a);
    call.base = base;
    call.weights = coefficients;
    return run_columns(level().combine[a.dtype], call, a, a.count + (base != nullptr));
}

bool median(const Arrays& a, const double* weights) {
    Call call = call_of(a);
    if (!weights) return ordered(level().median[a.dtype], call, a, (a.count - 1) / 2, a.count / 2 + 1);
    const auto w = scaled(weights, a.count);
    call.weights = w.data();
    call.total = total_of(w);
    return ordered(level().weighted_median[a.dtype], call, a, 0, a.count);
}

bool trimmed_mean(const Arrays& a, const double* weights, int64_t trim) {
    const auto w = weights ? scaled(weights, a.count) : std::vector<double>(size_t(a.count), 1.0);
    const auto& table = level();
    Call call = call_of(a);
    call.weights = w.data();
    call.keep = trim;
    call.total = {double(a.count - 2 * trim), 0};
    return ordered((weights ? table.weighted_trimmed_mean : table.trimmed_mean)[a.dtype], call, a, trim,
                   a.count - trim);
}

bool mean_around_median(const Arrays& a, int64_t keep) {
    const std::vector<double> ones(size_t(a.count), 1.0);
    Call call = call_of(a);
    call.weights = ones.data();
    call.keep = keep;
    return ordered(level().mean_around_median[a.dtype], call, a, 0, a.count);
}

void gram(const Arrays& a, const char* base, double* found) {
    Call call = call_of(a);
    call.base = base;
    call.gram = found;
    const int64_t sums = a.count * a.count * GRAM_LANES * 8;
    run(level().gram[a.dtype], call, Cut(a.length, GRAM_BLOCK, nullptr, 1), a.threads,
        a.length * SIZES[a.dtype] * a.count * a.count, SCRATCH_BYTES + sums);
}

Statistics stats(const Arrays& a) {
    std::vector<Statistics> parts(size_t((a.length + GRAM_BLOCK - 1) / GRAM_BLOCK));
    Call call = call_of(a);
    call.statistics = parts.data();
    run(level().stats[a.dtype], call, Cut(a.length, GRAM_BLOCK, nullptr, 1), a.threads, a.length * SIZES[a.dtype]);
    FloatMode mode;
    Statistics whole{0, 0, 0, -1};
    for (const Statistics& part : parts) {
        whole.largest = std::max(whole.largest, part.largest);
        whole.squares += part.squares;
        whole.bad += part.bad;
        if (whole.first < 0) whole.first = part.first;
    }
    return whole;
}

void convert(const Arrays& a, DType to) {
    Call call = call_of(a);
    call.stream = a.length * SIZES[to] >= STREAM_BYTES;
    const int64_t bytes = a.length * (SIZES[a.dtype] + SIZES[to]);
    run(level().convert[a.dtype][to], call, Cut(a.length, PIECE_BYTES / 4, a.out, SIZES[to]), a.threads, bytes);
}

bool scaled_add(const char* y, double scale, const Arrays& x) {
    const char* const both[] = {y, x.inputs[0]};
    Call call = call_of(x);
    call.inputs = both;
    call.count = 2;
    call.weights = &scale;
    return run_columns(level().scaled_add[x.dtype], call, x, 2);
}

void copy(const Arrays& bytes) {
    Call call = call_of(bytes);
    call.stream = bytes.length >= STREAM_BYTES;
    run(level().copy, call, Cut(bytes.length, PIECE_BYTES, bytes.out, 1), bytes.threads, 2 * bytes.length);
}

namespace {

struct RuleRun {
    const Call& call;
    const double* weights;
    Rule rule;
    DType dtype;
    int64_t length, block;
    const KernelTable& table;
    std::atomic<bool> finite{true};
    std::atomic<int32_t> answer{0};

    // scratch: what kernels need, then values[block][count], then results[block]
    void piece(int64_t i, char* scratch) {
        if (answer.load(std::memory_order_relaxed)) return;
        const int64_t begin = i * block, end = std::min(length, begin + block);
        double* values = reinterpret_cast<double*>(scratch + SCRATCH_BYTES);
        double* results = values + block * call.count;
        Call in = call, back = call;
        in.out = reinterpret_cast<char*>(values);
        if (!table.to_columns[dtype](in, begin, end, scratch)) finite.store(false, std::memory_order_relaxed);
        int32_t none = 0;
        if (int32_t said = rule(values, weights, call.count, end - begin, results)) {
            answer.compare_exchange_strong(none, said);
            return;
        }
        const char* const made[] = {reinterpret_cast<const char*>(results)};
        back.inputs = made;
        back.count = 1;
        table.from_doubles[dtype](back, begin, end, scratch);
    }
};

}  // namespace

int32_t run_rule(const Arrays& a, const double* weights, Rule rule, bool& finite) {
    const Call call = call_of(a);
    const int64_t block = std::clamp<int64_t>((32 << 10) / (8 * a.count), 8, 1024);
    RuleRun work{.call = call,
                 .weights = weights,
                 .rule = rule,
                 .dtype = a.dtype,
                 .length = a.length,
                 .block = block,
                 .table = level()};
    run_pieces((a.length + block - 1) / block, a.threads > 0 ? a.threads : default_threads(),
               size_t(SCRATCH_BYTES + block * (a.count + 1) * 8),
               [](void* context, int64_t i, char* scratch) { static_cast<RuleRun*>(context)->piece(i, scratch); },
               &work);
    finite = work.finite;
    return work.answer;
}

}  // namespace shoal
