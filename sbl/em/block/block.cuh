/* What the threads of a block share: a problem in shared memory, sums over all threads, products with tensors.

   Every function is called by all threads of the block, and ends with what it wrote seen by all of them. */

#include "../call.h"

typedef double real;
#ifndef DBL_EPSILON
#define DBL_EPSILON 2.220446049250313e-16
#endif
#ifndef INFINITY
#define INFINITY __longlong_as_double(0x7ff0000000000000LL)
#endif
#ifndef WARP
#define WARP 32
#endif

#include "../fit.h"

/* One after the other: the code of an iteration is to fit into the cache of instructions. */
#define EVERY_FACTOR(i) _Pragma("unroll 1") for (int i = 0; i < I; i++)
#define EACH(i, count) \
  _Pragma("unroll 1") for (int i = threadIdx.x; i < (count); i += blockDim.x)
#define EACH_BY_WARP(i, count) \
  _Pragma("unroll 1") for (int i = threadIdx.x / WARP; i < (count); i += blockDim.x / WARP)
#define EACH_IN_WARP(i, count) \
  _Pragma("unroll 1") for (int i = threadIdx.x % WARP; i < (count); i += WARP)

/* FACTORS is known when this is compiled, so that loops over factors are unrolled. */
enum { I = FACTORS, MOST_SUMS = 9 };

#if COMPLEX
struct __align__(16) number {
  real re, im;
};
static inline number times(number a, number b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
static inline number times(real a, number b) { return {a * b.re, a * b.im}; }
static inline number conjugate(number a) { return {a.re, -a.im}; }
static inline real real_part(number a) { return a.re; }
static inline real power(number a) { return a.re * a.re + a.im * a.im; }
static inline void add(number &sum, number a) { sum.re += a.re, sum.im += a.im; }
static inline void add_product(number &sum, number a, number b) {
  sum.re += a.re * b.re, sum.im += a.re * b.im;
  sum.re -= a.im * b.im, sum.im += a.im * b.re;
}
#else
typedef real number;
static inline real times(real a, real b) { return a * b; }
static inline real conjugate(real a) { return a; }
static inline real real_part(real a) { return a; }
static inline real power(real a) { return a * a; }
#endif
static inline void add(real &sum, real a) { sum += a; }
static inline void add_product(real &sum, real a, real b) { sum += a * b; }

/* Where everything lies in shared memory, in real numbers from its begin. */
struct Layout {
  int L, one, two, P, D; /* second moment or |mean|^2; two spaces to work in; prod p_i, then P D; 1 / (s2 + P) */
  int g[MOST_FACTORS], fresh[MOST_FACTORS], best[MOST_FACTORS];
  int s[MOST_FACTORS], s_fresh[MOST_FACTORS], s_best[MOST_FACTORS]; /* what lies behind g where it is coupled */
  int inverse[MOST_FACTORS], mapped[MOST_FACTORS], p[MOST_FACTORS];  /* 1 / g; E g; eigenvalues */
  int position[MOST_FACTORS], positive[MOST_FACTORS];                /* of kept columns; integers */
  int R[MOST_FACTORS], Q[MOST_FACTORS], B[MOST_FACTORS], W[MOST_FACTORS], E[MOST_FACTORS]; /* see e_step.cuh */
};

/* A factor of the block's problem: its kept columns and what the E-step makes of them. */
struct Factor {
  int M, N, n, k, length, full, shares, turned; /* turned: Q holds the last iteration's eigenvectors */
  real scale;
};

extern __shared__ real memory[];
static __shared__ Layout layout;
static __shared__ real energy; /* ||y||^2 */
static __shared__ Factor factor[MOST_FACTORS];
static __shared__ real partial[THREADS / WARP * MOST_SUMS];

static inline real &real_at(int place) { return memory[place]; }
static inline number &number_at(int place, int index) { return ((number *)(memory + place))[index]; }
static inline int &integer_at(int place, int index) { return ((int *)(memory + place))[index]; }

static inline real warp_sum(real x) {
#pragma unroll
  for (int apart = WARP / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
  return x;
}

static inline real warp_max(real x) {
#pragma unroll
  for (int apart = WARP / 2; apart > 0; apart /= 2) x = fmax(x, __shfl_xor_sync(0xffffffffu, x, apart));
  return x;
}

/* Sums over all threads, the same in each. */
template <int COUNT>
static inline void block_sums(real (&values)[COUNT]) {
#pragma unroll
  for (int v = 0; v < COUNT; v++) values[v] = warp_sum(values[v]);
  __syncthreads();
#pragma unroll
  for (int v = 0; v < COUNT; v++)
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP * COUNT + v] = values[v];
  __syncthreads();
#pragma unroll
  for (int v = 0; v < COUNT; v++) values[v] = 0;
#pragma unroll 1
  for (int warp = 0; warp < (int)blockDim.x / WARP; warp++)
#pragma unroll
    for (int v = 0; v < COUNT; v++) values[v] += partial[warp * COUNT + v];
}

static __noinline__ real block_max(real x) {
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = x;
  __syncthreads();
#pragma unroll 1
  for (int warp = 0; warp < (int)blockDim.x / WARP; warp++) x = fmax(x, partial[warp]);
  return x;
}

/* The products with tensors: of y with U_i^H, of z with W_i, of the second moment's core with E_i. */
enum product { PROJECT, EXPAND, SPREAD };

template <int KIND>
static inline int size_in(int i) {
  return KIND == PROJECT ? factor[i].M : KIND == EXPAND ? factor[i].k : factor[i].shares;
}

template <int KIND>
static inline int size_out(int i) {
  return KIND == PROJECT ? factor[i].k : factor[i].n;
}

template <int KIND>
static inline int matrix_of(const Layout &at, int i) {
  return KIND == EXPAND ? at.W[i] : KIND == SPREAD ? at.E[i] : factor[i].full ? at.B[i] : at.Q[i];
}

/* What becomes of the entries of a product: they have their places at `out`, as they are or as |.|^2, or are added. */
template <typename T>
struct Put {
  int out;
  void operator()(int place, T value) const { ((T *)(memory + out))[place] = value; }
};
struct PutPower {
  int out;
  void operator()(int place, number value) const { memory[out + place] = power(value); }
};
struct Add {
  int out;
  void operator()(int place, real value) const { memory[out + place] += value; }
};

/* Along one axis, TILE entries a thread. */
template <int TILE, typename T, typename Write>
static __noinline__ void product_along(int before, int inner, int after, int outer, int matrix, int step_out, int step_in,
                                       const T *from, Write write) {
  const T *const a = (const T *)(memory + matrix);
  const int columns = before * after, groups = (outer + TILE - 1) / TILE;
  EACH(item, columns * groups) {
    const int group = item / columns, column = item - group * columns, b = column / after, c = column - b * after;
    const int first = group * TILE, last = outer - 1 - first;
    T sum[TILE] = {};
    for (int k = 0; k < inner; k++) {
      const T value = from[(b * inner + k) * after + c];
#pragma unroll
      for (int t = 0; t < TILE; t++)
        add_product(sum[t], a[(first + (t < last ? t : last)) * step_out + k * step_in], value);
    }
#pragma unroll
    for (int t = 0; t < TILE; t++) {
      if (t > last) break;
      write((b * outer + first + t) * after + c, sum[t]);
    }
  }
  __syncthreads();
}

template <typename T, typename Write>
static __noinline__ void product_of(int before, int inner, int after, int outer, int matrix, int step_out, int step_in,
                                    const T *from, Write write) {
  if (before * after * outer >= 6 * (int)blockDim.x)
    product_along<6, T>(before, inner, after, outer, matrix, step_out, step_in, from, write);
  else
    product_along<2, T>(before, inner, after, outer, matrix, step_out, step_in, from, write);
}

/* (matrix_1 kron ... kron matrix_I) of a tensor, the axes that grow least first, by way of `first` and `second`; the last
   product is `write`'s. */
template <int KIND, typename T, typename Write>
static void apply(const Layout &at, const T *from, int first, int second, Write write) {
  unsigned done = 0;
#pragma unroll 1
  for (int step = 0; step < I; step++) {
    int axis = -1;
    EVERY_FACTOR(i)
      if (!(done >> i & 1) &&
          (axis < 0 || size_out<KIND>(i) * size_in<KIND>(axis) < size_out<KIND>(axis) * size_in<KIND>(i)))
        axis = i;
    int before = 1, after = 1;
    EVERY_FACTOR(i) {
      const int size = done >> i & 1 ? size_out<KIND>(i) : size_in<KIND>(i);
      if (i < axis) before *= size;
      if (i > axis) after *= size;
    }
    const int inner = size_in<KIND>(axis), outer = size_out<KIND>(axis), matrix = matrix_of<KIND>(at, axis);
    const int step_out = KIND == PROJECT ? inner : 1, step_in = KIND == PROJECT ? 1 : outer;
    if (step < I - 1)
      product_of<T>(before, inner, after, outer, matrix, step_out, step_in, from, Put<T>{first});
    else
      product_of<T>(before, inner, after, outer, matrix, step_out, step_in, from, write);
    const int swap = first;
    from = (const T *)(memory + first), first = second, second = swap;
    done |= 1u << axis;
  }
}

/* The same into first or second; returns which. */
template <int KIND, typename T>
static int apply(const Layout &at, const T *from, int first, int second) {
  const int out = I % 2 ? first : second;
  apply<KIND, T>(at, from, first, second, Put<T>{out});
  return out;
}

/* The same of the tensor at `from`, which is lost. */
template <int KIND, typename T, typename Write>
static void apply(const Layout &at, int from, int spare, Write write) {
  apply<KIND, T>(at, (const T *)(memory + from), spare, from, write);
}
