#include "pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#    include <xmmintrin.h>
#endif

namespace shoal {

namespace {

struct Job {
    const Piece piece;
    void* const context;
    const int64_t pieces;
    const size_t scratch_bytes;
    std::atomic<int64_t> next{0};
    int seats;       // helpers that may still join; guarded by Pool::mutex, as is the next
    int active = 0;  // helpers at work
};

// One buffer for each thread, kept between calls.
char* thread_scratch(size_t bytes) {
    struct Free {
        char* data = nullptr;
        size_t size = 0;
        ~Free() { std::free(data); }
    };
    static thread_local Free mine;
    if (mine.size < bytes) {
        std::free(mine.data);
        mine.size = 0;
        mine.data = static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
        if (!mine.data) throw std::bad_alloc();
        mine.size = bytes;
    }
    return mine.data;
}

void work(Job& job, char* scratch) {
    FloatMode mode;
    for (int64_t piece; (piece = job.next.fetch_add(1, std::memory_order_relaxed)) < job.pieces;)
        job.piece(job.context, piece, scratch);
}

class Pool {
  public:
    std::mutex mutex;

    void run(Job& job) {
        char* scratch = thread_scratch(job.scratch_bytes);
        {
            std::lock_guard lock(mutex);
            jobs.push_back(&job);
            start(job.seats);
        }
        job.seats == 1 ? wake.notify_one() : wake.notify_all();
        work(job, scratch);
        std::unique_lock lock(mutex);
        jobs.erase(std::find(jobs.begin(), jobs.end(), &job));
        done.wait(lock, [&] { return job.active == 0; });
    }

  private:
    std::condition_variable wake, done;
    std::vector<Job*> jobs;
    int threads = 0;

    // Helpers for this job beside those that others keep busy.  Fewer are no error: the caller works too.
    void start(int helpers) {
        int wanted = 0;
        for (const Job* job : jobs) wanted += std::max(job->seats, 0) + job->active;
        wanted = std::min(std::max(wanted, helpers), THREADS_MAX);
        try {
            for (; threads < wanted; threads++) std::thread(&Pool::serve, this).detach();
        } catch (const std::exception&) {  // no threads left, or no memory for one
        }
    }

    void serve() {
        std::unique_lock lock(mutex);
        for (;;) {
            auto found = jobs.end();
            wake.wait(lock, [&] {
                found = std::find_if(jobs.begin(), jobs.end(), [](const Job* job) { return job->seats > 0; });
                return found != jobs.end();
            });
            Job& job = **found;
            job.seats--;
            job.active++;
            lock.unlock();
            try {
                work(job, thread_scratch(job.scratch_bytes));
            } catch (const std::bad_alloc&) {
                // The others do this helper's pieces.
            }
            lock.lock();
            if (--job.active == 0) done.notify_all();
        }
    }
};

// Never destroyed: helpers may be waiting in it when the process ends.
Pool* pool = nullptr;

// The child of a fork has none of the threads: it gets a pool of its own, and leaves the old one, whose
// condition variables may count sleepers that are no more.
Pool& current_pool() {
    static const bool once = [] {
        pool = new Pool;
        pthread_atfork([] { pool->mutex.lock(); }, [] { pool->mutex.unlock(); }, [] { pool = new Pool; });
        return true;
    }();
    (void)once;
    return *pool;
}

}  // namespace

int default_threads() {
    static const int count = [] {
        if (const char* text = std::getenv("SHOAL_THREADS")) {
            char* end;
            const long asked = std::strtol(text, &end, 10);
            if (end == text || *end != 0 || asked < 1 || asked > THREADS_MAX)
                throw std::invalid_argument("found \"" + std::string(text) + "\", expected a number from 1 to " +
                                            std::to_string(THREADS_MAX));
            return int(asked);
        }
#if defined(__linux__)
        cpu_set_t set;
        if (sched_getaffinity(0, sizeof set, &set) == 0) return std::clamp(CPU_COUNT(&set), 1, THREADS_MAX);
#endif
        return std::clamp(int(std::thread::hardware_concurrency()), 1, THREADS_MAX);
    }();
    return count;
}

void run_pieces(int64_t pieces, int threads, size_t scratch_bytes, Piece piece, void* context) {
    const int64_t helpers = std::min<int64_t>(std::min(threads, THREADS_MAX), pieces) - 1;
    Job job{.piece = piece,
            .context = context,
            .pieces = pieces,
            .scratch_bytes = scratch_bytes,
            .seats = int(std::max<int64_t>(helpers, 0))};
    if (job.seats == 0) {
        work(job, thread_scratch(scratch_bytes));
    } else {
        current_pool().run(job);
    }
}

#if defined(__x86_64__)
FloatMode::FloatMode() : before(_mm_getcsr()) { _mm_setcsr(0x1f80); }
FloatMode::~FloatMode() { _mm_setcsr(unsigned(before)); }
#elif defined(__aarch64__)
FloatMode::FloatMode() {
    asm volatile("mrs %0, fpcr" : "=r"(before));
    asm volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
}
FloatMode::~FloatMode() { asm volatile("msr fpcr, %0" : : "r"(before)); }
#else
FloatMode::FloatMode() : before(0) {}
FloatMode::~FloatMode() {}
#endif

}  // namespace shoal
