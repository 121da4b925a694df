// Products of wide matrices on the tensor cores, in float32. After fused.cu, with real = float. A
// number is nearly the sum of two TF32 numbers, the nearest and the rest, and a product that of three
// of theirs, added in float32 (3xTF32): errors of some 2e-6 of a sum, where TF32 alone has 3e-4. What
// is infinite, or will be as TF32, becomes NaN. Widths are multiples of 4, matrices aligned to 16
// bytes. A block has 4 warps and 64 by 128 outputs, a warp 32 by 64; see PTX's mma.m16n8k8.

const int HIGH = 64, WIDE = 128, DEEP = 32;  // of a block: outputs, and inner sum at once
const int STAGES = 3;  // of DEEP, two on the way while one is multiplied
const int AT_ONCE = 4;  // a lane's fours of weights on their way to their update
// Rows in shared memory, a Four longer: neighbours in other banks.
const int DEEP_ROW = DEEP + 4, HIGH_ROW = HIGH + 4, WIDE_ROW = WIDE + 4;

#ifdef __CUDACC__
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) float name[]

// c (16, 8) += a (16, 8) b (8, 8), a warp's; of the numbers the first 19 bits are read.
__device__ __forceinline__ void multiply_add(float *c, const float *a, const float *b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// Four floats to shared memory, zeros unless they are inside; done when `copied` has waited for it.
__device__ __forceinline__ void copy_four(float *to, const float *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     unsigned(__cvta_generic_to_shared(to))
                 ),
                 "l"(from), "r"(inside ? 16 : 0));
}

__device__ __forceinline__ void end_copy() { asm volatile("cp.async.commit_group;"); }

// Wait for this thread's copies but for the last `but` that ended.
template <int but>
__device__ __forceinline__ void copied() {
    asm volatile("cp.async.wait_group %0;" ::"n"(but) : "memory");
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
template <int HEIGHT, int WIDTH>
__device__ __forceinline__ void bring(
    float *to, const float *from, int row, int column, int rows, int columns
) {
#pragma unroll 4
    for (int part = 0; part < HEIGHT * WIDTH / 4 / 128; part++) {
        int i = threadIdx.x + 128 * part, y = i / (WIDTH / 4), x = i % (WIDTH / 4) * 4;
        bool inside = row + y < rows && column + x < columns;
        const float *place = inside ? from + (row + y) * columns + column + x : from;
        copy_four(to + y * (WIDTH + 4) + x, place, inside);
    }
}

// product_sums of wide matrices: each split has `chunk` of the inner sum, a multiple of DEEP.
extern "C" __global__ __launch_bounds__(128, 2) void wide_sums(
    const real *x, const real *w, real *sums, int n, int inner, int width, int chunk
) {
    DYNAMIC_SHARED(memory);
    const int x_size = HIGH * DEEP_ROW, stage_size = x_size + DEEP * WIDE_ROW;
    int across = (width + WIDE - 1) / WIDE, blocks = across * ((n + HIGH - 1) / HIGH);
    int block = blockIdx.x % blocks, split = blockIdx.x / blocks;
    int row = block / across * HIGH, column = block % across * WIDE, first = split * chunk;
    int steps = (min(chunk, inner - first) + DEEP - 1) / DEEP;
    auto fetch = [&](int step) {
        float *to = memory + step % STAGES * stage_size;
        if (step < steps) {
            bring<HIGH, DEEP>(to, x, row, first + step * DEEP, n, inner);
            bring<DEEP, WIDE>(to + x_size, w, first + step * DEEP, column, inner, width);
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

// update_layers of one whose weights are wide, its bias in the first blocks.
extern "C" __global__ __launch_bounds__(128, 4) void wide_update(
    const real *x, const real *d, real *w, real *m, real *v, real *bias, real *bias_m,
    real *bias_v, int n, int inner, int width, int rule, const double *row
) {
    DYNAMIC_SHARED(memory);
    float *xs = memory, *ds = memory + BATCH * HIGH_ROW;
    double settings[6];
    for (int j = 0; j < 6; j++) settings[j] = row[j];
    int across = (width + WIDE - 1) / WIDE, of_bias = (width + 127) / 128;
    if (int(blockIdx.x) < of_bias) {
        int column = 128 * blockIdx.x + threadIdx.x;
        if (column < width)
            update_bias(rule, settings, bias, bias_m, bias_v, d, n, width, column);
        return;
    }
    int block = blockIdx.x - of_bias;
    int first_row = block / across * HIGH, first_column = block % across * WIDE;
    Lane lane;
    Sums sum;
    for (int example = 0; example < n; example += BATCH) {
        if (example > 0) __syncthreads();
        bring<BATCH, HIGH>(xs, x, example, first_row, n, inner);
        bring<BATCH, WIDE>(ds, d, example, first_column, n, width);
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
                Four rows = *(const Four *)(xs + (k + 4 * i) * HIGH_ROW + lane.row + lane.four);
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
    // The gradients by way of shared memory: a warp's weights are then whole rows.
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int y = lane.row + lane.four + i / 4;
        int z = lane.column + 32 * (i / 2 % 2) + 16 * (i % 2) + 4 * lane.member;
        *(Four *)(memory + y * WIDE_ROW + z) = sum.four(i / 8, i / 4 % 2, i / 2 % 2, i % 2);
    }
    __syncthreads();
    int z = 4 * (threadIdx.x % 32), end = min(HIGH, inner - first_row);
    for (int y = threadIdx.x / 32; y < end && first_column + z < width; y += 4 * AT_ONCE) {
        Four p[AT_ONCE], first[AT_ONCE] = {}, second[AT_ONCE] = {};
        int place = (first_row + y) * width + first_column + z;
        // All are read before one is written, which might be any of them.
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (y + 4 * i >= end) break;
            p[i] = *(const Four *)(w + place + 4 * i * width);
            if (rule != SGD) first[i] = *(const Four *)(m + place + 4 * i * width);
            if (rule == ADAM) second[i] = *(const Four *)(v + place + 4 * i * width);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (y + 4 * i >= end) break;
            Four g = *(const Four *)(memory + (y + 4 * i) * WIDE_ROW + z);
#pragma unroll
            for (int j = 0; j < 4; j++)
                update_one(
                    rule, settings, p[i].at[j], g.at[j], &first[i].at[j], &second[i].at[j]
                );
            *(Four *)(w + place + 4 * i * width) = p[i];
            if (rule != SGD) *(Four *)(m + place + 4 * i * width) = first[i];
            if (rule == ADAM) *(Four *)(v + place + 4 * i * width) = second[i];
        }
    }
}
