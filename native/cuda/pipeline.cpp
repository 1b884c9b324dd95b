#include "cuda/pipeline.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cuda/memory.h"
#include "pool.h"

namespace shoal::cuda {

namespace {

constexpr int64_t SIZES[DTYPES] = {8, 4, 2, 2};
constexpr int64_t TILE_BYTES_MIN = 64 << 10;  // less than this is no tile: the device has no memory at all
constexpr int64_t COPY_BYTES = 256 << 10;     // that one thread copies at a time
constexpr int64_t FLAG_BYTES = 64;            // before the arrays of a slot
constexpr int64_t ROW_ALIGNMENT = 256;

struct Copy {
    char* to;
    const char* from;
    int64_t bytes;
};

// All of several copies, by several threads.
void copy_all(const std::vector<Copy>& copies, int threads) {
    std::vector<Copy> pieces;
    for (const Copy& copy : copies)
        for (int64_t at = 0; at < copy.bytes; at += COPY_BYTES)
            pieces.push_back({copy.to + at, copy.from + at, std::min(COPY_BYTES, copy.bytes - at)});
    if (pieces.size() == 1) threads = 1;
    run_pieces(
        int64_t(pieces.size()), threads > 0 ? threads : default_threads(), 0,
        [](void* context, int64_t i, char*) {
            const Copy& piece = (*static_cast<std::vector<Copy>*>(context))[size_t(i)];
            std::memcpy(piece.to, piece.from, size_t(piece.bytes));
        },
        &pieces);
}

}  // namespace

struct Pipeline::Slot {
    OwnQueue own;
    Memory memory;
    Pinned pinned;
    char* result = nullptr;  // in pinned memory; null: nothing is under way
    int64_t at = 0, bytes = 0;

    Slot(int device, int64_t size)
        : own(device), memory(size_t(size + FLAG_BYTES), own.queue), pinned(size_t(size + FLAG_BYTES), device) {}
    // Whatever is under way ends before the memory goes that it reads and writes.
    ~Slot() {
        try {
            wait(own.queue);
        } catch (const Failure&) {
            // It has failed, so it has ended.
        }
    }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;
};

Pipeline::Pipeline(int device, int64_t tile_bytes) : device_(device), tile_bytes_(tile_bytes) {}

Pipeline::~Pipeline() = default;

void Pipeline::make_slots() {
    while (!slots_[1]) {
        try {
            for (auto& slot : slots_) slot = std::make_unique<Slot>(device_, tile_bytes_);
        } catch (const Failure& failure) {
            for (auto& slot : slots_) slot.reset();
            if (!failure.memory || tile_bytes_ / 2 < TILE_BYTES_MIN) throw;
            tile_bytes_ /= 2;
        }
    }
}

bool Pipeline::run(const HostCall& call, int threads, const TileStart& start) {
    const std::lock_guard guard(busy_);
    make_slots();
    const int64_t size = SIZES[call.dtype], rows = call.count + 1;
    const int64_t row = tile_bytes_ / rows / ROW_ALIGNMENT * ROW_ALIGNMENT, most = row / size;
    if (most == 0) throw Failure("a tile of so many inputs: not enough memory", true);
    uint32_t found = 0;
    const auto finish = [&](Slot& slot) {
        if (!slot.result) return;
        wait(slot.own.queue);
        uint32_t flag;
        std::memcpy(&flag, slot.pinned.data, sizeof flag);
        found |= flag;
        copy_all({{call.out + slot.at, slot.result, slot.bytes}}, threads);
        slot.result = nullptr;
    };
    const auto begin = [&](Slot& slot, int64_t first) {
        const int64_t elements = std::min(most, call.length - first), bytes = elements * size;
        char *host = slot.pinned.data, *there = static_cast<char*>(slot.memory.data);
        std::vector<Copy> copies;
        std::vector<const char*> inputs;
        for (int i = 0; i < call.count; i++) {
            copies.push_back({host + FLAG_BYTES + i * row, call.inputs[i] + first * size, bytes});
            inputs.push_back(there + FLAG_BYTES + i * row);
        }
        copy_all(copies, threads);
        std::memset(host, 0, FLAG_BYTES);
        copy_in(there, host, size_t(FLAG_BYTES + (call.count - 1) * row + bytes), slot.own.queue);
        char* out = there + FLAG_BYTES + call.count * row;
        start({inputs.data(), nullptr, call.count, elements, call.dtype, out, reinterpret_cast<uint32_t*>(there)},
              slot.own.queue);
        slot.result = host + FLAG_BYTES + call.count * row;
        slot.at = first * size;
        slot.bytes = bytes;
        copy_out(host, there, FLAG_BYTES, slot.own.queue);
        copy_out(slot.result, out, size_t(bytes), slot.own.queue);
    };
    try {
        for (int64_t first = 0, turn = 0; first < call.length; first += most, turn++) {
            finish(*slots_[turn % 2]);
            begin(*slots_[turn % 2], first);
        }
        for (auto& slot : slots_) finish(*slot);
    } catch (...) {
        for (auto& slot : slots_) slot.reset();
        throw;
    }
    return found == 0;
}

}  // namespace shoal::cuda
