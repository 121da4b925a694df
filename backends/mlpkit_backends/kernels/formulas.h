// base.py's formulas for one element, or one row, in CUDA and in C++: the tests build this file with
// a C++ compiler and hold it to the base's ops. `real` is float or double throughout. No product is
// to be fused with the sum after it (-fmad=false, -ffp-contract=off): the base's aren't.
#ifdef __CUDACC__
#define FORMULA __device__ __forceinline__
#else
#include <cmath>
#define FORMULA static inline
using std::exp, std::expm1, std::fabs, std::log, std::sqrt, std::tanh;
#endif

typedef unsigned long long word;

// Activations, by their place in plan.py's OPS.
enum { IDENTITY, LEAKY_RELU, RELU, ELU, SELU, SIGMOID, TANH };

template <typename real>
FORMULA real elu(real x, real alpha) {
    return x > 0 ? x : alpha * expm1(x);
}

template <typename real>
FORMULA real elu_backward(real dy, real x, real alpha) {
    return x > 0 ? dy : dy * (alpha * exp(x));
}

template <typename real>
FORMULA real sigmoid(real x) {
    real e = exp(-fabs(x));
    return (x >= 0 ? real(1) : e) / (real(1) + e);
}

template <typename real>
FORMULA real sigmoid_backward(real dy, real x) {
    real e = exp(-fabs(x));
    return dy * (e / ((real(1) + e) * (real(1) + e)));
}

template <typename real>
FORMULA real activate(int op, real x, real alpha, real scale) {
    switch (op) {
    case LEAKY_RELU: return x >= 0 ? x : alpha * x;
    case RELU: return x < 0 ? real(0) : x;
    case ELU: return elu(x, alpha);
    case SELU: return scale * elu(x, alpha);
    case SIGMOID: return sigmoid(x);
    case TANH: return tanh(x);
    default: return x;
    }
}

template <typename real>
FORMULA real activate_backward(int op, real dy, real x, real alpha, real scale) {
    switch (op) {
    case LEAKY_RELU: return x >= 0 ? dy : alpha * dy;
    case RELU: return x > 0 ? dy : real(0);
    case ELU: return elu_backward(dy, x, alpha);
    case SELU: return scale * elu_backward(dy, x, alpha);
    case SIGMOID: return sigmoid_backward(dy, x);
    case TANH: return real(4) * sigmoid_backward(dy, real(2) * x);
    default: return dy;
    }
}

template <typename real>
FORMULA real normalise(unsigned char pixel, real mean) {
    return real(pixel) / real(255) - mean;
}

// Dropout: the base's keep_mask and dropout.

FORMULA word high_product(word a, word b) {
#ifdef __CUDACC__
    return __umul64hi(a, b);
#else
    return word((unsigned __int128)a * b >> 64);
#endif
}

// words[4] <- Philox4x64-10 of counter (block, step, 0, 0) and key (seed, layer).
FORMULA void philox(word block, word step, word seed, word layer, word *words) {
    const word m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
    word c0 = block, c1 = step, c2 = 0, c3 = 0;
    for (int round = 0; round < 10; round++) {
        word high0 = high_product(m0, c0), low0 = m0 * c0;
        word high1 = high_product(m1, c2), low1 = m1 * c2;
        c0 = high1 ^ c1 ^ seed;
        c1 = low1;
        c2 = high0 ^ c3 ^ layer;
        c3 = low0;
        seed += 0x9E3779B97F4A7C15ull;
        layer += 0xBB67AE8584CAA73Bull;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

FORMULA bool keeps(word element, double keep_prob, word seed, word layer, word step) {
    word words[4];
    philox(element / 8 + 1, step, seed, layer, words);
    // Chosen one by one: an array that is indexed by what is known late is kept in slow memory.
    int place = element % 8;
    word low = place < 2 ? words[0] : words[1], high = place < 6 ? words[2] : words[3];
    word half = (place < 4 ? low : high) >> (place % 2 ? 32 : 0) & 0xFFFFFFFFull;
    return double(half) < keep_prob * 4294967296.0;
}

template <typename real>
FORMULA real drop(bool kept, real x, real keep_prob) {
    return kept ? x / keep_prob : real(0);
}

// Loss. largest: a row's largest score; sum: that of exp(score - largest) over the row.

// The larger one; NaN where either is.
template <typename real>
FORMULA real larger(real one, real other) {
    return other > one || other != other ? other : one;
}

// A row's softmax cross entropy, from the score of its label.
template <typename real>
FORMULA real cross_entropy(real score, real largest, real sum) {
    return log(sum) - (score - largest);
}

// softmax(score) - onehot: the gradient by a score.
template <typename real>
FORMULA real cross_entropy_backward(real score, real largest, real sum, bool is_label) {
    return exp(score - largest) / sum - (is_label ? real(1) : real(0));
}

// Updates, in place on w and the state.

// a / b and the root of x: in float32 on a GPU within two units of the last place, in a fraction of
// the instructions that the last half of a unit takes.
template <typename real>
FORMULA real quotient(real a, real b) {
    return a / b;
}

template <typename real>
FORMULA real root(real x) {
    return sqrt(x);
}

#ifdef __CUDACC__
template <>
FORMULA float quotient(float a, float b) {
    return __fdividef(a, b);
}

template <>
FORMULA float root(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

template <typename real>
FORMULA void sgd_update(real &w, real dw, real lr) {
    w -= lr * dw;
}

template <typename real>
FORMULA void sgdm_update(real &w, real dw, real &velocity, real lr, real momentum) {
    velocity = momentum * velocity - lr * dw;
    w += velocity;
}

// rest: 1 - decay.
template <typename real>
FORMULA void rmsprop_update(
    real &w, real dw, real &cache, real lr, real decay, real rest, real eps
) {
    cache = decay * cache + rest * (dw * dw);
    w -= quotient(lr * dw, root(cache + eps));
}

// rest: 1 - beta; step: lr / (1 - beta1^t); correct: 1 / (1 - beta2^t).
template <typename real>
FORMULA void adam_update(
    real &w, real dw, real &m, real &v, real step, real beta1, real rest1, real beta2, real rest2,
    real eps, real correct
) {
    m = beta1 * m + rest1 * dw;
    v = beta2 * v + rest2 * (dw * dw);
    w -= quotient(step * m, root(v * correct) + eps);
}

// An update by its place in plan.py's UPDATES, with a row of the schedule's table, as float64: the
// settings as the base's op takes them, but for Adam its step, beta1, beta2, eps and correct.
enum { TABLE = 5 };  // columns

enum { SGD, SGDM, RMSPROP, ADAM };

template <typename real>
FORMULA void update_one(int rule, const double *row, real &w, real dw, real *m, real *v) {
    real lr = real(row[0]);
    switch (rule) {
    case SGD: sgd_update(w, dw, lr); break;
    case SGDM: sgdm_update(w, dw, *m, lr, real(row[1])); break;
    case RMSPROP:
        rmsprop_update(w, dw, *m, lr, real(row[1]), real(1 - row[1]), real(row[2]));
        break;
    case ADAM:
        adam_update(
            w, dw, *m, *v, lr, real(row[1]), real(1 - row[1]), real(row[2]), real(1 - row[2]),
            real(row[3]), real(row[4])
        );
        break;
    }
}
