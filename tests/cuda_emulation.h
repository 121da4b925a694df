// CUDA's words in C++, for a CPU: blocks run one after the other, and the threads of one that meets
// at __syncthreads() are threads here, too. Those of any other block run one after the other.
#include <barrier>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

struct Place {
    unsigned x = 0, y = 0;
};
static thread_local Place threadIdx, blockIdx;
static Place blockDim, gridDim;
static std::unique_ptr<std::barrier<>> everyone;

#define __global__
#define __shared__ static
#define __syncthreads() everyone->arrive_and_wait()

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
    for (unsigned block = 0; block < grid; block++) {
        auto one = [=](unsigned x, unsigned y) {
            blockIdx = {block, 0};
            threadIdx = {x, y};
            call(kernel, arguments, std::index_sequence_for<A...>());
        };
        everyone = std::make_unique<std::barrier<>>(width * height);
        std::vector<std::thread> threads;
        for (unsigned y = 0; y < height; y++)
            for (unsigned x = 0; x < width; x++)
                if (meets) threads.emplace_back(one, x, y);
                else one(x, y);
        for (auto &thread : threads) thread.join();
    }
}

#define EMULATED(name, meets) \
    extern "C" void run_##name( \
        unsigned grid, unsigned width, unsigned height, void **arguments \
    ) { \
        run(name, meets, grid, width, height, arguments); \
    }
