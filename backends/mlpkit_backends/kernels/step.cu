// The kernels of a captured training step, and of the eager ops that work on rows. REAL is float or
// double. Matrices have contiguous rows; n: images in the batch; every result depends on the
// arguments alone, not on the order in which threads run. Elements are counted in 32 bits, up to
// captured.py's LARGEST; only offsets into the images may be larger. After formulas.h.

typedef REAL real;

#define EACH(i, count) \
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (count); i += gridDim.x * blockDim.x)

// x (count,), rows of width <- images (K, width) of the indices order, scaled and less the mean.
extern "C" __global__ void gather_pixels(
    const unsigned char *images, const real *mean, const long long *order, real *x, int count,
    int width
) {
    EACH(i, count) {
        int j = i % width;
        x[i] = normalise(images[order[i / width] * width + j], mean[j]);
    }
}

// The same of images that are numbers already.
extern "C" __global__ void gather_numbers(
    const real *images, const long long *order, real *x, int count, int width
) {
    EACH(i, count) x[i] = images[order[i / width] * width + i % width];
}

// z (count,), rows of width <- z + bias (width,); h <- its activation, after dropout where keep_prob
// is above 0. key: the mask's seed, layer and step, the step to go on by k.
extern "C" __global__ void forward_elements(
    real *z, const real *bias, real *h, int count, int width, int op, real alpha, real scale,
    double keep_prob, const word *key, long long k
) {
    EACH(i, count) {
        real sum = z[i] + bias[i % width];
        real y = activate(op, sum, alpha, scale);
        if (keep_prob > 0)
            y = drop(keeps(i, keep_prob, key[0], key[1], key[2] + k), y, real(keep_prob));
        z[i] = sum;
        h[i] = y;
    }
}

// d (n, width) <- the gradient of z from that of h, dropped out and through the activation; then
// bias (width,) and its state, updated from the sum of d's rows. Blocks of 32 columns by 8 rows.
extern "C" __global__ void backward_columns(
    real *d, const real *z, int n, int width, int op, real alpha, real scale, double keep_prob,
    const word *key, long long k, real *bias, real *m, real *v, int rule, const double *row
) {
    __shared__ real sums[8][32];
    int column = blockIdx.x * 32 + threadIdx.x;
    real sum = 0;
    for (int y = threadIdx.y; column < width && y < n; y += 8) {
        int i = y * width + column;
        real dy = d[i];
        if (keep_prob > 0)
            dy = drop(keeps(i, keep_prob, key[0], key[1], key[2] + k), dy, real(keep_prob));
        dy = activate_backward(op, dy, z[i], alpha, scale);
        d[i] = dy;
        sum += dy;
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        for (int y = 1; y < 8; y++) sum += sums[y][threadIdx.x];
        update_one(rule, row, bias[column], sum, m + column, v + column);
    }
}

// A warp's number, summed over its lanes.
__device__ real sum_of_lanes(real x) {
    for (int other = 16; other > 0; other /= 2) x += __shfl_xor_sync(0xFFFFFFFF, x, other);
    return x;
}

// A row's largest score and the sum of exp(score - largest), alike in the 32 lanes of a warp.
__device__ void softmax_parts(const real *scores, int classes, real *largest, real *sum) {
    int lane = threadIdx.x % 32;
    real most = scores[lane < classes ? lane : 0], total = 0;
#pragma unroll 1  // classes are few
    for (int c = lane + 32; c < classes; c += 32) most = larger(most, scores[c]);
    for (int other = 16; other > 0; other /= 2)
        most = larger(most, __shfl_xor_sync(0xFFFFFFFF, most, other));
#pragma unroll 1
    for (int c = lane; c < classes; c += 32) total += exp(scores[c] - most);
    *largest = most;
    *sum = sum_of_lanes(total);
}

// *loss <- factor times the sum of the rows' losses; d (n, classes) <- its gradient by the scores.
// One block, a warp a row at a time.
extern "C" __global__ void loss_and_gradient(
    const real *scores, const long long *labels, const long long *order, real factor, real *d,
    real *loss, int n, int classes
) {
    __shared__ real sums[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    real sum = 0;
    for (int row = warp; row < n; row += warps) {
        const real *s = scores + row * classes;
        long long label = labels[order[row]];
        real largest, total;
        softmax_parts(s, classes, &largest, &total);
        sum += cross_entropy(s[label], largest, total);
        for (int c = lane; c < classes; c += 32)
            d[row * classes + c] =
                factor * cross_entropy_backward(s[c], largest, total, c == label);
    }
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int other = 1; other < warps; other++) sum += sums[other];
        *loss = factor * sum;
    }
}

// Four numbers that are read and written at once.
struct alignas(4 * sizeof(real)) Four {
    real at[4];
};

// A row of the schedule's table, in registers: it might be part of w, for all that the compiler knows.
struct Settings {
    double at[TABLE];

    __device__ Settings(const double *row) {
        for (int j = 0; j < TABLE; j++) at[j] = row[j];
    }

    __device__ operator const double *() const { return at; }
};

// work for the rule of that number, which the compiler knows there: what follows from it is decided
// once, not for every weight.
#define WITH_RULE(number, work) \
    switch (number) { \
    case SGD: { constexpr int rule = SGD; work; break; } \
    case SGDM: { constexpr int rule = SGDM; work; break; } \
    case RMSPROP: { constexpr int rule = RMSPROP; work; break; } \
    case ADAM: { constexpr int rule = ADAM; work; break; } \
    }

// p and its state from dw; SGDM's velocity has been updated by the product that made the gradient.
FORMULA void update_weight(int rule, const double *row, real &p, real dw, real &m, real &v) {
    if (rule == SGDM) p += m;
    else update_one(rule, row, p, dw, &m, &v);
}

// A matrix of weights and its state, updated from its gradient; of the numbers as many fours as may
// be read at once. What a rule has no use for is w itself: neither read nor written.
template <int rule>
__device__ void update_matrix(
    const double *settings, real *w, const real *dw, real *m, real *v, int count, int fours
) {
    // All loads before any store, which might be to any of them.
    EACH(i, fours) {
        Four p = ((Four *)w)[i], first = ((Four *)m)[i], second = {}, g = {};
        if (rule != SGDM) g = ((const Four *)dw)[i];
        if (rule == ADAM) second = ((Four *)v)[i];
        for (int j = 0; j < 4; j++)
            update_weight(rule, settings, p.at[j], g.at[j], first.at[j], second.at[j]);
        if (rule != SGDM) ((Four *)m)[i] = first;
        if (rule == ADAM) ((Four *)v)[i] = second;
        ((Four *)w)[i] = p;
    }
    EACH(rest, count - 4 * fours) {
        int i = 4 * fours + rest;
        update_weight(rule, settings, w[i], dw[i], m[i], v[i]);
    }
}

// `many` weight matrices and their state, updated from their gradients. matrices: six words each,
// where w, dw, m and v lie, their elements, and how many fours of them are aligned.
extern "C" __global__ void update_weights(
    const word *matrices, int many, int number, const double *row
) {
    Settings settings(row);
    for (const word *own = matrices; own < matrices + 6 * many; own += 6) {
        real *w = (real *)own[0], *dw = (real *)own[1], *m = (real *)own[2], *v = (real *)own[3];
        WITH_RULE(number, update_matrix<rule>(settings, w, dw, m, v, own[4], own[5]))
    }
}

// losses (n,) <- each row's loss: the base's softmax_cross_entropy. A warp a row.
extern "C" __global__ void row_losses(
    const real *scores, const long long *labels, real *losses, int n, int classes
) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= n) return;
    const real *s = scores + (long long)row * classes;
    real largest, total;
    softmax_parts(s, classes, &largest, &total);
    if (threadIdx.x % 32 == 0) losses[row] = cross_entropy(s[labels[row]], largest, total);
}

// d (n, classes) <- each row's gradient: the base's softmax_cross_entropy_backward. A warp a row.
extern "C" __global__ void row_gradients(
    const real *scores, const long long *labels, real *d, int n, int classes
) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= n) return;
    const real *s = scores + (long long)row * classes;
    real largest, total;
    softmax_parts(s, classes, &largest, &total);
    for (int c = threadIdx.x % 32; c < classes; c += 32)
        d[(long long)row * classes + c] =
            cross_entropy_backward(s[c], largest, total, c == labels[row]);
}
