// CUDA's words in C++, for a CPU: blocks run one after the other. The threads of one that meets are
// contexts that take turns: each runs until it waits for others. All others run to their end.
#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>
#include <ucontext.h>

struct Place {
    unsigned x = 0, y = 0;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

struct Meeting {
    unsigned expected, arrived = 0, number = 0;
};

struct Thread {
    Place place;
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[1 << 16]};
    bool ended = false;
};
static ucontext_t scheduler;
static Thread *current;
static std::function<void()> body;
static Meeting everyone;
static std::vector<Meeting> warps;

static void wait(Meeting &meeting) {
    unsigned number = meeting.number;
    if (++meeting.arrived == meeting.expected) meeting.arrived = 0, meeting.number++;
    while (meeting.number == number) swapcontext(&current->context, &scheduler);
}

static void start() {
    body();
    current->ended = true;
}

static void run_block(unsigned width, unsigned height) {
    std::vector<Thread> threads(width * height);
    everyone = {width * height};
    warps.assign((width + 31) / 32, {32});
    for (unsigned i = 0; i < threads.size(); i++) {
        Thread &thread = threads[i];
        thread.place = {i % width, i / width};
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.get();
        thread.context.uc_stack.ss_size = 1 << 16;
        thread.context.uc_link = &scheduler;
        makecontext(&thread.context, start, 0);
    }
    for (size_t left = threads.size(); left > 0;)
        for (Thread &thread : threads) {
            if (thread.ended) continue;
            current = &thread;
            threadIdx = thread.place;
            swapcontext(&scheduler, &thread.context);
            left -= thread.ended;
        }
}

#define __global__
#define __device__ static
#define __shared__ static
#define __syncthreads() wait(everyone)

// Blocks that call it have warps of 32 in a row.
template <typename T>
T __shfl_xor_sync(unsigned, T value, int other) {
    static T values[1024];
    unsigned lane = threadIdx.x;
    Meeting &warp = warps[lane / 32];
    values[lane] = value;
    wait(warp);
    T found = values[lane ^ other];
    wait(warp);
    return found;
}

template <typename... A, size_t... I>
void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*(A *)arguments[I]...);
}

template <typename... A>
void run(
    void (*kernel)(A...), bool meets, unsigned grid, unsigned width, unsigned height,
    void **arguments
) {
    gridDim = {grid, 1};
    blockDim = {width, height};
    body = [=] { call(kernel, arguments, std::index_sequence_for<A...>()); };
    for (unsigned block = 0; block < grid; block++) {
        blockIdx = {block, 0};
        if (meets) {
            run_block(width, height);
            continue;
        }
        for (unsigned i = 0; i < width * height; i++) {
            threadIdx = {i % width, i / width};
            body();
        }
    }
}

#define EMULATED(name, meets) \
    extern "C" void run_##name( \
        unsigned grid, unsigned width, unsigned height, void **arguments \
    ) { \
        run(name, meets, grid, width, height, arguments); \
    }
