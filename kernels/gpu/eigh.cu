/* Eigenvalues and eigenvectors of small Hermitian matrices, a block for each.

   Householder reflections bring A to a real tridiagonal form, their product Q takes A's place, and implicit QL with
   Wilkinson's shift turns the columns of Q until the form is diagonal. Where a block works on one matrix, one warp
   follows the form, a step ahead of the threads that turn the rows of Q. Eigenvalues are accurate to rounding relative to the norm.
   Source: Golub and Van Loan, Matrix Computations, sections 8.3.1 and 8.3.3. */

#include "dense.cuh"

/* Defined from outside too where a matrix fills the lanes of a warp that work on it: its ORDER, a constant then. */
#ifdef ORDER
#define KNOWN(given, constant) (constant)
#else
#define KNOWN(given, constant) (given)
#endif

/* Of several warps the last follows the tridiagonal form alone. */
#define FOLLOWS (warp() == WARPS - 1)
#define TURNERS (THREADS - LANES)

__device__ inline void tridiagonalise(
    int n, number *A, int ld, real *d, real *e, number *taus, number *v, number *w, real *scratch) {
  for (int k = 0; k < n - 1; k++) {
    const int count = n - k - 1;
    number *block = A + (k + 1) * ld + k + 1, tau;
    for (int i = thread(); i < count; i += THREADS) v[i] = A[k * ld + k + 1 + i];
    if (thread() == 0) d[k] = re(A[k * ld + k]);
    sync();
    const real beta = reflector(count, v, &tau, scratch);
    if (thread() == 0) e[k] = beta, taus[k] = tau;
    if (is_zero(tau)) {
      sync();
      continue;
    }
    number inner = of(0, 0);
    for (int i = thread(); i < count; i += THREADS) {
      number sum = of(0, 0);
      for (int j = 0; j < count; j++) sum = plus_times(sum, block[j * ld + i], v[j]);
      sum = plus_times(of(0, 0), tau, sum);
      inner = plus_times(inner, conj(sum), v[i]);
      w[i] = sum;
      A[k * ld + k + 1 + i] = v[i];
    }
    inner = block_sum_of(inner, scratch);
    const number half = plus_times(of(0, 0), times((real)-0.5, tau), inner);
    for (int i = thread(); i < count; i += THREADS) w[i] = plus_times(w[i], half, v[i]);
    sync();
    for (int i = thread(); i < count; i += THREADS) {
      const number v_i = minus(v[i]), w_i = minus(w[i]);
      for (int j = 0; j < count; j++) {
        const number x = plus_times(block[j * ld + i], v_i, conj(w[j]));
        block[j * ld + i] = plus_times(x, w_i, conj(v[j]));
      }
    }
    sync();
  }
  if (thread() == 0) d[n - 1] = re(A[(n - 1) * ld + n - 1]);
  sync();
}

/* The first and the last row of the part of the form that implicit QL works on next; -1: it is diagonal. By the lanes
   of a warp; all before `low` is settled. */
__device__ inline int2 next_part(int n, const real *e, real negligible, int *low) {
  for (; *low < n - 1; ++*low) {
    int high = 0;
    for (int base = *low, found = -1; found < 0; base += LANES) {
      const int i = base + lane();
      found = first_true(i >= n - 1 || fabs(e[i < n - 1 ? i : n - 1]) <= negligible);
      high = base + found;
    }
    if (high > *low) return make_int2(*low, high);
  }
  return make_int2(-1, -1);
}

/* The rotations of a step on the part `range`, of columns i and i + 1 for i from stop - 1 down to start, which it then
   holds. By one thread. */
__device__ inline void step(int n, real *d, real *e, rotation *turns, int2 *range) {
  const int first = range->x, high = range->y;
  const real half_gap = quotient(d[first + 1] - d[first], 2 * e[first]);
  const real slope = root(half_gap * half_gap + 1);
  real bulge = d[high] - d[first] + quotient(e[first], half_gap + (half_gap < 0 ? -slope : slope));
  real c = 1, s = 1, shift = 0, upper = d[high], edge = e[high - 1], lower = d[high - 1];
  int i = high - 1;
  for (; i >= first; i--) {
    const real next_edge = e[i > 0 ? i - 1 : 0], next_lower = d[i > 0 ? i - 1 : 0];
    const real across = s * edge, along = c * edge;
    if (across * across + bulge * bulge < limits::vanishing) break;
    rotation turn;
    e[i + 1] = rotate(bulge, across, &turn);
    c = turn.c, s = turn.s;
    turns[i] = turn;
    const real base = upper - shift, turned = (lower - base) * s + 2 * c * along;
    shift = s * turned;
    d[i + 1] = base + shift;
    bulge = c * turned - along;
    upper = lower, lower = next_lower, edge = next_edge;
  }
  if (i >= first) {
    e[i + 1] = 0;
    d[i + 1] = upper - shift;
  } else {
    d[first] = upper - shift;
    e[first] = bulge;
  }
  if (high < n - 1) e[high] = 0;
  range->x = i + 1;
}

__device__ inline void turn_row(number *row, int ld, const rotation *turns, int2 range) {
  number x = row[range.y * ld];
  for (int i = range.y - 1; i >= range.x; i--) {
    const rotation turn = turns[i];
    const number y = row[i * ld];
    row[(i + 1) * ld] = of(turn.s * re(y) + turn.c * re(x), turn.s * im(y) + turn.c * im(x));
    x = of(turn.c * re(y) - turn.s * re(x), turn.c * im(y) - turn.s * im(x));
  }
  row[range.x * ld] = x;
}

/* matrices (batch, n, n), of which the lower triangles count, to vectors (batch, n, n) and values (batch, n). With
   `workspace` (batch, n, ld) the matrices are kept there, else on chip. failed: 1 NaN or infinity, 2 not settled. */
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    eigh_kernel(const number *matrices, number *vectors, real *values, number *workspace, int *failed, int batch,
                int bytes, int order_given, int ld_given) {
  const int n = KNOWN(order_given, ORDER), ld = KNOWN(ld_given, ORDER | 1);
  extern __shared__ __align__(16) char shared[];
  const int place_here = ONE_WARP ? threadIdx.x / LANES : 0;
  const size_t place = (size_t)blockIdx.x * MATRICES + place_here;
  if (place >= batch) return;
  room chip = {shared + place_here * bytes};
#if ON_CHIP
  number *A = chip.take<number>(n * ld);
#else
  number *A = workspace + place * n * ld;
#endif
  number *v = chip.take<number>(n), *w = chip.take<number>(n), *taus = chip.take<number>(n);
  rotation *turns = chip.take<rotation>(ONE_WARP ? n : 2 * n);
  real *d = chip.take<real>(n), *e = chip.take<real>(n), *scratch = chip.take<real>(2 * WARPS);
  int *order = chip.take<int>(n);
  int2 *range = chip.take<int2>(2);

  const number *matrix = matrices + place * n * n;
  real largest = 0;
  FOR_ENTRIES(i, n, j, n) {
    const number entry = matrix[i * n + j], x = i == j ? of(re(entry), 0) : entry;
    largest = fmax(largest, fmax(size_of(entry, false), size_of(x, i >= j)));
    if (i < j) continue;
    A[j * ld + i] = x;
    A[i * ld + j] = conj(x);
  }
  const int exponent = scale_down(A, ld, n, n, largest, scratch, failed);

  tridiagonalise(n, A, ld, d, e, taus, v, w, scratch);
  form(A, ld, n, n, 1, taus, v);
  real size = 0;
  for (int i = thread(); i < n; i += THREADS) size = fmax(size, fabs(d[i]) + (i < n - 1 ? fabs(e[i]) : 0));
  size = block_max(size, scratch);
  const real negligible = limits::eps * size;
  int low = 0, count = 0;
#if GROUP
  for (;; count++) {
    const int2 part = count < 60 * n ? next_part(n, e, negligible, &low) : make_int2(-1, -1);
    if (lane() == 0) *range = part;
    if (!__syncthreads_or(part.x >= 0)) break;
    const int other = threadIdx.x, apart = (other - place_here) * bytes;
    if (other < MATRICES && blockIdx.x * MATRICES + other < batch && of_matrix(range, apart)->x >= 0)
      step(n, of_matrix(d, apart), of_matrix(e, apart), of_matrix(turns, apart), of_matrix(range, apart));
    __syncthreads();
    for (int row = thread(); part.x >= 0 && row < n; row += LANES) turn_row(A + row, ld, turns, *range);
    sync_lanes();
  }
#else
  for (int now = 0;; now ^= 1) {
    if (FOLLOWS) {
      const int2 part = next_part(n, e, negligible, &low);
      if (lane() == 0) range[now] = part;
      sync_lanes();
      if (lane() == 0 && part.x >= 0) step(n, d, e, turns + now * n, range + now);
      sync_lanes();
    } else if (count > 0) {
      for (int row = thread(); row < n; row += TURNERS) turn_row(A + row, ld, turns + (now ^ 1) * n, range[now ^ 1]);
    }
    sync();
    if (range[now].x < 0 || ++count > 60 * n) break;
  }
#endif
  if (low < n - 1 && lane() == 0 && FOLLOWS) *failed = NOT_SETTLED;

  const power up(exponent);
  sort(n, d, false, order);
  for (int i = thread(); i < n; i += THREADS) values[place * n + i] = up.of_real(d[order[i]]);
  FOR_ENTRIES(i, n, j, n) vectors[(place * n + i) * n + j] = A[order[j] * ld + i];
}
