// Products of wide matrices on the tensor cores, in float32. After fused.cu, with real = float. A
// number is nearly the sum of two TF32 numbers, the nearest and the rest, and a product that of three
// of theirs, added in float32 (3xTF32): errors of some 2e-6 of a sum, where TF32 alone has 3e-4. What
// is infinite, or will be as TF32, becomes NaN. Widths are multiples of 4, matrices aligned to 16
// bytes. A warp has 32 by 64 outputs, and a block two of them side by side, wide_sums' two and
// wide_update's two or four high; see PTX's mma.m16n8k8.

const int HIGH = 64, WIDE = 128, DEEP = 32;  // of a block: outputs, and inner sum at once
const int STAGES = 3;  // of DEEP, two on the way while one is multiplied
// Rows in shared memory, a Four longer: neighbours in other banks.
const int DEEP_ROW = DEEP + 4, WIDE_ROW = WIDE + 4;

#ifdef __CUDACC__
// c (16, 8) += a (16, 8) b (8, 8), a warp's; of the numbers the first 19 bits are read.
__device__ __forceinline__ void multiply_add(float *c, const float *a, const float *b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}
#endif

// x as the nearest TF32 number (11 bits) and the rest.
__device__ __forceinline__ void split(float x, float &high, float &low) {
    high = __uint_as_float((__float_as_uint(x) + 0x1000) & 0xFFFFE000);
    low = x - high;
}

// A warp's place in its block and a lane's in a fragment: group and member. Outputs (row, column)
// and (k, column) are shared out so that a lane's are four in a row.
struct Lane {
    int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
    int row = warp / 2 * 32, column = warp % 2 * 64;
    int four = 16 * (group % 2) + 4 * (group / 2);  // of 32 numbers, where its four begin
};

// A warp's sums: of 2 by 8 fragments.
struct Sums {
    float at[2][8][4] = {};

    // += a b: 16 rows of a by 8 of the inner sum twice, 8 of the inner sum by 64 of b, in fours.
    __device__ __forceinline__ void add(const float (&a)[2][4], const Four (&b)[2][2]) {
        float high[2][4], low[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) split(a[m][i], high[m][i], low[m][i]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float nearest[4][2], rest[4][2];
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) split(b[half][i].at[j], nearest[j][i], rest[j][i]);
#pragma unroll
            for (int part = 0; part < 3; part++)  // the small ones first
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int m = 0; m < 2; m++)
                        multiply_add(
                            at[m][4 * half + j], part == 0 ? low[m] : high[m],
                            part == 1 ? rest[j] : nearest[j]
                        );
        }
    }

    // Four sums in a row: of row i of fragment m, at 32 half + 16 next + 4 member.
    __device__ __forceinline__ Four four(int m, int i, int half, int next) const {
        Four found;
#pragma unroll
        for (int j = 0; j < 4; j++) found.at[j] = at[m][4 * half + j][2 * i + next];
        return found;
    }
};

// A part of a matrix to shared memory, from (row, column) on; zeros beyond its last ones.
template <int HEIGHT, int WIDTH, int THREADS>
__device__ __forceinline__ void bring(
    float *to, const float *from, int row, int column, int rows, int columns
) {
    const int FOURS = WIDTH / 4, APART = THREADS / FOURS;  // rows, from one four of a thread's on
    int y = threadIdx.x / FOURS, x = threadIdx.x % FOURS * 4;
    bool inside = column + x < columns;
    from += (row + y) * columns + column + x;
    to += y * (WIDTH + 4) + x;
#pragma unroll
    for (int i = 0; i < HEIGHT / APART; i++) {
        copy_four(to, from, inside && row + y + i * APART < rows);
        to += APART * (WIDTH + 4), from += APART * columns;
    }
}

// product_sums of wide matrices: each split has `chunk` of the inner sum, a multiple of DEEP.
extern "C" __global__ __launch_bounds__(128, 2) void wide_sums(
    const real *x, const real *w, real *sums, int n, int inner, int width, int chunk
) {
    DYNAMIC_SHARED(memory);
    wait_for_kernels();
    const int x_size = HIGH * DEEP_ROW, stage_size = x_size + DEEP * WIDE_ROW;
    int across = (width + WIDE - 1) / WIDE, blocks = across * ((n + HIGH - 1) / HIGH);
    int block = blockIdx.x % blocks, split = blockIdx.x / blocks;
    int row = block / across * HIGH, column = block % across * WIDE, first = split * chunk;
    int steps = (min(chunk, inner - first) + DEEP - 1) / DEEP;
    auto fetch = [&](int step) {
        float *to = memory + step % STAGES * stage_size;
        if (step < steps) {
            bring<HIGH, DEEP, 128>(to, x, row, first + step * DEEP, n, inner);
            bring<DEEP, WIDE, 128>(to + x_size, w, first + step * DEEP, column, inner, width);
        }
        end_copy();
    };
    Lane lane;
    Sums sum;
    for (int step = 0; step < STAGES - 1; step++) fetch(step);
    for (int step = 0; step < steps; step++) {
        copied<STAGES - 2>();
        __syncthreads();
        fetch(step + STAGES - 1);
        const float *xs = memory + step % STAGES * stage_size, *ws = xs + x_size;
#pragma unroll
        for (int k = lane.member; k < DEEP; k += 8) {
            float a[2][4];
            Four b[2][2];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int y = lane.row + 16 * (i / 4) + 8 * (i % 2) + lane.group;
                a[i / 4][i % 4] = xs[y * DEEP_ROW + k + i % 4 / 2 * 4];
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int place = lane.column + 32 * (i / 2) + lane.four;
                b[i / 2][i % 2] = *(const Four *)(ws + (k + i % 2 * 4) * WIDE_ROW + place);
            }
            sum.add(a, b);
        }
    }
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int m = i / 8, lower = i / 4 % 2, half = i / 2 % 2, next = i % 2;
        int y = row + lane.row + 16 * m + 8 * lower + lane.group;
        int z = column + lane.column + 32 * half + 16 * next + 4 * lane.member;
        if (y < n && z < width)
            *(Four *)(sums + (split * n + y) * width + z) = sum.four(m, lower, half, next);
    }
}

// Where a four of a block's gradients is on its way to the update: rows that lanes write together
// are 16 apart, and would be in the same banks.
FORMULA int staged(int y, int z) { return y * WIDE_ROW + (z ^ (y & 16)); }

// A block's weights and their state, (rows, columns) of a matrix, updated by the gradients that are
// staged in memory.
template <int rule, int threads>
__device__ __forceinline__ void update_block(
    const double *settings, real *w, real *m, real *v, const float *memory, int rows, int columns,
    int width
) {
    const int WARPS = threads / 32, AT_ONCE = rule == SGD ? 8 : 4;  // fours of each array
    int z = 4 * (threadIdx.x % 32);
    if (z >= columns) return;
    for (int y = threadIdx.x / 32; y < rows; y += WARPS * AT_ONCE) {
        Four p[AT_ONCE], first[AT_ONCE] = {}, second[AT_ONCE] = {};
        // All are read before one is written, which might be any of them.
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int place = (y + WARPS * i) * width + z;
            if (y + WARPS * i >= rows) break;
            p[i] = *(const Four *)(w + place);
            if (rule != SGD) first[i] = *(const Four *)(m + place);
            if (rule == ADAM) second[i] = *(const Four *)(v + place);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int place = (y + WARPS * i) * width + z;
            if (y + WARPS * i >= rows) break;
            Four g = *(const Four *)(memory + staged(y + WARPS * i, z));
#pragma unroll
            for (int j = 0; j < 4; j++)
                update_one(
                    rule, settings, p[i].at[j], g.at[j], &first[i].at[j], &second[i].at[j]
                );
            *(Four *)(w + place) = p[i];
            if (rule != SGD) *(Four *)(m + place) = first[i];
            if (rule == ADAM) *(Four *)(v + place) = second[i];
        }
    }
}

// A block of weights updated, WIDE of as many rows as there are threads for.
template <int rule, int threads>
__device__ __forceinline__ void update_wide(
    const real *x, const real *d, real *w, real *m, real *v, int n, int inner, int width,
    const double *row, int block, real *memory
) {
    const int TALL = threads / 2, TALL_ROW = TALL + 4;
    int across = (width + WIDE - 1) / WIDE;
    int first_row = block / across * TALL, first_column = block % across * WIDE;
    float *xs = memory, *ds = memory + BATCH * TALL_ROW;
    Lane lane;
    Sums sum;
    for (int example = 0; example < n; example += BATCH) {
        if (example > 0) __syncthreads();
        bring<BATCH, TALL, threads>(xs, x, example, first_row, n, inner);
        bring<BATCH, WIDE, threads>(ds, d, example, first_column, n, width);
        end_copy();
        copied<0>();
        __syncthreads();
        int many = min(BATCH, n - example);
#pragma unroll 1
        for (int k = lane.member; k < many + lane.member; k += 8) {  // zeros beyond the last
            float a[2][4];
            Four b[2][2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                Four rows = *(const Four *)(xs + (k + 4 * i) * TALL_ROW + lane.row + lane.four);
#pragma unroll
                for (int j = 0; j < 4; j++) a[j / 2][2 * i + j % 2] = rows.at[j];
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int place = lane.column + 32 * (i / 2) + lane.four;
                b[i / 2][i % 2] = *(const Four *)(ds + (k + i % 2 * 4) * WIDE_ROW + place);
            }
            sum.add(a, b);
        }
    }
    Settings settings(row);
    // The gradients by way of shared memory: a warp's weights are then whole rows.
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int y = lane.row + lane.four + i / 4;
        int z = lane.column + 32 * (i / 2 % 2) + 16 * (i % 2) + 4 * lane.member;
        *(Four *)(memory + staged(y, z)) = sum.four(i / 8, i / 4 % 2, i / 2 % 2, i % 2);
    }
    __syncthreads();
    int rows = min(TALL, inner - first_row), columns = min(WIDE, width - first_column);
    int first = first_row * width + first_column;
    update_block<rule, threads>(
        settings, w + first, m + first, v + first, memory, rows, columns, width
    );
}

// update_layers of one whose weights are wide; the first blocks are for other layers, as many as
// `narrow`, and for its bias.
template <int rule, int threads>
__device__ __forceinline__ void update_all(
    const real *x, const real *d, real *w, real *m, real *v, real *bias, real *bias_m,
    real *bias_v, int n, int inner, int width, const double *row, const word *layers,
    const word *places, const real *batch, int narrow, real *memory
) {
    wait_for_kernels();
    int block = blockIdx.x - narrow, of_bias = (width + threads - 1) / threads;
    if (block < 0) {
        update_part<rule, threads>(row, layers, places[blockIdx.x], batch, n, memory);
    } else if (block < of_bias) {
        int column = threads * block + threadIdx.x;
        if (column < width) update_bias<rule>(row, bias, bias_m, bias_v, d, n, width, column);
    } else {
        update_wide<rule, threads>(
            x, d, w, m, v, n, inner, width, row, block - of_bias, memory
        );
    }
}

extern "C" __global__ __launch_bounds__(256, 2) void wide_update(
    const real *x, const real *d, real *w, real *m, real *v, real *bias, real *bias_m,
    real *bias_v, int n, int inner, int width, int number, const double *row, const word *layers,
    const word *places, const real *batch, int narrow
) {
    DYNAMIC_SHARED(memory);
    WITH_RULE(
        number, (update_all<rule, 256>(
                    x, d, w, m, v, bias, bias_m, bias_v, n, inner, width, row, layers, places,
                    batch, narrow, memory
                ))
    )
}

// The same for SGD, which has less to wait for in a block, and is faster with smaller ones.
extern "C" __global__ __launch_bounds__(128, 4) void wide_update_sgd(
    const real *x, const real *d, real *w, real *bias, int n, int inner, int width,
    const double *row, const word *layers, const word *places, const real *batch, int narrow
) {
    DYNAMIC_SHARED(memory);
    update_all<SGD, 128>(
        x, d, w, w, w, bias, bias, bias, n, inner, width, row, layers, places, batch, narrow, memory
    );
}
