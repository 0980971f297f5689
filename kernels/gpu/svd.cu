/* The thin singular value decomposition of small matrices with no fewer rows than columns, a block for each.

   Householder reflections from both sides bring A to a real bidiagonal form; the products U, of the left ones, takes
   A's place, and V has one of its own. Implicit QR steps on the form, each a chain of rotations of two neighbouring
   columns of V and of U, make it diagonal. One warp follows the form (`sweep`), a sweep ahead of the threads that turn
   the rows of U and V. Singular values are accurate to rounding relative to the largest.
   Source: Golub and Van Loan, Matrix Computations, sections 5.4.8 and 8.6.3; Demmel and Kahan, "Accurate singular
   values of bidiagonal matrices", 1990 (the step without shift, which a vanishing diagonal entry wants). */

#include "dense.cuh"

#define FOLLOWS (WARPS == 1 || warp() == WARPS - 1)
#define TURNERS (WARPS == 1 ? 32 : THREADS - 32)

struct pair {
  rotation right, left;
};

__device__ inline void bidiagonalise(int m, int n, number *A, int ld, number *V, int ldv, real *d, real *e,
                                     number *left, number *right, number *v, real *scratch) {
  for (int k = 0; k < n; k++) {
    number *corner = A + k * ld + k, tau;
    const int rows = m - k, columns = n - k - 1;
    for (int i = thread(); i < rows; i += THREADS) v[i] = corner[i];
    sync();
    const real diagonal = reflector(rows, v, &tau, scratch);
    if (thread() == 0) d[k] = diagonal, left[k] = tau;
    if (!is_zero(tau)) {
      for (int i = thread(); i < rows; i += THREADS) corner[i] = v[i];
      reflect_columns(corner + ld, ld, rows, columns, v, conj(tau));
    }
    sync();
    if (columns == 0) break;
    for (int j = thread(); j < columns; j += THREADS) v[j] = conj(corner[(j + 1) * ld]);
    sync();
    const real edge = reflector(columns, v, &tau, scratch);
    if (thread() == 0) e[k] = edge, right[k] = tau;
    if (!is_zero(tau)) {
#if VECTORS
      for (int j = thread(); j < columns; j += THREADS) V[k * ldv + k + 1 + j] = v[j];
#endif
      for (int i = 1 + thread(); i < rows; i += THREADS) {
        number sum = of(0, 0), *row = corner + ld + i;
        for (int j = 0; j < columns; j++) sum = plus_times(sum, row[j * ld], v[j]);
        sum = plus_times(of(0, 0), minus(tau), sum);
        for (int j = 0; j < columns; j++) row[j * ld] = plus_times(row[j * ld], sum, conj(v[j]));
      }
    }
    sync();
  }
}

/* The smaller singular value of ((f, g), (0, h)). */
__device__ inline real smaller_value(real f, real g, real h) {
  f = fabs(f), g = fabs(g), h = fabs(h);
  const real least = fmin(f, h), most = fmax(f, h);
  if (least == 0) return 0;
  const real sum = 1 + least / most, difference = (most - least) / most;
  if (g < most) {
    const real ratio = g / most, squared = ratio * ratio;
    return least * 2 / (sqrt(sum * sum + squared) + sqrt(difference * difference + squared));
  }
  const real ratio = most / g, high = sum * ratio, low = difference * ratio;
  return 2 * (least / (sqrt(1 + high * high) + sqrt(1 + low * low))) * ratio;
}

/* The next rotations of an implicit QR step, of columns i and i + 1 for i from start up to stop - 1; start < 0: done.
   By one warp. */
__device__ inline void sweep(real *d, real *e, real negligible, int *high, pair *turns, int2 *range) {
  int low = 0;
  for (; *high > 0; --*high) {
    for (int base = *high - 1;; base -= 32) {
      const int i = base - lane();
      const unsigned ends = __ballot_sync(EVERY, i < 0 || fabs(e[i < 0 ? 0 : i]) <= negligible);
      low = base - __ffs(ends) + 2;
      if (ends) break;
    }
    if (low < *high) break;
  }
  const int last = *high;
  if (last == 0) {
    if (lane() == 0) *range = make_int2(-1, -1);
    __syncwarp();
    return;
  }
  bool singular = false;
  for (int i = low + lane(); i <= last; i += 32) singular = singular || fabs(d[i]) <= negligible;
  singular = __any_sync(EVERY, singular);
  if (lane() == 0) {
    const real first = d[low];
    real f = first;
    if (!singular) {
      const real shift = smaller_value(d[last - 1], e[last - 1], d[last]), ratio = shift / first;
      if (ratio * ratio > limits::eps) f = (fabs(first) - shift) * ((first < 0 ? -1 : 1) + ratio);
    }
    real g = e[low], here = first, edge = e[low];
    for (int i = low; i < last; i++) {
      const real next = d[i + 1], next_edge = e[i + 1];
      pair turn;
      const real before = rotate(f, g, &turn.right);
      if (i > low) e[i - 1] = before;
      f = turn.right.c * here + turn.right.s * edge;
      edge = turn.right.c * edge - turn.right.s * here;
      g = turn.right.s * next;
      here = turn.right.c * next;
      d[i] = rotate(f, g, &turn.left);
      f = turn.left.c * edge + turn.left.s * here;
      here = turn.left.c * here - turn.left.s * edge;
      g = turn.left.s * next_edge;
      edge = turn.left.c * next_edge;
      turns[i] = turn;
    }
    e[last - 1] = f;
    d[last] = here;
    *range = make_int2(low, last);
  }
  __syncwarp();
}

/* One row of V, or of U, whose rotations lie `sizeof(pair)` apart. */
__device__ inline void turn_row(number *row, int ld, const pair *turns, bool left, int2 range) {
  number x = row[range.x * ld];
  for (int i = range.x; i < range.y; i++) {
    const rotation turn = left ? turns[i].left : turns[i].right;
    const number y = row[(i + 1) * ld];
    row[i * ld] = of(turn.c * re(x) + turn.s * re(y), turn.c * im(x) + turn.s * im(y));
    x = of(turn.c * re(y) - turn.s * re(x), turn.c * im(y) - turn.s * im(x));
  }
  row[range.y * ld] = x;
}

/* `wide`: matrices (batch, n, m) whose adjoints are meant, so that U and V change places.
   matrices (batch, m, n) to U (batch, m, n), S (batch, n), descending, and Vh (batch, n, n). With `workspace`
   (batch, n, ld + ldv) the matrices are kept there, else on chip. failed: 1 NaN or infinity, 2 not settled. */
extern "C" __global__ void __launch_bounds__(THREADS)
    svd_kernel(const number *matrices, number *U_out, real *S_out, number *Vh_out, number *workspace, int *failed,
               int m, int n, int ld, int ldv, int wide) {
  extern __shared__ __align__(16) char shared[];
  room chip = {shared};
  const size_t place = blockIdx.x;
#if ON_CHIP
  number *A = chip.take<number>(n * ld), *V = chip.take<number>(VECTORS ? n * ldv : 0);
#else
  number *A = workspace + place * n * (ld + ldv), *V = A + (size_t)n * ld;
#endif
  number *v = chip.take<number>(m), *left = chip.take<number>(n), *right = chip.take<number>(n);
  pair *turns = chip.take<pair>(2 * n);
  real *d = chip.take<real>(n), *e = chip.take<real>(n + 1), *scratch = chip.take<real>(2 * WARPS);
  int *order = chip.take<int>(n);
  int2 *range = chip.take<int2>(2);

  const size_t size = (size_t)m * n;
  const number *matrix = matrices + place * size;
  real largest = 0;
  bool finite = true;
  for (int index = thread(); index < size; index += THREADS) {
    const number x = matrix[index];
    finite = finite && fabs(re(x)) <= limits::largest && fabs(im(x)) <= limits::largest;
    largest = fmax(largest, larger_part(x));
    if (wide)
      A[index / m * ld + index % m] = conj(x);
    else
      A[index % n * ld + index / n] = x;
  }
  if (block_max(!finite, scratch) > 0) {
    if (thread() == 0) atomicOr(failed, 1);
    return;
  }
  largest = block_max(largest, scratch);
  const int exponent = largest > 0 ? ilogb(largest) + 1 : 0;
  sync();
  for (int index = thread(); index < size; index += THREADS) {
    number *x = A + index / m * ld + index % m;
    *x = of(scalbn(re(*x), -exponent), scalbn(im(*x), -exponent));
  }
  sync();

  bidiagonalise(m, n, A, ld, V, ldv, d, e, left, right, v, scratch);
#if VECTORS
  form(A, ld, m, n, 0, left, v);
  form(V, ldv, n, n, 1, right, v);
#endif
  real norm = 0;
  for (int i = thread(); i < n; i += THREADS) norm = fmax(norm, fabs(d[i]) + (i < n - 1 ? fabs(e[i]) : 0));
  norm = block_max(norm, scratch);
  int high = n - 1, count = 0;
  for (int now = 0;; now ^= 1) {
    if (FOLLOWS) sweep(d, e, limits::eps * norm, &high, turns + now * n, range + now);
#if VECTORS
    if (count > 0 && (WARPS == 1 || !FOLLOWS)) {
      const pair *before = turns + (now ^ 1) * n;
      for (int row = thread(); row < m + n; row += TURNERS) {
        const bool of_U = row < m;
        turn_row(of_U ? A + row : V + row - m, of_U ? ld : ldv, before, of_U, range[now ^ 1]);
      }
    }
#endif
    sync();
    if (range[now].x < 0) break;
    if (++count > 60 * n) {
      if (thread() == 0) atomicOr(failed, 2);
      break;
    }
  }

  for (int i = thread(); i < n; i += THREADS) e[i] = fabs(d[i]);
  sync();
  sort(n, e, true, order);
  for (int i = thread(); i < n; i += THREADS) S_out[place * n + i] = scalbn(e[order[i]], exponent);
#if VECTORS
  number *tall = (wide ? Vh_out : U_out) + place * size, *small = (wide ? U_out : Vh_out) + place * n * n;
  for (int index = thread(); index < size; index += THREADS) {
    if (wide)
      tall[index] = conj(A[order[index / m] * ld + index % m]);
    else
      tall[index] = A[order[index % n] * ld + index / n];
  }
  for (int index = thread(); index < n * n; index += THREADS) {
    const int row = wide ? index / n : index % n, c = order[wide ? index % n : index / n];
    const number x = d[c] < 0 ? minus(V[c * ldv + row]) : V[c * ldv + row];
    small[index] = wide ? x : conj(x);
  }
#endif
}
