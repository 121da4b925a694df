// The kernels of a step whose products are our own: fewer launches, and sums that go on to the bias,
// the activation or the update without a way through memory. Here the products of small matrices, in
// blocks of 256 threads; wide.cu has those of wide ones. After step.cu. Weights w are
// (inner, width), with contiguous rows; blocks have one row of threads.

const int ROWS = 8, COLUMNS = 32;  // of a block's outputs: a row a warp
const int CHUNK = 128;  // of the inner sum, brought to shared memory at once
const int BATCH = 64;  // examples, of an update's inner sum
const int SCORES = 8192, LARGEST_BATCH = 1024;  // that one block takes the loss of

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
#pragma unroll 8
    for (int k = 0; k < (min(CHUNK, inner - first) + 3) / 4; k++)
        for (int j = 0; j < 4; j++)
            sum.at[j] = fma(xs[at.warp][k].at[j], ws[4 * k + j][at.lane], sum.at[j]);
    return (sum.at[0] + sum.at[1]) + (sum.at[2] + sum.at[3]);
}

// sums (splits, n, width): x (n, inner) times w, of a CHUNK of the inner sum each.
extern "C" __global__ __launch_bounds__(256, 4) void product_sums(
    const real *x, const real *w, real *sums, int n, int inner, int width, int splits
) {
    int blocks = gridDim.x / splits, split = blockIdx.x / blocks;
    Output at(blockIdx.x % blocks, width);
    real sum = product_of_chunk(x, w, at, n, inner, width, split * CHUNK);
    if (at.row < n && at.column < width) sums[(split * n + at.row) * width + at.column] = sum;
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

// An element's sum over the splits.
FORMULA real sum_of_splits(const real *sums, int splits, int count, int i) {
    real sum = sums[i];
    for (int split = 1; split < splits; split++) sum += sums[split * count + i];
    return sum;
}

// The same of any inner sum, from its splits' sums.
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

// What the losses' kernels share: the scores of a batch in one block, a warp a row at a time.
struct Batch {
    const long long *labels, *order;
    real factor, *d, *loss;
    int n, classes;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
};

__shared__ real scores[SCORES];  // a block's h
__shared__ int label_of[LARGEST_BATCH];

__device__ void fetch_labels(const Batch &batch) {
    for (int i = threadIdx.x; i < batch.n; i += blockDim.x)
        label_of[i] = batch.labels[batch.order[i]];
}

// A score and what is kept of it: z and its activation h.
__device__ void keep_score(const Activation &activation, real *z, real *h, int i, real sum) {
    z[i] = sum;
    h[i] = scores[i] = activation.forward(sum, i);
}

// *loss, and d (n, classes), the loss's gradient by z.
__device__ void loss_of_scores(
    const Batch &batch, const Activation &activation, const real *z
) {
    __shared__ real losses[32];
    __syncthreads();
    real sum = 0;
    for (int row = batch.warp; row < batch.n; row += batch.warps) {
        const real *s = scores + row * batch.classes;
        int label = label_of[row];
        real largest, total;
        softmax_parts(s, batch.classes, &largest, &total);
        sum += cross_entropy(s[label], largest, total);
        for (int c = batch.lane; c < batch.classes; c += 32) {
            int i = row * batch.classes + c;
            real dy = batch.factor * cross_entropy_backward(s[c], largest, total, c == label);
            batch.d[i] = activation.backward(dy, z[i], i);
        }
    }
    if (batch.lane == 0) losses[batch.warp] = sum;
    __syncthreads();
    if (batch.warp > 0) return;
    sum = sum_of_lanes(batch.lane < batch.warps ? losses[batch.lane] : real(0));
    if (batch.lane == 0) *batch.loss = batch.factor * sum;
}

// The last layer from the splits' sums, and its loss. One block; n times classes is at most SCORES,
// and n LARGEST_BATCH.
extern "C" __global__ void loss_of_sums(
    const real *sums, int splits, const real *bias, real *z, real *h, const long long *labels,
    const long long *order, real factor, real *d, real *loss, int n, int classes, int op,
    real alpha, real scale, double keep_prob, const word *key, long long k
) {
    Activation activation = {op, alpha, scale, keep_prob, key, k};
    Batch batch = {labels, order, factor, d, loss, n, classes};
    fetch_labels(batch);
    int count = n * classes;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        real sum = sum_of_splits(sums, splits, count, i) + bias[i % classes];
        keep_score(activation, z, h, i, sum);
    }
    loss_of_scores(batch, activation, z);
}

// The same from the last layer's input x (n, inner): a row's products in the lanes of its warp.
// inner is at most CHUNK, classes 32.
extern "C" __global__ void loss_of_products(
    const real *x, const real *w, int inner, const real *bias, real *z, real *h,
    const long long *labels, const long long *order, real factor, real *d, real *loss, int n,
    int classes, int op, real alpha, real scale, double keep_prob, const word *key, long long k
) {
    Activation activation = {op, alpha, scale, keep_prob, key, k};
    Batch batch = {labels, order, factor, d, loss, n, classes};
    fetch_labels(batch);
    for (int row = batch.warp; row < n; row += batch.warps) {
        real own = 0, xs[CHUNK / 32];
        for (int part = 0; part < CHUNK / 32; part++) {
            int at = batch.lane + 32 * part;
            xs[part] = at < inner ? x[row * inner + at] : real(0);
        }
#pragma unroll 5
        for (int c = 0; c < classes; c++) {
            real sum = 0;
            for (int part = 0; part < CHUNK / 32; part++) {
                int at = batch.lane + 32 * part;
                sum = fma(xs[part], at < inner ? w[at * classes + c] : real(0), sum);
            }
            sum = sum_of_lanes(sum);
            if (batch.lane == c) own = sum;
        }
        if (batch.lane < classes)
            keep_score(
                activation, z, h, row * classes + batch.lane, own + bias[batch.lane]
            );
    }
    loss_of_scores(batch, activation, z);
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
        for (int part = 0; part < CHUNK / 32; part++) {
            if (32 * part >= many) break;
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
__device__ void store_updated(
    int rule, const double *settings, real *w, real *m, real *v, int i, real p, real first,
    real second, real g
) {
    update_one(rule, settings, p, g, &first, &second);
    w[i] = p;
    if (rule != SGD) m[i] = first;
    if (rule == ADAM) v[i] = second;
}

// bias's column and its state, updated by the sum of d's (n, width).
__device__ void update_bias(
    int rule, const double *settings, real *bias, real *m, real *v, const real *d, int n,
    int width, int column
) {
    real p = bias[column], g = 0;
    real first = rule != SGD ? m[column] : real(0), second = rule == ADAM ? v[column] : real(0);
#pragma unroll 16
    for (int k = 0; k < n; k++) g += d[k * width + column];
    store_updated(rule, settings, bias, m, v, column, p, first, second, g);
}

// 32 by 32 weights, of a matrix's block number `block`, updated by x (n, inner) transposed times
// d (n, width).
__device__ void update_weights_of(
    int rule, const double *settings, real *w, real *m, real *v, const real *x, const real *d,
    int n, int inner, int width, int block
) {
    __shared__ Four xs[BATCH][8];
    __shared__ real ds[BATCH][COLUMNS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int across = (width + COLUMNS - 1) / COLUMNS;
    int first_row = block / across * 32, column = block % across * COLUMNS + lane;
    Four p = {}, first = {}, second = {}, g = {};
#pragma unroll
    for (int j = 0; j < 4; j++) {  // read before it is needed
        int i = (first_row + 4 * warp + j) * width + column;
        if (first_row + 4 * warp + j >= inner || column >= width) continue;
        p.at[j] = w[i];
        if (rule != SGD) first.at[j] = m[i];
        if (rule == ADAM) second.at[j] = v[i];
    }
    for (int example = 0; example < n; example += BATCH) {
        if (example > 0) __syncthreads();
        int many = min(BATCH, n - example);
#pragma unroll
        for (int part = 0; part < BATCH / ROWS; part++) {
            int k = warp + ROWS * part;
            bool there = k < many && first_row + lane < inner;
            xs[k][lane / 4].at[lane % 4] =
                there ? x[(example + k) * inner + first_row + lane] : real(0);
            there = k < many && column < width;
            ds[k][lane] = there ? d[(example + k) * width + column] : real(0);
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < many; k++)
            for (int j = 0; j < 4; j++) g.at[j] = fma(xs[k][warp].at[j], ds[k][lane], g.at[j]);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int i = (first_row + 4 * warp + j) * width + column;
        if (first_row + 4 * warp + j >= inner || column >= width) continue;
        store_updated(rule, settings, w, m, v, i, p.at[j], first.at[j], second.at[j], g.at[j]);
    }
}

// Layers as rows of words: where the input x (0: in `batch`), d, w, bias and their states lie, the
// widths, and how many blocks update the layer, the last ones of them its bias.
enum { X, D, W, W_M, W_V, BIAS, BIAS_M, BIAS_V, INNER, WIDTH, BLOCKS, WORDS };

// All parameters of the layers, updated.
extern "C" __global__ __launch_bounds__(256, 4) void update_layers(
    const word *layers, const real *batch, int n, int rule, const double *row
) {
    int block = blockIdx.x;
    for (; block >= int(layers[BLOCKS]); layers += WORDS) block -= int(layers[BLOCKS]);
    double settings[6];
    for (int j = 0; j < 6; j++) settings[j] = row[j];
    int inner = layers[INNER], width = layers[WIDTH];
    const real *x = layers[X] ? (const real *)layers[X] : batch, *d = (const real *)layers[D];
    int of_bias = block - (int(layers[BLOCKS]) - (width + 255) / 256);
    if (of_bias >= 0) {
        int column = 256 * of_bias + threadIdx.x;
        real *bias = (real *)layers[BIAS], *m = (real *)layers[BIAS_M];
        if (column < width)
            update_bias(rule, settings, bias, m, (real *)layers[BIAS_V], d, n, width, column);
        return;
    }
    update_weights_of(
        rule, settings, (real *)layers[W], (real *)layers[W_M], (real *)layers[W_V], x, d, n, inner,
        width, block
    );
}
