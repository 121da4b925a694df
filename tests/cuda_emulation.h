// CUDA's words in C++, for a CPU: blocks run one after the other. The threads of one that meets are
// contexts that take turns: each runs until it waits for others, and a warp until it waits for other
// warps. The threads of other blocks run to their end. Every other launch has its blocks run from the
// last one on, and every other block its threads: what needs an order that nobody promised fails.
// A kernel that is launched early finds, until a thread has waited, what the kernel before it has
// written as it was before that.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>
#include <setjmp.h>
#include <ucontext.h>

struct Spot {
    unsigned x = 0, y = 0;
};
static Spot threadIdx, blockIdx, blockDim, gridDim;

struct Meeting {
    unsigned expected, arrived = 0, number = 0;
};

struct Thread {
    Spot place;
    ucontext_t context;  // where it begins
    jmp_buf at;          // where it waits
    std::unique_ptr<char[]> stack{new char[1 << 16]};
    bool begun = false, ended = false, waited = false;
};
static jmp_buf scheduler;
static Thread *current;
static std::function<void()> body;
static Meeting everyone;
static std::vector<Meeting> warps;
static unsigned long long moves;  // of threads: to a meeting, on from it, to their end

// What the kernel before has written: where, and the bytes that lay there before, or, while those are
// shown, the new ones.
struct Change {
    char *place;
    std::vector<char> other;
};
static std::vector<Change> changes;
static bool shows_old = false;

extern "C" void set_changes(unsigned count, char **places, size_t *sizes, char **old) {
    changes.clear();
    for (unsigned i = 0; i < count; i++)
        changes.push_back({places[i], std::vector<char>(old[i], old[i] + sizes[i])});
}

static void show(bool old) {
    if (old == shows_old) return;
    shows_old = old;
    for (Change &change : changes)
        std::swap_ranges(change.other.begin(), change.other.end(), change.place);
    std::reverse(changes.begin(), changes.end());  // they may overlap
}

// Jumps, as ucontext's own switches ask the system each time.
static void leave() {
    if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

static void go_on(Thread &thread) {
    show(!thread.waited && !changes.empty());
    if (_setjmp(scheduler)) return;
    if (thread.begun) _longjmp(thread.at, 1);
    thread.begun = true;
    setcontext(&thread.context);
}

static void wait(Meeting &meeting) {
    unsigned number = meeting.number;
    moves++;
    if (++meeting.arrived == meeting.expected) meeting.arrived = 0, meeting.number++;
    while (meeting.number == number) leave();
    moves++;
}

static void start() {
    body();
    moves++;
    current->ended = true;
    _longjmp(scheduler, 1);
}

// Copies read at once and write when they are waited for; until then what lies there is NaN.
struct Copy {
    float *to;
    float found[4];
    int many;
};
static std::vector<std::vector<Copy>> copies[1024];  // by thread: groups, the last of them open

static void run_block(unsigned width, unsigned height) {
    std::vector<Thread> threads(width * height);
    everyone = {width * height};
    warps.assign((width + 31) / 32, {32});
    for (auto &groups : copies) groups.assign(1, {});
    for (unsigned i = 0; i < threads.size(); i++) {
        Thread &thread = threads[i];
        thread.place = {i % width, i / width};
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.get();
        thread.context.uc_stack.ss_size = 1 << 16;
        makecontext(&thread.context, start, 0);
    }
    static bool backwards = false;
    backwards = !backwards;
    if (backwards) std::reverse(threads.begin(), threads.end());
    for (size_t left = threads.size(); left > 0;)
        for (size_t warp = 0; warp < threads.size(); warp += 32)
            for (auto before = moves - 1; before != moves;) {
                before = moves;
                for (size_t i = warp; i < std::min(warp + 32, threads.size()); i++) {
                    if (threads[i].ended) continue;
                    current = &threads[i];
                    threadIdx = current->place;
                    go_on(*current);
                    left -= current->ended;
                }
            }
}

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define DYNAMIC_SHARED(name) alignas(16) static float name[1 << 16]
using std::fma, std::max, std::min;
#define __syncthreads() wait(everyone)

inline void wait_for_kernels() {
    current->waited = true;
    show(false);
}

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

inline void copy(float *to, const float *from, int many, bool inside) {
    Copy copy = {to, {}, many};
    if (inside) std::copy(from, from + many, copy.found);
    std::fill(to, to + many, NAN);
    copies[threadIdx.x].back().push_back(copy);
}

inline void copy_one(float *to, const float *from) { copy(to, from, 1, true); }

inline void copy_four(float *to, const float *from, bool inside) { copy(to, from, 4, inside); }

inline void end_copy() { copies[threadIdx.x].emplace_back(); }

template <int but>
void copied() {
    auto &groups = copies[threadIdx.x];
    while (groups.size() > but + 1) {
        for (Copy &copy : groups.front()) std::copy(copy.found, copy.found + copy.many, copy.to);
        groups.erase(groups.begin());
    }
}

inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }

inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// PTX's mma.m16n8k8 of TF32: which lane has which elements of a, b and c is the manual's.
inline void multiply_add(float *c, const float *a, const float *b) {
    static float as[32][16][8], bs[32][8][8];
    unsigned lane = threadIdx.x % 32, group = lane / 4, member = lane % 4, warp = threadIdx.x / 32;
    auto tf32 = [](float x) { return __uint_as_float(__float_as_uint(x) & 0xFFFFE000); };
    for (int i = 0; i < 4; i++) as[warp][group + i % 2 * 8][member + i / 2 * 4] = tf32(a[i]);
    for (int i = 0; i < 2; i++) bs[warp][member + i * 4][group] = tf32(b[i]);
    wait(warps[warp]);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++)
            c[i] += as[warp][group + i / 2 * 8][k] * bs[warp][k][2 * member + i % 2];
    wait(warps[warp]);
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
    static bool backwards = false;
    backwards = !backwards;
    for (unsigned i = 0; i < grid; i++) {
        blockIdx = {backwards ? grid - 1 - i : i, 0};
        if (meets) {
            run_block(width, height);
            show(false);
            continue;
        }
        for (unsigned i = 0; i < width * height; i++) {
            threadIdx = {i % width, i / width};
            body();
        }
    }
    changes.clear();
}

#define EMULATED(name, meets) \
    extern "C" void run_##name( \
        unsigned grid, unsigned width, unsigned height, void **arguments \
    ) { \
        run(name, meets, grid, width, height, arguments); \
    }
