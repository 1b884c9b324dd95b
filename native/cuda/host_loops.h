// The host twin's way to start a body: one thread after the other, and between two phases a meeting of all.
#pragma once
#include <cstdint>
#include <memory>

#include "cuda/body_block.h"

namespace shoal::cuda {

struct Loops {
    template <class Body>
    void each(const Body& body, int64_t count) const {
        for (int64_t i = 0; i < count; i++) body(i);
    }

    // Threads forwards in one block, backwards in the next: a phase in which one needs another would show.
    template <class Body>
    void crews(const Body& body, int64_t count) const {
        const auto tile = std::make_unique<float[]>(TILE_ELEMENTS);
        const auto room = std::make_unique<Room>();
        for (int64_t i = 0; i < count; i++) {
            const int phases = body.phases(i);
            for (int phase = 0; phase < phases; phase++)
                for (int thread = 0; thread < CREW; thread++)
                    body.phase(phase, i, i % 2 ? CREW - 1 - thread : thread, tile.get(), *room);
        }
    }
};

}  // namespace shoal::cuda
