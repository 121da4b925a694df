// The last layers of a network, the loss and the way back, in one kernel. A row of a batch needs no
// other one for all that, and a block takes whole rows: its threads wait for each other, and nobody
// for other blocks. Loops are short rather than unrolled: a block runs most of this once, and would
// wait for the instructions. After fused.cu.

const int LAST_BITS = 9, LAST = 1 << LAST_BITS;  // threads of a block

// How threads share a product's outputs: as many as a power of two have one each, or more of them,
// and where those are few, groups of threads have parts of the same sums.
struct Shares {
    int bits, apart, first, group, groups;

    __device__ Shares(int outputs) {
        bits = min(32 - __clz(outputs - 1), LAST_BITS);
        apart = 1 << bits;
        first = threadIdx.x & (apart - 1);
        group = threadIdx.x >> bits;
        groups = LAST >> bits;
    }
};

// How far apart a matrix's rows are in shared memory, where neighbours are to be in other banks.
FORMULA int row_size(int width) { return width % 4 ? width : (width / 4 | 1) * 4; }

// parts (groups, width) <- v (inner,) times w (inner, width), a group every `groups`th term of it.
__device__ void multiply(
    const real *v, const real *w, int inner, int width, const Shares &own, real *parts
) {
    int apart = own.groups * row_size(width);
    for (int o = own.first; o < width; o += own.apart) {
        const real *place = w + own.group * row_size(width) + o;
        real sum = 0;
#pragma unroll 4
        for (int i = own.group; i < inner; i += own.groups, place += apart)
            sum = fma(v[i], *place, sum);
        parts[own.group * width + o] = sum;
    }
}

// parts (groups, inner) <- v (width,) times w's transpose, a group `each` terms of it.
__device__ void multiply_back(
    const real *v, const real *w, int inner, int width, const Shares &own, real *parts
) {
    int each = whole_fours((width + own.groups - 1) >> (LAST_BITS - own.bits));
    int begin = own.group * each, end = min(begin + each, width);
    for (int o = own.first; o < inner; o += own.apart) {
        const real *row = w + o * row_size(width);
        real sum = 0;
        if (width % 4 == 0) {
#pragma unroll 2
            for (int i = begin; i < end; i += 4) {
                Four a = *(const Four *)(v + i), b = *(const Four *)(row + i);
                for (int j = 0; j < 4; j++) sum = fma(a.at[j], b.at[j], sum);
            }
        } else {
#pragma unroll 4
            for (int i = begin; i < end; i++) sum = fma(v[i], row[i], sum);
        }
        parts[own.group * inner + o] = sum;
    }
}

// The same where outputs or terms are FEW at most, and their number even: a thread has a row of w, or
// more of them, and each two of its numbers are read at once.
const int FEW = 16;

struct alignas(2 * sizeof(real)) Two {
    real at[2];
};

FORMULA bool are_few(int width) { return width <= FEW && width % 2 == 0; }

// parts (warps, width).
__device__ void multiply_few(const real *v, const real *w, int inner, int width, real *parts) {
    real sums[FEW] = {};
#pragma unroll 1
    for (int i = threadIdx.x; i < inner; i += LAST) {
        const Two *row = (const Two *)(w + i * row_size(width));
#pragma unroll
        for (int o = 0; o < FEW; o += 2) {
            if (o >= width) continue;
            Two two = row[o / 2];
            for (int j = 0; j < 2; j++) sums[o + j] = fma(v[i], two.at[j], sums[o + j]);
        }
    }
#pragma unroll 1
    for (int other = 16; other > 0; other /= 2)
#pragma unroll
        for (int o = 0; o < FEW; o++) sums[o] += __shfl_xor_sync(0xFFFFFFFF, sums[o], other);
    if (threadIdx.x % 32 > 0) return;
#pragma unroll
    for (int o = 0; o < FEW; o++)
        if (o < width) parts[threadIdx.x / 32 * width + o] = sums[o];
}

// parts (inner,).
__device__ void multiply_few_back(const real *v, const real *w, int inner, int width, real *parts) {
    real terms[FEW];
#pragma unroll
    for (int i = 0; i < FEW; i++) terms[i] = i < width ? v[i] : real(0);
#pragma unroll 1
    for (int o = threadIdx.x; o < inner; o += LAST) {
        const Two *row = (const Two *)(w + o * row_size(width));
        real sum = 0;
#pragma unroll
        for (int i = 0; i < FEW; i += 2) {
            if (i >= width) continue;
            Two two = row[i / 2];
            for (int j = 0; j < 2; j++) sum = fma(terms[i + j], two.at[j], sum);
        }
        parts[o] = sum;
    }
}

// An output, from its groups' parts.
__device__ real sum_of_parts(const real *parts, int groups, int outputs, int o) {
    real sum = parts[o];
#pragma unroll 4
    for (int group = 1; group < groups; group++) sum += parts[group * outputs + o];
    return sum;
}

// So many numbers to shared memory, at a whole four there.
__device__ void bring_numbers(real *to, const real *from, int count) {
    int fours = word(from) % sizeof(Four) ? 0 : count / 4;
#pragma unroll 1
    for (int i = threadIdx.x; i < fours; i += LAST) copy_four(to + 4 * i, from + 4 * i, true);
#pragma unroll 1
    for (int i = 4 * fours + threadIdx.x; i < count; i += LAST) copy_one(to + i, from + i);
}

// A matrix, its rows row_size(width) apart there.
__device__ void bring_rows(real *to, const real *from, int rows, int width) {
    int apart = row_size(width), across = width / 4;
    if (apart == width) return bring_numbers(to, from, rows * width);
    bool aligned = word(from) % sizeof(Four) == 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * across; i += LAST) {
        real *place = to + i / across * apart + i % across * 4;
        if (aligned) copy_four(place, from + 4 * i, true);
        else
            for (int j = 0; j < 4; j++) copy_one(place + j, from + 4 * i + j);
    }
}

// Where a layer's bias and a row's z are in shared memory, and but for the first layer its w.
struct Place {
    real *w, *bias, *z;

    __device__ Place(real *memory, const Layer &layer, bool is_first) {
        w = memory + layer.place;
        bias = w + (is_first ? 0 : whole_fours(layer.inner * row_size(layer.width)));
        z = bias + whole_fours(layer.width);
    }
};

// The first layer's z is made of `sums`, its product with x in so many splits; the others' weights
// are multiplied here. Afterwards h and d of all of them are in memory, d the loss's gradient by z,
// and the rows' losses in `losses` (n,), not multiplied by `factor` yet. Shared memory: the layers,
// a row's numbers, as many as `widest`, room for their parts, and the layers' places.
extern "C" __global__ __launch_bounds__(LAST, 1) void last_layers(
    const word *rows, int count, int widest, const real *sums, int splits,
    const long long *labels, const long long *order, real factor, real *losses, int n,
    const word *keys, long long k
) {
    DYNAMIC_SHARED(memory);
    const int WORDS = sizeof(Layer) / sizeof(word);
    const Layer *layers = (const Layer *)memory;
    real *v = memory + count * (sizeof(Layer) / sizeof(real)), *parts = v + whole_fours(widest);
    for (int i = threadIdx.x; i < count * WORDS; i += LAST) ((word *)memory)[i] = rows[i];
    __syncthreads();
    for (int i = 0; i < count; i++) {
        Place place(memory, layers[i], i == 0);
        if (i > 0) bring_rows(place.w, layers[i].w, layers[i].inner, layers[i].width);
        bring_numbers(place.bias, layers[i].bias, layers[i].width);
    }
    end_copy();
    wait_for_kernels();
    for (int row = blockIdx.x; row < n; row += gridDim.x) {
        int label = labels[order[row]];
        for (int i = 0; i < count; i++) {
            const Layer &layer = layers[i];
            int inner = layer.inner, width = layer.width, groups = 1;
            Place place(memory, layer, i == 0);
            if (i == 0) {
                int apart = n * whole_fours(width);
                const real *own = sums + row * whole_fours(width);
#pragma unroll 1
                for (int c = 4 * threadIdx.x; c < width; c += 4 * LAST)
                    *(Four *)(parts + c) = sum_of_splits(own + c, splits, apart);
                copied<0>();
            } else if (are_few(width)) {
                groups = LAST / 32;
                multiply_few(v, place.w, inner, width, parts);
            } else {
                Shares shares(width);
                groups = shares.groups;
                multiply(v, place.w, inner, width, shares, parts);
            }
            __syncthreads();
            Activation activation = layer.activation(keys + 3 * i, k);
            real *h = layer.h + row * width;
#pragma unroll 1
            for (int c = threadIdx.x; c < width; c += LAST) {
                real z = sum_of_parts(parts, groups, width, c) + place.bias[c];
                place.z[c] = z;
                v[c] = h[c] = activation.forward(z, row * width + c);
            }
            __syncthreads();
        }

        real largest, total;
        int classes = layers[count - 1].width;
        softmax_parts(v, classes, &largest, &total);
        if (threadIdx.x == 0) losses[row] = cross_entropy(v[label], largest, total);
#pragma unroll 1
        for (int c = threadIdx.x; c < classes; c += LAST)
            parts[c] = factor * cross_entropy_backward(v[c], largest, total, c == label);
        for (int i = count - 1; i >= 0; i--) {
            const Layer &layer = layers[i];
            int width = layer.width, groups = 1;
            if (i + 1 < count) {
                int outer = layers[i + 1].width;
                const real *w = Place(memory, layers[i + 1], false).w;
                Shares shares(width);
                if (are_few(outer)) {
                    multiply_few_back(v, w, width, outer, parts);
                } else {
                    groups = shares.groups;
                    multiply_back(v, w, width, outer, shares, parts);
                }
            }
            __syncthreads();
            Activation activation = layer.activation(keys + 3 * i, k);
            const real *z = Place(memory, layer, i == 0).z;
            real *d = layer.d + row * width;
#pragma unroll 1
            for (int c = threadIdx.x; c < width; c += LAST) {
                real dy = sum_of_parts(parts, groups, width, c);
                v[c] = d[c] = activation.backward(dy, z[c], row * width + c);
            }
            __syncthreads();
        }
    }
}

// losses (steps,) <- factor times the sum of each step's losses (steps, n): a warp a step.
extern "C" __global__ void sum_losses(const real *of_rows, real *losses, int n, real factor) {
    real sum = 0;
    for (int i = threadIdx.x; i < n; i += 32) sum += of_rows[blockIdx.x * n + i];
    sum = sum_of_lanes(sum);
    if (threadIdx.x == 0) losses[blockIdx.x] = factor * sum;
}
