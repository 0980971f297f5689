/* What the decompositions of small matrices by blocks of threads share: numbers, reductions, reflections, sorting.

   Defined from outside: REAL (float or double), COMPLEX (0 or 1), GROUP, LANES. With GROUP = 0 all warps of a block work
   on one matrix. Else a block has GROUP warps, and LANES of a warp work on a matrix; a chain of rotations, which one
   thread follows, is followed for all matrices of the block at once, by neighbouring threads. Matrices are stored by
   columns, `ld` numbers apart: thread-by-row work is then coalesced in device memory and free of bank conflicts on
   chip. */

typedef REAL real;
enum { ONE_WARP = GROUP > 0, MOST_THREADS = 32 * (ONE_WARP ? GROUP : 17), MATRICES = ONE_WARP ? MOST_THREADS / LANES : 1 };
enum fault { NOT_FINITE = 1, NOT_SETTLED };
#define WARPS (ONE_WARP ? 1 : (int)blockDim.x / 32)
#define THREADS (LANES * WARPS)

#if COMPLEX
struct alignas(2 * sizeof(real)) number {
  real re, im;
};
__device__ inline number of(real re, real im) { return {re, im}; }
__device__ inline real re(number x) { return x.re; }
__device__ inline real im(number x) { return x.im; }
__device__ inline number conj(number x) { return {x.re, -x.im}; }
__device__ inline number times(real a, number x) { return {a * x.re, a * x.im}; }
__device__ inline number times(number a, number x) { return {a.re * x.re - a.im * x.im, a.re * x.im + a.im * x.re}; }
__device__ inline number plus_times(number sum, number a, number x) {
  sum.re += a.re * x.re, sum.im += a.re * x.im;
  sum.re -= a.im * x.im, sum.im += a.im * x.re;
  return sum;
}
#else
typedef real number;
__device__ inline number of(real re, real) { return re; }
__device__ inline real re(number x) { return x; }
__device__ inline real im(number) { return 0; }
__device__ inline number conj(number x) { return x; }
__device__ inline number times(real a, number x) { return a * x; }
__device__ inline number plus_times(number sum, number a, number x) { return sum + a * x; }
#endif

__device__ inline number plus(number x, number y) { return of(re(x) + re(y), im(x) + im(y)); }
__device__ inline number minus(number x) { return of(-re(x), -im(x)); }
__device__ inline real square(number x) { return re(x) * re(x) + im(x) * im(x); }
__device__ inline real larger_part(number x) { return fmax(fabs(re(x)), fabs(im(x))); }

template <bool SINGLE = sizeof(real) == 4>
struct precision {
  static constexpr real eps = SINGLE ? 1.1920929e-7 : 2.220446049250313e-16;
  /* Squares below lose digits to underflow; of a matrix near one, their roots are far below rounding. */
  static constexpr real vanishing = SINGLE ? 1e-24 : 1e-276;
  static constexpr real largest = SINGLE ? 3.4028234e38 : 1.7976931348623157e308;
};
typedef precision<> limits;

/* Within the matrix. */
__device__ inline int thread() { return ONE_WARP ? threadIdx.x % LANES : threadIdx.x; }
__device__ inline int lane() { return threadIdx.x % LANES; }
__device__ inline int warp() { return thread() / LANES; }

/* The lanes of a warp that work on this matrix; all, which takes fewer instructions, where they stay CONVERGED. */
#ifndef CONVERGED
#define CONVERGED 0
#endif
__device__ inline int first_lane() { return threadIdx.x % 32 / LANES * LANES; }
__device__ inline unsigned lanes() {
  return CONVERGED ? 0xffffffffu : 0xffffffffu >> (32 - LANES) << first_lane();
}
__device__ inline void sync_lanes() { __syncwarp(lanes()); }

__device__ inline void sync() {
  if (ONE_WARP)
    sync_lanes();
  else
    __syncthreads();
}

/* Where `true` stands first among the lanes, from 0; -1 for nowhere. */
__device__ inline int first_true(bool here) {
  return __ffs(__ballot_sync(lanes(), here) >> first_lane() & 0xffffffffu >> (32 - LANES)) - 1;
}

__device__ inline real warp_sum(real x) {
  for (int across = LANES / 2; across > 0; across /= 2) x += __shfl_xor_sync(lanes(), x, across);
  return x;
}

__device__ inline real warp_max(real x) {
  for (int across = LANES / 2; across > 0; across /= 2) x = fmax(x, __shfl_xor_sync(lanes(), x, across));
  return x;
}

__device__ inline real from_lane(real x, int which) { return __shfl_sync(lanes(), x, which, LANES); }
#if COMPLEX
__device__ inline number from_lane(number x, int which) { return of(from_lane(x.re, which), from_lane(x.im, which)); }
#endif

__device__ inline number warp_sum_of(number x) { return of(warp_sum(re(x)), COMPLEX ? warp_sum(im(x)) : 0); }

/* Over the block, the same bits in every thread. `scratch`: 2 WARPS numbers. */
__device__ inline real block_sum(real x, real *scratch) {
  x = warp_sum(x);
  if (ONE_WARP) return x;
  if (lane() == 0) scratch[warp()] = x;
  sync();
  x = 0;
  for (int w = 0; w < WARPS; w++) x += scratch[w];
  sync();
  return x;
}

__device__ inline number block_sum_of(number x, real *scratch) {
  x = warp_sum_of(x);
  if (ONE_WARP) return x;
  if (lane() == 0) scratch[warp()] = re(x), scratch[WARPS + warp()] = im(x);
  sync();
  real sum_re = 0, sum_im = 0;
  for (int w = 0; w < WARPS; w++) sum_re += scratch[w], sum_im += scratch[WARPS + w];
  sync();
  return of(sum_re, sum_im);
}

__device__ inline real block_max(real x, real *scratch) {
  x = warp_max(x);
  if (ONE_WARP) return x;
  if (lane() == 0) scratch[warp()] = x;
  sync();
  x = 0;
  for (int w = 0; w < WARPS; w++) x = fmax(x, scratch[w]);
  sync();
  return x;
}

/* H = 1 - tau v v^H, v_0 = 1, with H^H x = beta e_0 and beta real; x of `count` numbers becomes v in place.
   A vanishing x counts as zero: squares of its entries would have lost their digits. */
__device__ inline real reflector(int count, number *x, number *tau, real *scratch) {
  const number head = x[0];
  real tail = 0;
  for (int i = 1 + thread(); i < count; i += THREADS) tail += square(x[i]);
  tail = block_sum(tail, scratch);
  sync();
  const real length = square(head) + tail;
  *tau = of(0, 0);
  if (length < limits::vanishing) return 0;
  if (tail + im(head) * im(head) == 0) return re(head);
  const real beta = re(head) > 0 ? -sqrt(length) : sqrt(length);
  *tau = of((beta - re(head)) / beta, -im(head) / beta);
  const real gap = re(head) - beta, inverse = 1 / (gap * gap + im(head) * im(head));
  const number factor = of(gap * inverse, -im(head) * inverse);
  for (int i = 1 + thread(); i < count; i += THREADS) x[i] = plus_times(of(0, 0), factor, x[i]);
  if (thread() == 0) x[0] = of(1, 0);
  sync();
  return beta;
}

__device__ inline bool is_zero(number x) { return re(x) == 0 && im(x) == 0; }

/* A <- (1 - tau v v^H) A for a block of `rows` by `columns`: a column a thread where they are short, or a warp. */
__device__ inline void reflect_columns(number *A, int ld, int rows, int columns, const number *v, number tau) {
  const number factor = minus(tau);
  if (ONE_WARP || rows <= 32) {
    for (int j = thread(); j < columns; j += THREADS) {
      number *x = A + (size_t)j * ld, inner = of(0, 0);
#pragma unroll 4
      for (int i = 0; i < rows; i++) inner = plus_times(inner, conj(v[i]), x[i]);
      inner = plus_times(of(0, 0), factor, inner);
#pragma unroll 4
      for (int i = 0; i < rows; i++) x[i] = plus_times(x[i], inner, v[i]);
    }
    return;
  }
  const int TOGETHER = 4;
  for (int j = TOGETHER * warp(); j < columns; j += TOGETHER * WARPS) {
    number *x[TOGETHER], inner[TOGETHER];
    const int last = columns - 1;
#pragma unroll
    for (int c = 0; c < TOGETHER; c++) x[c] = A + (size_t)(j + c < last ? j + c : last) * ld, inner[c] = of(0, 0);
    for (int i = lane(); i < rows; i += LANES) {
      const number along = conj(v[i]);
#pragma unroll
      for (int c = 0; c < TOGETHER; c++) inner[c] = plus_times(inner[c], along, x[c][i]);
    }
#pragma unroll
    for (int c = 0; c < TOGETHER; c++) inner[c] = plus_times(of(0, 0), factor, warp_sum_of(inner[c]));
    for (int i = lane(); i < rows; i += LANES) {
      const number along = v[i];
#pragma unroll
      for (int c = 0; c < TOGETHER; c++)
        if (j + c < columns) x[c][i] = plus_times(x[c][i], inner[c], along);
    }
  }
}

/* H_0 H_1 ... in the place of its reflectors: v_k lies in column k from row k + shift on, its 1 understood. */
__device__ inline void form(number *Q, int ld, int rows, int columns, int shift, const number *taus, number *v) {
  for (int k = columns - 1 - shift; k >= 0; k--) {
    const int first = k + shift;
    for (int i = first + thread(); i < rows; i += THREADS) v[i - first] = i == first ? of(1, 0) : Q[k * ld + i];
    sync();
    for (int i = first + thread(); i < rows; i += THREADS) Q[first * ld + i] = of(i == first, 0);
    for (int j = first + 1 + thread(); j < columns; j += THREADS) Q[j * ld + first] = of(0, 0);
    sync();
    if (!is_zero(taus[k])) reflect_columns(Q + first * ld + first, ld, rows - first, columns - first, v, taus[k]);
    sync();
  }
  if (shift == 0) return;
  for (int i = thread(); i < rows; i += THREADS) Q[i] = of(i == 0, 0);
  for (int j = 1 + thread(); j < columns; j += THREADS) Q[j * ld] = of(0, 0);
  sync();
}

/* Every entry, a row of a matrix stored by rows for each warp. */
#define FOR_ENTRIES(i, rows, j, columns) \
  for (int i = warp(); i < rows; i += WARPS) \
    for (int j = lane(); j < columns; j += LANES)

struct alignas(2 * sizeof(real)) rotation {
  real c, s;
};

/* Roots and quotients that need not be rounded correctly. */
__device__ inline double inverse_root(double x) { return rsqrt(x); }
__device__ inline double root(double x) { return sqrt(x); }
__device__ inline double quotient(double x, double y) { return x / y; }
#ifdef __CUDACC__
__device__ inline float inverse_root(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float root(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float quotient(float x, float y) { return __fdividef(x, y); }
#else
inline float inverse_root(float x) { return 1 / sqrt(x); }
inline float root(float x) { return sqrt(x); }
inline float quotient(float x, float y) { return x / y; }
#endif

/* c f + s g = r, which is returned, and c g - s f = 0, with c >= 0. Quarter turns are exact: of a matrix of few nonzeros
   they follow one another, and what each loses would add up. Without a branch, which a chain would wait for. */
__device__ inline real rotate(real f, real g, rotation *turn) {
  const real length = f * f + g * g, inverse = inverse_root(length);
  const bool none = g == 0 || length < limits::vanishing, quarter = f == 0;
  const real c = fabs(f) * inverse, s = (f < 0 ? -g : g) * inverse, r = copysign(length, f) * inverse;
  turn->c = none ? 1 : c;
  turn->s = none ? 0 : quarter ? copysign((real)1, g) : s;
  return none ? f : quarter ? fabs(g) : r;
}

/* Multiply by 2^exponent; in two steps, either of which may be a number where their product is not. */
struct power {
  real one, other;
  __device__ power(int exponent) : one(scalbn((real)1, exponent / 2)), other(scalbn((real)1, exponent - exponent / 2)) {}
  __device__ real of_real(real x) const { return x * one * other; }
  __device__ number of_number(number x) const { return of(of_real(re(x)), of_real(im(x))); }
};

/* The larger part of an entry that counts, infinity for one that is not finite. */
__device__ inline real size_of(number x, bool counts) {
  const bool finite = fabs(re(x)) <= limits::largest && fabs(im(x)) <= limits::largest;
  return !finite ? 2 * limits::largest : counts ? larger_part(x) : 0;
}

/* Bring A (rows x columns) below one by a power of two, and return its exponent. `largest`: of the sizes that this
   thread met. A matrix that is not finite becomes zero, and `failed` says so. */
__device__ inline int scale_down(number *A, int ld, int rows, int columns, real largest, real *scratch, int *failed) {
  largest = block_max(largest, scratch);
  const bool finite = largest <= limits::largest;
  if (!finite && thread() == 0) *failed = NOT_FINITE;
  const int exponent = finite && largest > 0 ? ilogb(largest) + 1 : 0;
  const power down(-exponent);
  sync();
  FOR_ENTRIES(j, columns, i, rows) A[j * ld + i] = finite ? down.of_number(A[j * ld + i]) : of(0, 0);
  sync();
  return exponent;
}

/* What another matrix of the block has in the place of what is at `mine`. */
template <typename T>
__device__ inline T *of_matrix(T *mine, int apart) {
  return (T *)((char *)mine + apart);
}

/* order[k]: where the k-th of the numbers stands, ascending, or descending. */
__device__ inline void sort(int n, const real *keys, bool descending, int *order) {
  for (int j = thread(); j < n; j += THREADS) {
    const real key = keys[j];
    int rank = 0;
    for (int i = 0; i < n; i++) {
      const bool before = descending ? keys[i] > key : keys[i] < key;
      rank += before || (keys[i] == key && i < j);
    }
    order[rank] = j;
  }
  sync();
}

/* Parts of the dynamic shared memory, one after the other. */
struct room {
  char *next;
  template <typename T>
  __device__ T *take(int count) {
    T *part = (T *)next;
    next += (count * sizeof(T) + 15) / 16 * 16;
    return part;
  }
};
