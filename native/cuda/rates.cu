#include "cuda/rates.h"

#include <algorithm>

#include "cuda/launcher.h"

namespace shoal::cuda {

namespace {

constexpr int TRIES = 10;
constexpr int BLOCKS_OF_THREAD = 64;

// Blocks are folded into one word, so that none can be left out and none needs memory.
struct CipherRateBody {
    StreamKey key;
    uint32_t* out;

    SHOAL_BOTH void operator()(int64_t i) const {
        uint32_t all = 0;
#pragma unroll 1
        for (int b = 0; b < BLOCKS_OF_THREAD; b++) {
            uint32_t x[16];
            cipher_block(key, 0, uint64_t(i) * BLOCKS_OF_THREAD + uint64_t(b), x);
            SHOAL_UNROLL
            for (int w = 0; w < 16; w++) all ^= x[w];
        }
        out[i] = all;
    }
};

template <class Work>
double best_of(const Queue& queue, const Work& work) {
    Timer timer(queue.device, reinterpret_cast<uintptr_t>(queue.stream));
    double best = 1e30;
    for (int i = 0; i < TRIES; i++) {
        timer.start();
        work();
        best = std::min(best, timer.stop());
    }
    return best;
}

cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

Timer::Timer(int device, uintptr_t stream) : device_(device), stream_(reinterpret_cast<void*>(stream)) {
    const OnDevice on(device);
    check(cudaEventCreate(reinterpret_cast<cudaEvent_t*>(&begun_)), "making an event");
    check(cudaEventCreate(reinterpret_cast<cudaEvent_t*>(&ended_)), "making an event");
}

Timer::~Timer() {
    if (begun_) cudaEventDestroy(event_of(begun_));
    if (ended_) cudaEventDestroy(event_of(ended_));
}

void Timer::start() {
    const OnDevice on(device_);
    check(cudaEventRecord(event_of(begun_), static_cast<cudaStream_t>(stream_)), "timing");
}

double Timer::stop() {
    const OnDevice on(device_);
    float ms = 0;
    check(cudaEventRecord(event_of(ended_), static_cast<cudaStream_t>(stream_)), "timing");
    check(cudaEventSynchronize(event_of(ended_)), "waiting for the device");
    check(cudaEventElapsedTime(&ms, event_of(begun_), event_of(ended_)), "timing");
    return double(ms) / 1000;
}

double copy_seconds(int64_t bytes, int device) {
    const OwnQueue own(device);
    const Memory from(size_t(bytes), own.queue), to(size_t(bytes), own.queue);
    return best_of(own.queue, [&] {
        check(cudaMemcpyAsync(to.data, from.data, size_t(bytes), cudaMemcpyDeviceToDevice,
                              static_cast<cudaStream_t>(own.queue.stream)),
              "copying");
    });
}

double bus_seconds(int64_t bytes, bool to_device, int device) {
    const OwnQueue own(device);
    const Memory there(size_t(bytes), own.queue);
    const Pinned here(size_t(bytes), device);
    return best_of(own.queue, [&] {
        to_device ? copy_in(there.data, here.data, size_t(bytes), own.queue)
                  : copy_out(here.data, there.data, size_t(bytes), own.queue);
    });
}

double cipher_seconds(int64_t blocks, int device) {
    const OwnQueue own(device);
    const int64_t threads = std::max<int64_t>(blocks / BLOCKS_OF_THREAD, 1);
    const Memory out(size_t(threads) * sizeof(uint32_t), own.queue);
    const Launcher launcher(own.queue);
    const CipherRateBody body{{{1, 2, 3, 4, 5, 6, 7, 8}}, static_cast<uint32_t*>(out.data)};
    const double seconds = best_of(own.queue, [&] { launcher.each(body, threads); });
    return seconds * double(blocks) / double(threads * BLOCKS_OF_THREAD);
}

}  // namespace shoal::cuda
