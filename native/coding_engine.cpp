#include "coding_engine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "engine.h"
#include "pool.h"

namespace shoal {

namespace {

constexpr int64_t PLACES_STEP = 64;                                  // blocks begin at multiples of this many places
constexpr uint64_t LANE_MODEL = 0, LANE_DITHER = 4, LANE_SIGNS = 5;  // reference_ring
// Streams times elements below which the caller works alone: waking others takes as long.
constexpr int64_t INLINE_WORK = 1 << 17;
// Bytes of an output from which on it is written past the caches.
constexpr int64_t STREAM_BYTES = 4 << 20;
// Elements from which on it pays to look for what a dither table is made of.
constexpr int64_t SAWTOOTH_ELEMENTS = 1 << 18;

const CodingTable& table() {
#if defined(__x86_64__)
    if (&level() == &avx512_table) return avx512_coding;
    if (&level() == &avx2_table) return avx2_coding;
#endif
    return portable_coding;
}

// What a thread works in; nothing else is held for a piece.
struct Scratch {
    float z[TILE];
    uint16_t dither[TILE];
    char signs[TILE / 8];
    char words[4 * TILE];  // bare words on the wire, or codes of one byte; from WIDE on 12 bits in 16, or packed codes
    static constexpr int64_t WIDE = 2 * TILE;

    const uint8_t* signs_at(int64_t offset) const { return reinterpret_cast<const uint8_t*>(signs) + offset / 8; }
    uint16_t* wide() { return reinterpret_cast<uint16_t*>(words + WIDE); }
};

// Runs work(piece, scratch) for every piece.  `streams`: how many are expanded for each element, about.
template <class Work>
void run(int64_t pieces, int64_t elements, int64_t streams, int threads, Work work) {
    if (threads <= 0) threads = default_threads();
    if (elements * (streams + 2) < INLINE_WORK) threads = 1;
    run_pieces(
        pieces, threads, sizeof(Scratch),
        [](void* context, int64_t i, char* mine) {
            (*static_cast<Work*>(context))(i, *reinterpret_cast<Scratch*>(mine));
        },
        &work);
}

// One piece of a grid: where its places begin, and how many they are.
struct Part {
    const Grid::Block *begin, *end;
    int64_t place, count;

    Part(const Grid& grid, int64_t i)
        : begin(&grid.blocks[size_t(grid.pieces[size_t(i)].begin)]),
          end(begin + (grid.pieces[size_t(i)].end - grid.pieces[size_t(i)].begin)),
          place(begin->place),
          count(end[-1].place + (int64_t(1) << end[-1].log) - place) {}
};

void expand_signs(const RingTable& ring, const uint8_t* key, const Grid& grid, const Part& part, Scratch& scratch) {
    ring.keystream(key, LANE_SIGNS, uint64_t(grid.first + part.place) / 8, scratch.signs, part.count / 8);
}

void expand_dither(const RingTable& ring, const uint8_t* key, const Grid& grid, const Part& part, Scratch& scratch) {
    ring.keystream(key, LANE_DITHER, 2 * uint64_t(grid.first + part.place), reinterpret_cast<char*>(scratch.dither),
                   2 * part.count);
}

// reference_coding.float_bound
float float_bound(int64_t bound) {
    const float near = float(bound);
    return int64_t(near) <= bound ? near : std::nextafter(near, 0.0f);
}

bool all_zero(const int32_t* table) {
    return std::all_of(table, table + DITHER_VALUES, [](int32_t value) { return value == 0; });
}

// Whether the table is such a one; then it is found.
bool find_sawtooth(const int32_t* table, Sawtooth& found) {
    const int64_t slope = std::max(int64_t(table[1]) - table[0], int64_t(table[2]) - table[1]);
    if (slope < 0 || slope > Sawtooth::SLOPE_MAX) return false;
    found.slope = int32_t(slope);
    for (int64_t part = 0; part < Sawtooth::PARTS; part++) {
        const int64_t begin = part * Sawtooth::PART, end = begin + Sawtooth::PART;
        const auto level = [&](int64_t i) { return table[i] - slope * i; };
        const int64_t before = level(begin);
        if (std::abs(before) > Sawtooth::VALUE_MAX) return false;
        int64_t at = begin;
        while (at < end && level(at) == before) at++;
        found.value[part] = int32_t(before);
        found.fall[part] = int32_t(at);
        while (at < end && level(at) == before - Sawtooth::FALL) at++;
        if (at < end) return false;
    }
    return true;
}

const float* from(const float* x, int64_t start) { return x ? x + start : nullptr; }

// Where a block goes; long vectors go past the caches, unless they are the base, which is there already.
Target target_of(const Grid& grid, const Grid::Block& block, const float* base, float* out) {
    return {from(base, block.start), out + block.start, block.there,
            out != base && grid.length * int64_t(sizeof(float)) >= STREAM_BYTES};
}

}  // namespace

Grid::Grid(const int64_t* starts, const uint8_t* logs, int64_t count, int64_t first, int64_t length)
    : first(first), length(length) {
    if (first < 0 || first % PLACES_STEP || first > INT64_MAX / 8) throw std::invalid_argument("first place");
    blocks.reserve(size_t(count));
    int64_t end = 0;
    for (int64_t j = 0; j < count; j++) {
        const int64_t start = starts[j], log = logs[j];
        if (log < LOG_MIN || log > LOG_MAX || log % 2) throw std::invalid_argument("log of a block");
        if (start < end || start >= length) throw std::invalid_argument("start of a block");
        const int64_t size = int64_t(1) << log;
        if (pieces.empty() || places + size - blocks[size_t(pieces.back().begin)].place > TILE)
            pieces.push_back({j, j});
        pieces.back().end = j + 1;
        blocks.push_back({start, places, std::min(size, length - start), int(log)});
        end = start + std::min(size, length - start);
        places += size;
    }
}

void encode(const Encoding& e) {
    const CodingTable& t = table();
    const RingTable& r = ring();
    const float limit = float_bound(e.bound);
    run(int64_t(e.grid.pieces.size()), e.grid.places, e.masks.count + 2, e.threads, [&](int64_t i, Scratch& scratch) {
        const Part part(e.grid, i);
        expand_signs(r, e.signs_key, e.grid, part, scratch);
        expand_dither(r, e.dither_key, e.grid, part, scratch);
        char* const out = e.out + wire_bytes(part.place, e.bits);
        for (const Grid::Block* b = part.begin; b != part.end; b++) {
            const int64_t j = b - e.grid.blocks.data(), at = b->place - part.place;
            char* const to = out + wire_bytes(at, e.bits);
            t.rotate(e.x + b->start, from(e.base, b->start), b->there, scratch.signs_at(at), b->log, scratch.z);
            const Rounding how{scratch.dither + at, e.offset, e.alpha, e.inverse_steps[j], limit};
            Found found;
            if (e.bits == 12) {
                found = t.quantise16(scratch.z, b->log, how, scratch.words + Scratch::WIDE);
                t.pack12(scratch.wide(), int64_t(1) << b->log, to);
            } else {
                const auto quantise = e.bits == 8 ? t.quantise8 : e.bits == 16 ? t.quantise16 : t.quantise32;
                found = quantise(scratch.z, b->log, how, to);
            }
            e.squares[j] = found.squares;
            e.clipped[j] = found.clipped;
            e.totals[j] = found.total;
        }
        if (e.masks.count)
            r.add_streams(out, e.bits, e.masks, LANE_MODEL, uint64_t(e.grid.first + part.place), part.count, out);
    });
}

void decode(const Decoding& d) {
    const CodingTable& t = table();
    const RingTable& r = ring();
    const bool dithered = !all_zero(d.table);
    Sawtooth found;
    const bool simple = dithered && d.grid.places >= SAWTOOTH_ELEMENTS && find_sawtooth(d.table, found);
    const Sawtooth* const sawtooth = simple ? &found : nullptr;
    run(int64_t(d.grid.pieces.size()), d.grid.places, d.masks.count + 2, d.threads, [&](int64_t i, Scratch& scratch) {
        const Part part(d.grid, i);
        expand_signs(r, d.signs_key, d.grid, part, scratch);
        if (dithered) expand_dither(r, d.dither_key, d.grid, part, scratch);
        const char* words = d.words + wire_bytes(part.place, d.bits);
        if (d.masks.count) {
            const uint64_t first = uint64_t(d.grid.first + part.place);
            r.add_streams(words, d.bits, d.masks, LANE_MODEL, first, part.count, scratch.words);
            words = scratch.words;
        }
        for (const Grid::Block* b = part.begin; b != part.end; b++) {
            const int64_t j = b - d.grid.blocks.data(), at = b->place - part.place;
            const char* const in = words + wire_bytes(at, d.bits);
            const Undithering how{dithered ? scratch.dither + at : nullptr, d.table, sawtooth, d.scales[j],
                                  from(d.base, b->start)};
            if (d.bits == 12) {
                t.unpack12(in, int64_t(1) << b->log, scratch.wide());
                t.dequantise12(scratch.words + Scratch::WIDE, b->log, how, scratch.z);
            } else {
                const auto dequantise = d.bits == 8 ? t.dequantise8 : d.bits == 16 ? t.dequantise16 : t.dequantise32;
                dequantise(in, b->log, how, scratch.z);
            }
            t.finish(scratch.z, b->log, scratch.signs_at(at), target_of(d.grid, *b, d.base, d.out));
        }
    });
}

Codebook codebook(int bits, const float* boundaries, const float* centroids) {
    if (bits != 8 && (bits < 1 || bits > 4)) throw std::invalid_argument("bits of codes");
    Codebook book{};
    const int count = (1 << bits) - 1;
    book.bits = bits;
    std::fill(std::begin(book.boundaries), std::end(book.boundaries), std::numeric_limits<float>::infinity());
    std::copy(boundaries, boundaries + count, book.boundaries);
    std::copy(centroids, centroids + count + 1, book.centroids);
    if (bits != 4 && bits != 8) return book;
    const int buckets = bits == 8 ? Codebook::BUCKETS : Codebook::FEW_BUCKETS;
    // As the kernels do it: what they compute never falls when z rises, whatever is rounded.
    book.low = boundaries[0];
    book.per_unit = float(buckets - 1) / (boundaries[count - 1] - boundaries[0]);
    int inside[Codebook::BUCKETS] = {};
    for (int i = 0; i < count; i++) {
        const float place = (boundaries[i] - book.low) * book.per_unit;
        inside[place > 0 ? int(std::min(place, float(buckets - 1))) : 0]++;
    }
    for (int i = 0, sum = 0; i < buckets; sum += inside[i++]) {
        book.under[i] = sum;
        book.most = std::max(book.most, inside[i]);
    }
    return book;
}

void encode_codes(const Codes& c, const float* x, const float* base, char* out, float* scales) {
    const CodingTable& t = table();
    const RingTable& r = ring();
    const int bits = c.book.bits;
    run(int64_t(c.grid.pieces.size()), c.grid.places, 1, c.threads, [&](int64_t i, Scratch& scratch) {
        const Part part(c.grid, i);
        expand_signs(r, c.signs_key, c.grid, part, scratch);
        uint8_t* const codes = reinterpret_cast<uint8_t*>(scratch.words);
        for (const Grid::Block* b = part.begin; b != part.end; b++) {
            const int64_t at = b->place - part.place;
            t.rotate(x + b->start, from(base, b->start), b->there, scratch.signs_at(at), b->log, scratch.z);
            scales[b - c.grid.blocks.data()] = t.encode_codes(scratch.z, b->log, c.book, codes + at);
        }
        char* const packed = scratch.words + Scratch::WIDE;
        t.pack_codes(codes, part.count, bits, packed);
        std::copy(packed, packed + part.count * bits / 8, out + part.place * bits / 8);
    });
}

void decode_codes(const Codes& c, const char* codes, const float* scales, const float* base, float* out) {
    const CodingTable& t = table();
    const RingTable& r = ring();
    const int bits = c.book.bits;
    run(int64_t(c.grid.pieces.size()), c.grid.places, 1, c.threads, [&](int64_t i, Scratch& scratch) {
        const Part part(c.grid, i);
        expand_signs(r, c.signs_key, c.grid, part, scratch);
        uint8_t* const wide = reinterpret_cast<uint8_t*>(scratch.words);
        t.unpack_codes(codes + part.place * bits / 8, part.count, bits, wide);
        for (const Grid::Block* b = part.begin; b != part.end; b++) {
            const int64_t at = b->place - part.place;
            t.decode_codes(wide + at, b->log, c.book, scales[b - c.grid.blocks.data()], scratch.z);
            t.finish(scratch.z, b->log, scratch.signs_at(at), target_of(c.grid, *b, base, out));
        }
    });
}

void rotate(const Grid& grid, const float* x, const uint8_t* signs_key, float* out, int threads) {
    const CodingTable& t = table();
    const RingTable& r = ring();
    run(int64_t(grid.pieces.size()), grid.places, 1, threads, [&](int64_t i, Scratch& scratch) {
        const Part part(grid, i);
        expand_signs(r, signs_key, grid, part, scratch);
        for (const Grid::Block* b = part.begin; b != part.end; b++) {
            const int64_t at = b->place - part.place, size = int64_t(1) << b->log;
            t.rotate(x + b->start, nullptr, b->there, scratch.signs_at(at), b->log, scratch.z);
            const float scale = 1.0f / float(1 << (b->log / 2));
            for (int64_t k = 0; k < size; k++) out[b->place + k] = scratch.z[k] * scale;
        }
    });
}

namespace {

// Calls one(run, its first element, its length) for every run, some at a time.
template <class One>
void each_run(const Runs& runs, One one) {
    const int64_t count = (runs.length + runs.size - 1) / runs.size;
    const int64_t together = std::max<int64_t>(1, 4 * TILE / runs.size);
    run((count + together - 1) / together, runs.length, 0, runs.threads, [&](int64_t i, Scratch&) {
        for (int64_t j = i * together; j < std::min(count, (i + 1) * together); j++)
            one(j, j * runs.size, std::min(runs.size, runs.length - j * runs.size));
    });
}

}  // namespace

void absmax(const Runs& runs, const float* x, float* out) {
    const CodingTable& t = table();
    each_run(runs, [&](int64_t j, int64_t at, int64_t count) { out[j] = t.absmax(x + at, count); });
}

void quantise_absmax(const Runs& runs, const float* x, int levels, const float* scales, int8_t* out) {
    const CodingTable& t = table();
    each_run(runs, [&](int64_t j, int64_t at, int64_t count) {
        t.quantise_absmax(x + at, count, float(levels), scales[j], out + at);
    });
}

void dequantise(const Runs& runs, const int8_t* q, const float* scales, const float* base, float* out) {
    const CodingTable& t = table();
    each_run(runs, [&](int64_t j, int64_t at, int64_t count) {
        t.dequantise(q + at, count, scales[j], from(base, at), out + at);
    });
}

}  // namespace shoal
