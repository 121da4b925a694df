// The kernels of a captured training step, and of the eager ops that work on rows. REAL is float or
// double. Matrices have contiguous rows; n: images in the batch; every result depends on the
// arguments alone, not on the order in which threads run.
#include "formulas.h"

typedef REAL real;

#define EACH(i, count) \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < (count); \
         i += (long long)gridDim.x * blockDim.x)

// x (n, width) <- images (K, width) of the indices order (n,), scaled and less the mean (width,).
extern "C" __global__ void gather_pixels(
    const unsigned char *images, const long long *order, const real *mean, real *x, long long n,
    long long width
) {
    EACH(i, n * width) {
        long long j = i % width;
        x[i] = normalise(images[order[i / width] * width + j], mean[j]);
    }
}

// The same of images that are numbers already.
extern "C" __global__ void gather_numbers(
    const real *images, const long long *order, real *x, long long n, long long width
) {
    EACH(i, n * width) x[i] = images[order[i / width] * width + i % width];
}

// z (n, width) <- z + bias (width,); h <- its activation, after dropout where keep_prob is above 0.
// key: the mask's seed, layer and step, the step to go on by k.
extern "C" __global__ void forward_elements(
    real *z, const real *bias, real *h, long long n, long long width, int op, real alpha,
    real scale, double keep_prob, const word *key, long long k
) {
    EACH(i, n * width) {
        z[i] += bias[i % width];
        real y = activate(op, z[i], alpha, scale);
        if (keep_prob > 0)
            y = drop(keeps(i, keep_prob, key[0], key[1], key[2] + k), y, real(keep_prob));
        h[i] = y;
    }
}

// d (n, width) <- the gradient of z from that of h, dropped out and through the activation.
extern "C" __global__ void backward_elements(
    real *d, const real *z, long long n, long long width, int op, real alpha, real scale,
    double keep_prob, const word *key, long long k
) {
    EACH(i, n * width) {
        real dy = d[i];
        if (keep_prob > 0)
            dy = drop(keeps(i, keep_prob, key[0], key[1], key[2] + k), dy, real(keep_prob));
        d[i] = activate_backward(op, dy, z[i], alpha, scale);
    }
}

// *loss <- factor times the sum of the rows' losses; d (n, classes) <- its gradient by the scores.
// One block.
extern "C" __global__ void loss_and_gradient(
    const real *scores, const long long *labels, const long long *order, real factor, real *d,
    real *loss, long long n, int classes
) {
    __shared__ real sums[256];
    real sum = 0;
    for (long long row = threadIdx.x; row < n; row += blockDim.x) {
        long long label = labels[order[row]];
        sum += cross_entropy(scores + row * classes, classes, label);
        cross_entropy_backward(
            scores + row * classes, classes, label, factor, d + row * classes
        );
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) *loss = factor * sums[0];
}

// bias (width,) and its state, updated from the sum of d (n, width) over its rows. Blocks of 32
// columns by 8 rows.
extern "C" __global__ void update_bias(
    const real *d, long long n, long long width, real *bias, real *m, real *v, int rule,
    const double *row
) {
    __shared__ real sums[8][32];
    long long column = blockIdx.x * 32LL + threadIdx.x;
    real sum = 0;
    if (column < width)
        for (long long i = threadIdx.y; i < n; i += 8) sum += d[i * width + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        for (int i = 1; i < 8; i++) sum += sums[i][threadIdx.x];
        update_one(rule, row, bias[column], sum, m + column, v + column);
    }
}

// w (count,) and its state, updated from the gradient dw (count,).
extern "C" __global__ void update_weights(
    real *w, const real *dw, real *m, real *v, long long count, int rule, const double *row
) {
    double settings[6];  // in registers: row might be part of w, for all that the compiler knows
    for (int j = 0; j < 6; j++) settings[j] = row[j];
    EACH(i, count) {
        // All loads before any store, which might be to any of them; m and v may be w itself.
        real p = w[i], first = m[i], second = v[i];
        update_one(rule, settings, p, dw[i], &first, &second);
        if (rule != SGD) m[i] = first;
        if (rule == ADAM) v[i] = second;
        w[i] = p;
    }
}

// w (count,) <- w + velocity (count,), the latter updated already: what is left of sgdm_update.
extern "C" __global__ void add_velocity(real *w, const real *velocity, long long count) {
    EACH(i, count) w[i] += velocity[i];
}

// losses (n,) <- each row's loss: the base's softmax_cross_entropy.
extern "C" __global__ void row_losses(
    const real *scores, const long long *labels, real *losses, long long n, int classes
) {
    EACH(i, n) losses[i] = cross_entropy(scores + i * classes, classes, labels[i]);
}

// d (n, classes) <- each row's gradient: the base's softmax_cross_entropy_backward.
extern "C" __global__ void row_gradients(
    const real *scores, const long long *labels, real *d, long long n, int classes
) {
    EACH(i, n) cross_entropy_backward(
        scores + i * classes, classes, labels[i], real(1), d + i * classes
    );
}
