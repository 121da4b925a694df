// The last layers of a network, the loss and the way back, in one kernel. A row of a batch needs no
// other one for all that, and a block takes whole rows: its threads wait for each other, and nobody
// for other blocks. After fused.cu.

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
#pragma unroll 8
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
#pragma unroll 4
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
    for (int i = threadIdx.x; i < inner; i += LAST) {
        const Two *row = (const Two *)(w + i * row_size(width));
#pragma unroll
        for (int o = 0; o < FEW; o += 2) {
            if (o >= width) continue;
            Two two = row[o / 2];
            for (int j = 0; j < 2; j++) sums[o + j] = fma(v[i], two.at[j], sums[o + j]);
        }
    }
#pragma unroll
    for (int o = 0; o < FEW; o++) {
        real sum = sum_of_lanes(sums[o]);
        if (threadIdx.x % 32 == 0 && o < width) parts[threadIdx.x / 32 * width + o] = sum;
    }
}

// parts (inner,).
__device__ void multiply_few_back(const real *v, const real *w, int inner, int width, real *parts) {
    real terms[FEW];
#pragma unroll
    for (int i = 0; i < FEW; i++) terms[i] = i < width ? v[i] : real(0);
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
#pragma unroll 4
    for (int i = threadIdx.x; i < fours; i += LAST) copy_four(to + 4 * i, from + 4 * i, true);
    for (int i = 4 * fours + threadIdx.x; i < count; i += LAST) copy_one(to + i, from + i);
}

// A matrix, its rows row_size(width) apart there.
__device__ void bring_rows(real *to, const real *from, int rows, int width) {
    int apart = row_size(width), across = width / 4;
    if (apart == width) return bring_numbers(to, from, rows * width);
    bool aligned = word(from) % sizeof(Four) == 0;
    for (int i = threadIdx.x; i < rows * across; i += LAST) {
        real *place = to + i / across * apart + i % across * 4;
        if (aligned) copy_four(place, from + 4 * i, true);
        else
            for (int j = 0; j < 4; j++) copy_one(place + j, from + 4 * i + j);
    }
}

// Where a layer's z is in shared memory, and but for the first layer its w and bias.
struct Place {
    real *w, *bias, *z;

    __device__ Place(real *memory, const Layer &layer, bool is_first) {
        w = memory + layer.place;
        bias = w + (is_first ? 0 : whole_fours(layer.inner * row_size(layer.width)));
        z = bias + (is_first ? 0 : whole_fours(layer.width));
    }
};

// What becomes of the numbers of a row at a layer, from `first` on of the batch's.
struct Numbers {
    Activation activation;
    int first;
    real *z, *v, *result;

    __device__ void forward(int c, real sum) const {
        z[c] = sum;
        v[c] = result[first + c] = activation.forward(sum, first + c);
    }

    __device__ void backward(int c, real dy) const {
        v[c] = result[first + c] = activation.backward(dy, z[c], first + c);
    }
};

// The first layer from its product's sums in so many splits, a warp 128 columns: by fours as they
// are read, then in the columns' order.
__device__ void add_splits(
    const real *sums, int splits, int apart, const real *bias, int width, real *parts,
    const Numbers &numbers
) {
    int lane = threadIdx.x % 32;
    for (int first = 4 * (threadIdx.x - lane); first < width; first += 4 * LAST) {
        real biases[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {  // read before they are needed
            int c = first + lane + 32 * j;
            biases[j] = c < width ? bias[c] : real(0);
        }
        int four = first + 4 * lane;
        if (four < width) *(Four *)(parts + four) = sum_of_splits(sums + four, splits, apart);
        __syncwarp();
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int c = first + lane + 32 * j;
            if (c < width) numbers.forward(c, parts[c] + biases[j]);
        }
    }
}

// The first layer's z is made of `sums`, its product with x in so many splits; the others' weights
// are multiplied here. Afterwards h and d of all of them are in memory, d the loss's gradient by z,
// and the rows' losses in `losses` (n,), not multiplied by `factor` yet. Shared memory: the layers,
// a row's numbers, as many as `widest`, room for their parts, and the layers' places.
extern "C" __global__ __launch_bounds__(512, 1) void last_layers(
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
    for (int i = 1; i < count; i++) {
        Place place(memory, layers[i], false);
        bring_rows(place.w, layers[i].w, layers[i].inner, layers[i].width);
        bring_numbers(place.bias, layers[i].bias, layers[i].width);
    }
    end_copy();
    for (int row = blockIdx.x; row < n; row += gridDim.x) {
        int label = labels[order[row]];
        for (int i = 0; i < count; i++) {
            const Layer &layer = layers[i];
            int inner = layer.inner, width = layer.width;
            Place place(memory, layer, i == 0);
            Numbers numbers = {
                layer.activation(keys + 3 * i, k), row * width, place.z, v, layer.h
            };
            if (i == 0) {
                int apart = n * whole_fours(width);
                const real *own = sums + row * whole_fours(width);
                add_splits(own, splits, apart, layer.bias, width, parts, numbers);
                copied<0>();
            } else {
                Shares shares(width);
                int groups = are_few(width) ? LAST / 32 : shares.groups;
                if (are_few(width)) multiply_few(v, place.w, inner, width, parts);
                else multiply(v, place.w, inner, width, shares, parts);
                __syncthreads();
                for (int c = threadIdx.x; c < width; c += LAST)
                    numbers.forward(c, sum_of_parts(parts, groups, width, c) + place.bias[c]);
            }
            __syncthreads();
        }

        real largest, total;
        int classes = layers[count - 1].width;
        softmax_parts(v, classes, &largest, &total);
        if (threadIdx.x == 0) losses[row] = cross_entropy(v[label], largest, total);
        __syncthreads();
        for (int i = count - 1; i >= 0; i--) {
            const Layer &layer = layers[i];
            int width = layer.width;
            Numbers numbers = {
                layer.activation(keys + 3 * i, k), row * width,
                Place(memory, layer, i == 0).z, v, layer.d
            };
            if (i + 1 == count) {
                for (int c = threadIdx.x; c < width; c += LAST) {
                    bool is_label = c == label;
                    numbers.backward(
                        c, factor * cross_entropy_backward(v[c], largest, total, is_label)
                    );
                }
            } else {
                int outer = layers[i + 1].width;
                const real *w = Place(memory, layers[i + 1], false).w;
                Shares shares(width);
                int groups = are_few(outer) ? 1 : shares.groups;
                if (are_few(outer)) multiply_few_back(v, w, width, outer, parts);
                else multiply_back(v, w, width, outer, shares, parts);
                __syncthreads();
                for (int c = threadIdx.x; c < width; c += LAST)
                    numbers.backward(c, sum_of_parts(parts, groups, width, c));
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
