// The kernels of a step whose products are our own: fewer launches, and sums that go on to the bias,
// the activation or the update without a way through memory. Here the products of small matrices, in
// blocks of 256 threads; last.cu has the last layers and the loss, wide.cu the products of wide
// matrices. After step.cu. Weights w are (inner, width), with contiguous rows; blocks have one row of
// threads.

const int ROWS = 8, COLUMNS = 32;  // of a block's outputs: a row a warp
const int CHUNK = 128;  // of the inner sum, brought to shared memory at once
const int BATCH = 64;  // examples, of an update's inner sum

#ifdef __CUDACC__
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) float name[]

__device__ __forceinline__ unsigned shared_address(const float *place) {
    return unsigned(__cvta_generic_to_shared(place));
}

// A float to shared memory, by the L2 cache alone: what is read before `wait_for_kernels` may have
// been in a processor's own before it was written.
__device__ __forceinline__ void copy_one(float *to, const float *from) { *to = __ldcg(from); }

// Four of them, zeros unless they are inside; there when `copied` has waited for them.
__device__ __forceinline__ void copy_four(float *to, const float *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(inside ? 16 : 0));
}

// Wait for the end of the kernel before this one, where this one was launched early, and let the next
// one begin, up to where that waits. Those before the last have ended by then, as all threads of every
// kernel that is launched early begin with this: what they wrote may be read earlier.
__device__ __forceinline__ void wait_for_kernels() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void end_copy() { asm volatile("cp.async.commit_group;"); }

// Wait for this thread's copies but for the last `but` that ended.
template <int but>
__device__ __forceinline__ void copied() {
    asm volatile("cp.async.wait_group %0;" ::"n"(but) : "memory");
}
#endif

// What an activation's kernel takes, as forward_elements.
struct Activation {
    int op;
    real alpha, scale;
    double keep_prob;
    const word *key;
    long long k;

    __device__ bool kept(int i) const { return keeps(i, keep_prob, key[0], key[1], key[2] + k); }

    __device__ real forward(real z, int i) const {
        real y = activate(op, z, alpha, scale);
        return keep_prob > 0 ? drop(kept(i), y, real(keep_prob)) : y;
    }

    __device__ real backward(real dy, real z, int i) const {
        if (keep_prob > 0) dy = drop(kept(i), dy, real(keep_prob));
        return activate_backward(op, dy, z, alpha, scale);
    }
};

// A layer as kernels find it in memory: fused.py's LAYER.
struct Layer {
    double keep_prob, alpha, scale;
    real *w, *w_m, *w_v, *bias, *bias_m, *bias_v;
    const real *x;  // its input; 0: in the batch
    real *h, *d;
    long long op, inner, width;
    long long place;  // in last_layers' shared memory

    __device__ Activation activation(const word *key, long long k) const {
        return {int(op), real(alpha), real(scale), keep_prob, key, k};
    }
};

// A thread's output of block `block` of a matrix of so many columns.
struct Output {
    int row, column, warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    __device__ Output(int block, int columns) {
        int across = (columns + COLUMNS - 1) / COLUMNS;
        row = block / across * ROWS + warp;
        column = block % across * COLUMNS + lane;
    }
};

// The sum of CHUNK products of an output of x w, from `first` of the inner sum on.
__device__ real product_of_chunk(
    const real *x, const real *w, const Output &at, int n, int inner, int width, int first
) {
    __shared__ Four xs[ROWS][CHUNK / 4];
    __shared__ real ws[CHUNK][COLUMNS];
#pragma unroll
    for (int i = 0; i < CHUNK / COLUMNS; i++) {
        int k = at.lane + COLUMNS * i;
        bool inside = at.row < n && first + k < inner;
        xs[at.warp][k / 4].at[k % 4] = inside ? x[at.row * inner + first + k] : real(0);
    }
#pragma unroll
    for (int i = 0; i < CHUNK / ROWS; i++) {
        int k = at.warp + ROWS * i;
        bool inside = at.column < width && first + k < inner;
        ws[k][at.lane] = inside ? w[(first + k) * width + at.column] : real(0);
    }
    __syncthreads();
    Four sum = {};
#pragma unroll 8
    for (int k = 0; k < (min(CHUNK, inner - first) + 3) / 4; k++)
        for (int j = 0; j < 4; j++)
            sum.at[j] = fma(xs[at.warp][k].at[j], ws[4 * k + j][at.lane], sum.at[j]);
    return (sum.at[0] + sum.at[1]) + (sum.at[2] + sum.at[3]);
}

// The rows of a product's sums begin at whole fours.
FORMULA int whole_fours(int width) { return (width + 3) / 4 * 4; }

// sums (splits, n, whole_fours(width)): x (n, inner) times w, of a CHUNK of the inner sum each.
extern "C" __global__ __launch_bounds__(256, 4) void product_sums(
    const real *x, const real *w, real *sums, int n, int inner, int width, int splits
) {
    wait_for_kernels();
    int blocks = gridDim.x / splits, split = blockIdx.x / blocks;
    Output at(blockIdx.x % blocks, width);
    real sum = product_of_chunk(x, w, at, n, inner, width, split * CHUNK);
    if (at.row < n && at.column < width)
        sums[(split * n + at.row) * whole_fours(width) + at.column] = sum;
}

// z (n, width) <- x (n, inner) times w, plus bias; h <- its activation. inner: at most CHUNK.
extern "C" __global__ __launch_bounds__(256, 4) void forward_layer(
    const real *x, const real *w, const real *bias, real *z, real *h, int n, int inner, int width,
    int op, real alpha, real scale, double keep_prob, const word *key, long long k
) {
    Activation activation = {op, alpha, scale, keep_prob, key, k};
    Output at(blockIdx.x, width);
    real sum = product_of_chunk(x, w, at, n, inner, width, 0);
    if (at.row >= n || at.column >= width) return;
    int i = at.row * width + at.column;
    sum += bias[at.column];
    z[i] = sum;
    h[i] = activation.forward(sum, i);
}

// Four neighbours' sums over the splits, `apart` from one to the next.
FORMULA Four sum_of_splits(const real *sums, int splits, int apart) {
    const int AT_ONCE = 12;
    Four sum = {};
    for (int first = 0; first < splits; first += AT_ONCE) {
        Four parts[AT_ONCE] = {};
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)  // all on their way before one is needed
            if (first + i < splits) parts[i] = *(const Four *)(sums + (first + i) * apart);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            for (int j = 0; j < 4; j++) sum.at[j] += parts[i].at[j];
    }
    return sum;
}

// The same of any inner sum, from its splits' sums.
extern "C" __global__ void forward_sums(
    const real *sums, int splits, const real *bias, real *z, real *h, int n, int width, int op,
    real alpha, real scale, double keep_prob, const word *key, long long k
) {
    Activation activation = {op, alpha, scale, keep_prob, key, k};
    int fours = whole_fours(width) / 4;
    EACH(four, n * fours) {
        Four sum = sum_of_splits(sums + 4 * four, splits, n * whole_fours(width));
        int row = four / fours, first = 4 * (four % fours);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int column = first + j, i = row * width + column;
            if (column >= width) break;
            real own = sum.at[j] + bias[column];
            z[i] = own;
            h[i] = activation.forward(own, i);
        }
    }
}

// d (count,) <- the gradient of z from that of h.
extern "C" __global__ void backward_elements(
    real *d, const real *z, int count, int op, real alpha, real scale, double keep_prob,
    const word *key, long long k
) {
    Activation activation = {op, alpha, scale, keep_prob, key, k};
    EACH(i, count) d[i] = activation.backward(d[i], z[i], i);
}

// before (n, inner) <- d (n, width) times w's transpose, and through the activation that made the
// layer's input of z (n, inner).
extern "C" __global__ __launch_bounds__(256, 4) void input_gradient(
    const real *d, const real *w, const real *z, real *before, int n, int inner, int width, int op,
    real alpha, real scale, double keep_prob, const word *key, long long k
) {
    Activation activation = {op, alpha, scale, keep_prob, key, k};
    __shared__ Four ds[ROWS][CHUNK / 4];
    __shared__ Four ws[COLUMNS][CHUNK / 4 + 1];  // a Four more: columns in other banks
    Output at(blockIdx.x, inner);
    int first_column = at.column - at.lane, i = at.row * inner + at.column;
    bool inside = at.row < n && at.column < inner;
    real input = inside ? z[i] : real(0);
    Four sum = {};
    for (int first = 0; first < width; first += CHUNK) {
        if (first > 0) __syncthreads();
        int many = min(CHUNK, width - first);
#pragma unroll
        for (int part = 0; part < CHUNK / 32; part++) {  // all on their way before one is needed
            int place = at.lane + 32 * part;
            bool more = place < many;
            real dy = more && at.row < n ? d[at.row * width + first + place] : real(0);
            ds[at.warp][place / 4].at[place % 4] = dy;
#pragma unroll
            for (int column = at.warp; column < COLUMNS; column += ROWS) {
                bool there = more && first_column + column < inner;
                ws[column][place / 4].at[place % 4] =
                    there ? w[(first_column + column) * width + first + place] : real(0);
            }
        }
        __syncthreads();
#pragma unroll 8
        for (int four = 0; four < (many + 3) / 4; four++) {
            Four a = ds[at.warp][four], b = ws[at.lane][four];
            for (int j = 0; j < 4; j++) sum.at[j] = fma(a.at[j], b.at[j], sum.at[j]);
        }
    }
    real dx = (sum.at[0] + sum.at[1]) + (sum.at[2] + sum.at[3]);
    if (inside) before[i] = activation.backward(dx, input, i);
}

// A parameter and its state at i <- updated by the gradient g, from what was read of them before.
// What a rule has no use for is the parameter itself, and neither read nor written.
FORMULA void store_updated(
    int rule, const double *settings, real *w, real *m, real *v, int i, real p, real first,
    real second, real g
) {
    update_one(rule, settings, p, g, &first, &second);
    w[i] = p;
    if (rule != SGD) m[i] = first;
    if (rule == ADAM) v[i] = second;
}

// bias's column and its state, updated by the sum of d's (n, width).
template <int rule>
__device__ void update_bias(
    const double *row, real *bias, real *m, real *v, const real *d, int n, int width, int column
) {
    Settings settings(row);
    real p = bias[column], g = 0;
    real first = rule != SGD ? m[column] : real(0), second = rule == ADAM ? v[column] : real(0);
#pragma unroll 16
    for (int k = 0; k < n; k++) g += d[k * width + column];
    store_updated(rule, settings, bias, m, v, column, p, first, second, g);
}

// What a block of so many threads updates of a narrow layer: SQUARE rows of weights, COLUMNS of them.
template <int threads>
constexpr int SQUARE = threads / 4;

// Those of a matrix's block number `block`, updated by x (n, inner) transposed times d (n, width).
// memory: BATCH * (SQUARE + COLUMNS) of a block's.
template <int rule, int threads>
__device__ void update_weights_of(
    const double *table_row, const Layer &layer, const real *x, int n, int block, real *memory
) {
    Settings settings(table_row);
    const int ROWS_OF_X = SQUARE<threads>, EACH_WARP = 8;
    real *xs = memory, *ds = memory + BATCH * ROWS_OF_X;
    int inner = layer.inner, width = layer.width;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int across = (width + COLUMNS - 1) / COLUMNS;
    int row = block / across * ROWS_OF_X, first_column = block % across * COLUMNS;
    int column = first_column + lane, first_row = row + EACH_WARP * warp;
    real p[EACH_WARP], first[EACH_WARP] = {}, second[EACH_WARP] = {}, g[EACH_WARP] = {};
#pragma unroll
    for (int j = 0; j < EACH_WARP; j++) {  // read before it is needed
        int i = (first_row + j) * width + column;
        if (first_row + j >= inner || column >= width) continue;
        p[j] = layer.w[i];
        if (rule != SGD) first[j] = layer.w_m[i];
        if (rule == ADAM) second[j] = layer.w_v[i];
    }
    for (int example = 0; example < n; example += BATCH) {
        if (example > 0) __syncthreads();
        int many = min(BATCH, n - example);
#pragma unroll 8
        for (int i = threadIdx.x; i < BATCH * ROWS_OF_X; i += threads) {
            int k = i / ROWS_OF_X, y = row + i % ROWS_OF_X;
            xs[i] = k < many && y < inner ? x[(example + k) * inner + y] : real(0);
        }
#pragma unroll 8
        for (int i = threadIdx.x; i < BATCH * COLUMNS; i += threads) {
            int k = i / COLUMNS, c = first_column + i % COLUMNS;
            ds[i] = k < many && c < width ? layer.d[(example + k) * width + c] : real(0);
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < many; k++) {
            real d = ds[k * COLUMNS + lane];
#pragma unroll
            for (int j = 0; j < EACH_WARP; j += 4) {
                Four four = *(const Four *)(xs + k * ROWS_OF_X + EACH_WARP * warp + j);
                for (int i = 0; i < 4; i++) g[j + i] = fma(four.at[i], d, g[j + i]);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < EACH_WARP; j++) {
        int i = (first_row + j) * width + column;
        if (first_row + j >= inner || column >= width) continue;
        store_updated(
            rule, settings, layer.w, layer.w_m, layer.w_v, i, p[j], first[j], second[j], g[j]
        );
    }
}

// A block's part of the narrow layers' parameters, updated: place says of which layer and which
// part, the first ones of them of its bias.
template <int rule, int threads>
__device__ void update_part(
    const double *row, const word *layers, word place, const real *batch, int n, real *memory
) {
    const Layer &layer = ((const Layer *)layers)[place >> 32];
    int width = layer.width, block = int(place & 0xFFFFFFFF);
    int of_bias = (width + threads - 1) / threads, column = threads * block + threadIdx.x;
    if (block >= of_bias)
        update_weights_of<rule, threads>(
            row, layer, layer.x ? layer.x : batch, n, block - of_bias, memory
        );
    else if (column < width)
        update_bias<rule>(
            row, layer.bias, layer.bias_m, layer.bias_v, layer.d, n, width, column
        );
}

// The narrow layers, updated: a block for each of the places.
extern "C" __global__ __launch_bounds__(256, 2) void update_layers(
    const word *layers, const word *places, const real *batch, int n, int number, const double *row
) {
    __shared__ Four memory[BATCH * (SQUARE<256> + COLUMNS) / 4];
    wait_for_kernels();
    word place = places[blockIdx.x];
    WITH_RULE(number, (update_part<rule, 256>(row, layers, place, batch, n, (real *)memory)))
}
