// The kernels of a step whose products are our own: fewer launches, and sums that go on to the bias,
// the activation or the update without a way through memory. Here the products of small matrices: 256
// threads, an output or four each; wide.cu has those of wide ones. After step.cu. Weights w are
// (inner, width), with contiguous rows; blocks have one row of threads.

const int ROWS = 8, COLUMNS = 32;  // of a block's outputs: a row a warp
const int CHUNK = 128;  // of the inner sum, brought to shared memory at once
const int BATCH = 64;  // examples, of an update's inner sum

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
#pragma unroll
    for (int k = 0; k < CHUNK / 4; k++)
        for (int j = 0; j < 4; j++)
            sum.at[j] = fma(xs[at.warp][k].at[j], ws[4 * k + j][at.lane], sum.at[j]);
    return (sum.at[0] + sum.at[1]) + (sum.at[2] + sum.at[3]);
}

// sums (splits, n, width): x (n, inner) times w, of a CHUNK of the inner sum each.
extern "C" __global__ void product_sums(
    const real *x, const real *w, real *sums, int n, int inner, int width, int splits
) {
    int blocks = gridDim.x / splits, split = blockIdx.x / blocks;
    Output at(blockIdx.x % blocks, width);
    real sum = product_of_chunk(x, w, at, n, inner, width, split * CHUNK);
    if (at.row < n && at.column < width) sums[(split * n + at.row) * width + at.column] = sum;
}

// z (n, width) <- x (n, inner) times w, plus bias; h <- its activation. inner: at most CHUNK.
extern "C" __global__ void forward_layer(
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

// An element's sum over the splits.
FORMULA real sum_of_splits(const real *sums, int splits, int count, int i) {
    real sum = sums[i];
    for (int split = 1; split < splits; split++) sum += sums[split * count + i];
    return sum;
}

// The same from the splits' sums.
extern "C" __global__ void forward_sums(
    const real *sums, int splits, const real *bias, real *z, real *h, int count, int width, int op,
    real alpha, real scale, double keep_prob, const word *key, long long k
) {
    Activation activation = {op, alpha, scale, keep_prob, key, k};
    EACH(i, count) {
        real sum = sum_of_splits(sums, splits, count, i) + bias[i % width];
        z[i] = sum;
        h[i] = activation.forward(sum, i);
    }
}

// The last layer from the splits' sums, *loss, and d (n, classes), the loss's gradient by z. One
// block, a warp a row at a time.
extern "C" __global__ void loss_of_sums(
    const real *sums, int splits, const real *bias, real *z, real *h, const long long *labels,
    const long long *order, real factor, real *d, real *loss, int n, int classes, int op,
    real alpha, real scale, double keep_prob, const word *key, long long k
) {
    Activation activation = {op, alpha, scale, keep_prob, key, k};
    __shared__ real losses[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int count = n * classes;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        real sum = sum_of_splits(sums, splits, count, i) + bias[i % classes];
        z[i] = sum;
        h[i] = activation.forward(sum, i);
    }
    __syncthreads();
    real sum = 0;
    for (int row = warp; row < n; row += warps) {
        const real *s = h + row * classes;
        long long label = labels[order[row]];
        real largest, total;
        softmax_parts(s, classes, &largest, &total);
        sum += cross_entropy(s[label], largest, total);
        for (int c = lane; c < classes; c += 32) {
            int i = row * classes + c;
            real dy = factor * cross_entropy_backward(s[c], largest, total, c == label);
            d[i] = activation.backward(dy, z[i], i);
        }
    }
    if (lane == 0) losses[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int other = 1; other < warps; other++) sum += losses[other];
        *loss = factor * sum;
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

// A block of before (n, inner) <- d (n, width) times w's transpose, and through the activation that
// made the layer's input of z (n, inner).
__device__ void input_gradient(
    int block, const real *d, const real *w, const real *z, real *before, int n, int inner,
    int width, const Activation &activation
) {
    __shared__ Four ds[ROWS][CHUNK / 4];
    __shared__ Four ws[COLUMNS][CHUNK / 4 + 1];  // a Four more: columns in other banks
    Output at(block, inner);
    int first_column = at.column - at.lane;
    int i = at.row * inner + at.column;
    bool inside = at.row < n && at.column < inner;
    real input = inside ? z[i] : real(0);
    Four sum = {};
    for (int first = 0; first < width; first += CHUNK) {
        if (first > 0) __syncthreads();
#pragma unroll
        for (int part = 0; part < CHUNK / 32; part++) {
            int k = at.lane + 32 * part;
            bool more = first + k < width;
            real dy = more && at.row < n ? d[at.row * width + first + k] : real(0);
            ds[at.warp][k / 4].at[k % 4] = dy;
#pragma unroll
            for (int column = at.warp; column < COLUMNS; column += ROWS) {
                bool there = more && first_column + column < inner;
                real weight = there ? w[(first_column + column) * width + first + k] : real(0);
                ws[column][k / 4].at[k % 4] = weight;
            }
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < CHUNK / 4; k++) {
            Four a = ds[at.warp][k], b = ws[at.lane][k];
            for (int j = 0; j < 4; j++) sum.at[j] = fma(a.at[j], b.at[j], sum.at[j]);
        }
    }
    real dx = (sum.at[0] + sum.at[1]) + (sum.at[2] + sum.at[3]);
    if (inside) before[i] = activation.backward(dx, input, i);
}

// A layer's parameters and their state; what a rule has no use for is w or bias itself, and neither
// read nor written.
struct Parameters {
    real *w, *m, *v, *bias, *bias_m, *bias_v;
};

// p and its state at i <- updated by the gradient g, from what was read of them before.
__device__ void store_updated(
    int rule, const double *settings, real *w, real *m, real *v, int i, real p, real first,
    real second, real g
) {
    update_one(rule, settings, p, g, &first, &second);
    w[i] = p;
    if (rule != SGD) m[i] = first;
    if (rule == ADAM) v[i] = second;
}

// bias's column, updated.
__device__ void update_bias(
    int rule, const double *settings, const Parameters &of, int column, real g
) {
    real first = rule != SGD ? of.bias_m[column] : real(0);
    real second = rule == ADAM ? of.bias_v[column] : real(0);
    real p = of.bias[column];
    store_updated(rule, settings, of.bias, of.bias_m, of.bias_v, column, p, first, second, g);
}

// A block of 32 by 32 weights, updated by x (n, inner) transposed times d (n, width); the first rows'
// blocks update bias, too.
__device__ void update_layer(
    int block, const real *x, const real *d, const Parameters &of, int n, int inner, int width,
    int rule, const double *row
) {
    __shared__ Four xs[BATCH][8];
    __shared__ real ds[BATCH][COLUMNS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int across = (width + COLUMNS - 1) / COLUMNS;
    int first_row = block / across * 32, column = block % across * COLUMNS + lane;
    double settings[6];
    for (int j = 0; j < 6; j++) settings[j] = row[j];
    Four p = {}, first = {}, second = {}, g = {};
#pragma unroll
    for (int j = 0; j < 4; j++) {  // read before it is needed
        int i = (first_row + 4 * warp + j) * width + column;
        if (first_row + 4 * warp + j >= inner || column >= width) continue;
        p.at[j] = of.w[i];
        if (rule != SGD) first.at[j] = of.m[i];
        if (rule == ADAM) second.at[j] = of.v[i];
    }
    real bias = 0;
    for (int example = 0; example < n; example += BATCH) {
        if (example > 0) __syncthreads();
#pragma unroll
        for (int i = 0; i < BATCH / ROWS; i++) {
            int k = warp + ROWS * i;
            bool more = example + k < n, there = more && first_row + lane < inner;
            xs[k][lane / 4].at[lane % 4] =
                there ? x[(example + k) * inner + first_row + lane] : real(0);
            ds[k][lane] = more && column < width ? d[(example + k) * width + column] : real(0);
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < min(BATCH, n - example); k++)
            for (int j = 0; j < 4; j++)
                g.at[j] = fma(xs[k][warp].at[j], ds[k][lane], g.at[j]);
        if (first_row == 0 && warp == 0)
            for (int k = 0; k < min(BATCH, n - example); k++) bias += ds[k][lane];
    }
    if (column >= width) return;
    for (int j = 0; j < 4; j++) {
        int i = (first_row + 4 * warp + j) * width + column;
        if (first_row + 4 * warp + j >= inner) continue;
        store_updated(
            rule, settings, of.w, of.m, of.v, i, p.at[j], first.at[j], second.at[j], g.at[j]
        );
    }
    if (first_row == 0 && warp == 0) update_bias(rule, settings, of, column, bias);
}

// The gradient of a layer's input, and in the blocks from `blocks` on the update of the layer after
// it, whose weights nothing needs any more.
extern "C" __global__ void backward_layer(
    int blocks, const real *d, const real *w, const real *z, real *before, int inner, int width,
    int op, real alpha, real scale, double keep_prob, const word *key, long long k,
    const real *next_x, const real *next_d, real *next_w, real *m, real *v, real *bias,
    real *bias_m, real *bias_v, int next_inner, int next_width, int n, int rule, const double *row
) {
    int block = blockIdx.x;
    if (block < blocks)
        input_gradient(
            block, d, w, z, before, n, inner, width, {op, alpha, scale, keep_prob, key, k}
        );
    else
        update_layer(
            block - blocks, next_x, next_d, {next_w, m, v, bias, bias_m, bias_v}, n, next_inner,
            next_width, rule, row
        );
}

// Two layers' updates: the first's in so many blocks, then the other's.
extern "C" __global__ void update_layers(
    int blocks, const real *x, const real *d, real *w, real *m, real *v, real *bias, real *bias_m,
    real *bias_v, int inner, int width, const real *other_x, const real *other_d, real *other_w,
    real *other_m, real *other_v, real *other_bias, real *other_bias_m, real *other_bias_v,
    int other_inner, int other_width, int n, int rule, const double *row
) {
    int block = blockIdx.x;
    if (block < blocks)
        update_layer(
            block, x, d, {w, m, v, bias, bias_m, bias_v}, n, inner, width, rule, row
        );
    else
        update_layer(
            block - blocks, other_x, other_d,
            {other_w, other_m, other_v, other_bias, other_bias_m, other_bias_v}, n, other_inner,
            other_width, rule, row
        );
}
