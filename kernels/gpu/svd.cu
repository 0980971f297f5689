/* The thin singular value decomposition of small matrices with no fewer rows than columns, a block for each.

   Householder reflections from both sides bring A to a real bidiagonal form; the product U of the left ones takes
   A's place, and V has one of its own. Implicit QR steps on the form, each a chain of rotations of two neighbouring
   columns of V and of U, make it diagonal: the last warp follows the form, a step ahead of the threads that turn the
   rows of U and V. Singular values are accurate to rounding relative to the largest. Matrices that fit a warp are
   small_svd.cu's.
   Source: Golub and Van Loan, Matrix Computations, sections 5.4.8 and 8.6.3. */

#include "bidiagonal.cuh"

#define TURNERS (THREADS - LANES)

struct alignas(4 * sizeof(real)) pair {
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
      for (int j = thread(); V && j < columns; j += THREADS) V[k * ldv + k + 1 + j] = v[j];
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

/* (x, y) to c x + s y, which is returned, and c y - s x, in the place of x. */
__device__ inline number turn(rotation by, number *x, number y) {
  const number first = of(by.c * re(*x) + by.s * re(y), by.c * im(*x) + by.s * im(y));
  *x = of(by.c * re(y) - by.s * re(*x), by.c * im(y) - by.s * im(*x));
  return first;
}

/* One row of U, or of V: `turns` begin with the left or the right rotation of a pair. turned: the columns. */
__device__ inline void turn_row(number *row, int ld, const rotation *turns, int2 turned) {
  number x = row[turned.x * ld];
  for (int i = turned.x; i < turned.y; i++) row[i * ld] = turn(turns[2 * i], &x, row[(i + 1) * ld]);
  row[turned.y * ld] = x;
}

/* A row of U and one of V. */
__device__ inline void turn_rows(number *u, int ld, number *v, int ldv, const pair *turns, int2 turned) {
  number x = u[turned.x * ld], y = v[turned.x * ldv];
  for (int i = turned.x; i < turned.y; i++) {
    const pair by = turns[i];
    u[i * ld] = turn(by.left, &x, u[(i + 1) * ld]);
    v[i * ldv] = turn(by.right, &y, v[(i + 1) * ldv]);
  }
  u[turned.y * ld] = x, v[turned.y * ldv] = y;
}

/* The rows of U and V, in pairs where there are not threads for each. */
__device__ inline void turn_all(int m, int n, number *U, int ld, number *V, int ldv, const pair *turns, int2 turned) {
  const rotation *left = &turns->left, *right = &turns->right;
  if (TURNERS < m + n) {
    for (int row = thread(); row < n; row += TURNERS) turn_rows(U + row, ld, V + row, ldv, turns, turned);
    for (int row = n + thread(); row < m; row += TURNERS) turn_row(U + row, ld, left, turned);
  } else {
    for (int row = thread(); row < m + n; row += TURNERS)
      turn_row(row < m ? U + row : V + row - m, row < m ? ld : ldv, row < m ? left : right, turned);
  }
}

/* `wide`: matrices (batch, n, m) whose adjoints are meant, so that U and V change places.
   matrices (batch, m, n) to U (batch, m, n), S (batch, n), descending, and Vh (batch, n, n). With `workspace`
   (batch, n, ld + ldv) the matrices are kept there, else on chip. failed: 1 NaN or infinity, 2 not settled. */
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    svd_kernel(const number *matrices, number *U_out, real *S_out, number *Vh_out, number *workspace, int *failed,
               int, int, int m, int n, int ld, int ldv, int wide, int vectors) {
  extern __shared__ __align__(16) char shared[];
  const size_t place = blockIdx.x;
  room chip = {shared};
#if ON_CHIP
  number *A = chip.take<number>(n * ld), *V = vectors ? chip.take<number>(n * ldv) : nullptr;
#else
  number *A = workspace + place * n * (ld + ldv), *V = vectors ? A + (size_t)n * ld : nullptr;
#endif
  number *v = chip.take<number>(m), *left = chip.take<number>(n), *right = chip.take<number>(n);
  pair *turns = chip.take<pair>(2 * n);
  real *d = chip.take<real>(n), *e = chip.take<real>(n + 1) + 1, *scratch = chip.take<real>(2 * WARPS);
  int *order = chip.take<int>(n);
  int2 *turned = chip.take<int2>(2);

  const size_t size = (size_t)m * n;
  const number *matrix = matrices + place * size;
  real largest = 0;
  FOR_ENTRIES(i, (wide ? n : m), j, (wide ? m : n)) {
    const number x = matrix[(size_t)i * (wide ? m : n) + j];
    largest = fmax(largest, size_of(x, true));
    if (wide)
      A[i * ld + j] = conj(x);
    else
      A[j * ld + i] = x;
  }
  const int exponent = scale_down(A, ld, m, n, largest, scratch, failed);

  bidiagonalise(m, n, A, ld, V, ldv, d, e, left, right, v, scratch);
  if (vectors) {
    form(A, ld, m, n, 0, left, v);
    form(V, ldv, n, n, 1, right, v);
  }
  real norm = 0;
  for (int i = thread(); i < n; i += THREADS) norm = fmax(norm, fabs(d[i]) + (i < n - 1 ? fabs(e[i]) : 0));
  norm = block_max(norm, scratch);
  const real negligible = limits::eps * norm;
  const bool follows = thread() == THREADS - 1;
  part rows = {n - 1, n - 1, 0};
  for (int now = 0, count = 0;; now ^= 1) {
    if (follows) {
      const bool more = find_part<1>(d, e, negligible, &rows);
      turned[now] = more ? make_int2(rows.low, rows.high) : make_int2(-1, -1);
      pair *next = turns + now * n;
      if (more)
        step<1>(d, e, negligible, &rows, [&](int i, rotation right, rotation left) { next[i] = {right, left}; });
    } else if (vectors && count > 0 && thread() < TURNERS) {
      turn_all(m, n, A, ld, V, ldv, turns + (now ^ 1) * n, turned[now ^ 1]);
    }
    sync();
    if (turned[now].x < 0 || ++count > 60 * n) break;
  }
  if (follows && rows.high > 0) *failed = NOT_SETTLED;

  for (int i = thread(); i < n; i += THREADS) e[i] = fabs(d[i]);
  sync();
  const power up(exponent);
  sort(n, e, true, order);
  for (int i = thread(); i < n; i += THREADS) S_out[place * n + i] = up.of_real(e[order[i]]);
  if (!vectors) return;
  if (wide) {
    FOR_ENTRIES(i, n, j, n) {
      const int c = order[j];
      U_out[(place * n + i) * n + j] = d[c] < 0 ? minus(V[c * ldv + i]) : V[c * ldv + i];
    }
    FOR_ENTRIES(i, n, j, m) Vh_out[(place * n + i) * m + j] = conj(A[order[i] * ld + j]);
  } else {
    FOR_ENTRIES(i, m, j, n) U_out[(place * m + i) * n + j] = A[order[j] * ld + i];
    FOR_ENTRIES(i, n, j, n) {
      const int c = order[i];
      Vh_out[(place * n + i) * n + j] = conj(d[c] < 0 ? minus(V[c * ldv + j]) : V[c * ldv + j]);
    }
  }
}
