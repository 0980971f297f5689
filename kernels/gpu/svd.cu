/* The thin singular value decomposition of small matrices with no fewer rows than columns, a block for each.

   Householder reflections from both sides bring A to a real bidiagonal form; the products U, of the left ones, takes
   A's place, and V has one of its own. Implicit QR steps on the form, each a chain of rotations of two neighbouring
   columns of V and of U, make it diagonal. Where a block works on one matrix, one warp follows the form, a step ahead
   of the threads that turn the rows of U and V. Singular values are accurate to rounding relative to the largest.
   Source: Golub and Van Loan, Matrix Computations, sections 5.4.8 and 8.6.3; Demmel and Kahan, "Accurate singular
   values of bidiagonal matrices", 1990 (the step without shift, which a vanishing diagonal entry wants). */

#include "dense.cuh"

/* Of several warps the last follows the bidiagonal form alone. */
#define FOLLOWS (warp() == WARPS - 1)
#define TURNERS (ONE_WARP ? LANES : THREADS - LANES)

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

/* The smaller singular value of ((f, g), (0, h)). */
__device__ inline real smaller_value(real f, real g, real h) {
  f = fabs(f), g = fabs(g), h = fabs(h);
  const real least = fmin(f, h), most = fmax(f, h);
  if (least == 0) return 0;
  const real sum = 1 + quotient(least, most), difference = quotient(most - least, most);
  if (g < most) {
    const real ratio = quotient(g, most), squared = ratio * ratio;
    return quotient(least * 2, root(sum * sum + squared) + root(difference * difference + squared));
  }
  const real ratio = quotient(most, g), high = sum * ratio, low = difference * ratio;
  return 2 * quotient(least, root(1 + high * high) + root(1 + low * low)) * ratio;
}

/* Rows of the form that an implicit QR step works on; first is -1 where it is diagonal. */
struct part {
  int first, last, singular; /* singular: a diagonal entry vanishes */
};

/* The next part, by the lanes of a warp; all behind `high` is settled. */
__device__ inline part next_part(const real *d, const real *e, real negligible, int *high) {
  int low = 0;
  for (; *high > 0; --*high) {
    for (int base = *high - 1, found = -1; found < 0; base -= LANES) {
      const int i = base - lane();
      found = first_true(i < 0 || fabs(e[i < 0 ? 0 : i]) <= negligible);
      low = base - found + 1;
    }
    if (low < *high) break;
  }
  if (*high == 0) return {-1, -1, 0};
  bool singular = false;
  for (int i = low + lane(); i <= *high; i += LANES) singular = singular || fabs(d[i]) <= negligible;
  return {low, *high, first_true(singular) >= 0};
}

/* The rotations of a step on a part, of columns i and i + 1 for i from its first up to its last row. By one thread. */
__device__ inline void step(real *d, real *e, pair *turns, part rows) {
  const int low = rows.first, last = rows.last;
  const real first = d[low];
  real f = first;
  if (!rows.singular) {
    const real shift = smaller_value(d[last - 1], e[last - 1], d[last]), ratio = quotient(shift, first);
    if (ratio * ratio > limits::eps) f = (fabs(first) - shift) * ((first < 0 ? -1 : 1) + ratio);
  }
  real g = e[low], here = first, edge = e[low];
  for (int i = low; i < last; i++) {
    const real next = d[i + 1], next_edge = e[i + 1];
    pair by;
    const real before = rotate(f, g, &by.right);
    if (i > low) e[i - 1] = before;
    f = by.right.c * here + by.right.s * edge;
    edge = by.right.c * edge - by.right.s * here;
    g = by.right.s * next;
    here = by.right.c * next;
    d[i] = rotate(f, g, &by.left);
    f = by.left.c * edge + by.left.s * here;
    here = by.left.c * here - by.left.s * edge;
    g = by.left.s * next_edge;
    edge = by.left.c * next_edge;
    turns[i] = by;
  }
  e[last - 1] = f;
  d[last] = here;
}

/* (x, y) to c x + s y, which is returned, and c y - s x, in the place of x. */
__device__ inline number turn(rotation by, number *x, number y) {
  const number first = of(by.c * re(*x) + by.s * re(y), by.c * im(*x) + by.s * im(y));
  *x = of(by.c * re(y) - by.s * re(*x), by.c * im(y) - by.s * im(*x));
  return first;
}

/* One row of U, or of V: `turns` begin with the left or the right rotation of a pair. */
__device__ inline void turn_row(number *row, int ld, const rotation *turns, part rows) {
  number x = row[rows.first * ld];
  for (int i = rows.first; i < rows.last; i++) row[i * ld] = turn(turns[2 * i], &x, row[(i + 1) * ld]);
  row[rows.last * ld] = x;
}

/* A row of U and one of V. */
__device__ inline void turn_rows(number *u, int ld, number *v, int ldv, const pair *turns, part rows) {
  number x = u[rows.first * ld], y = v[rows.first * ldv];
  for (int i = rows.first; i < rows.last; i++) {
    const pair by = turns[i];
    u[i * ld] = turn(by.left, &x, u[(i + 1) * ld]);
    v[i * ldv] = turn(by.right, &y, v[(i + 1) * ldv]);
  }
  u[rows.last * ld] = x, v[rows.last * ldv] = y;
}

/* The rows of U and V, in pairs where there are not threads for each. */
__device__ inline void turn_all(int m, int n, number *U, int ld, number *V, int ldv, const pair *turns, part rows) {
  const rotation *left = &turns->left, *right = &turns->right;
  if (TURNERS < m + n) {
    for (int row = thread(); row < n; row += TURNERS) turn_rows(U + row, ld, V + row, ldv, turns, rows);
    for (int row = n + thread(); row < m; row += TURNERS) turn_row(U + row, ld, left, rows);
  } else {
    for (int row = thread(); row < m + n; row += TURNERS)
      turn_row(row < m ? U + row : V + row - m, row < m ? ld : ldv, row < m ? left : right, rows);
  }
}

/* `wide`: matrices (batch, n, m) whose adjoints are meant, so that U and V change places.
   matrices (batch, m, n) to U (batch, m, n), S (batch, n), descending, and Vh (batch, n, n). With `workspace`
   (batch, n, ld + ldv) the matrices are kept there, else on chip. failed: 1 NaN or infinity, 2 not settled. */
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    svd_kernel(const number *matrices, number *U_out, real *S_out, number *Vh_out, number *workspace, int *failed,
               int batch, int bytes, int m, int n, int ld, int ldv, int wide, int vectors) {
  extern __shared__ __align__(16) char shared[];
  const int place_here = ONE_WARP ? threadIdx.x / LANES : 0;
  const size_t place = (size_t)blockIdx.x * MATRICES + place_here;
  if (place >= batch) return;
  room chip = {shared + place_here * bytes};
#if ON_CHIP
  number *A = chip.take<number>(n * ld), *V = vectors ? chip.take<number>(n * ldv) : nullptr;
#else
  number *A = workspace + place * n * (ld + ldv), *V = vectors ? A + (size_t)n * ld : nullptr;
#endif
  number *v = chip.take<number>(m), *left = chip.take<number>(n), *right = chip.take<number>(n);
  pair *turns = chip.take<pair>(ONE_WARP ? n : 2 * n);
  real *d = chip.take<real>(n), *e = chip.take<real>(n + 1), *scratch = chip.take<real>(2 * WARPS);
  int *order = chip.take<int>(n);
  part *parts = chip.take<part>(2);

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
  int high = n - 1, count = 0;
#if GROUP
  for (;; count++) {
    const part rows = count < 60 * n ? next_part(d, e, negligible, &high) : part{-1, -1, 0};
    if (lane() == 0) *parts = rows;
    if (!__syncthreads_or(rows.first >= 0)) break;
    const int other = threadIdx.x, apart = (other - place_here) * bytes;
    if (other < MATRICES && blockIdx.x * MATRICES + other < batch && of_matrix(parts, apart)->first >= 0)
      step(of_matrix(d, apart), of_matrix(e, apart), of_matrix(turns, apart), *of_matrix(parts, apart));
    __syncthreads();
    if (vectors && rows.first >= 0) turn_all(m, n, A, ld, V, ldv, turns, rows);
    sync_lanes();
  }
#else
  for (int now = 0;; now ^= 1) {
    if (FOLLOWS) {
      const part rows = next_part(d, e, negligible, &high);
      if (lane() == 0) parts[now] = rows;
      if (lane() == 0 && rows.first >= 0) step(d, e, turns + now * n, rows);
      sync_lanes();
    } else if (vectors && count > 0) {
      turn_all(m, n, A, ld, V, ldv, turns + (now ^ 1) * n, parts[now ^ 1]);
    }
    sync();
    if (parts[now].first < 0 || ++count > 60 * n) break;
  }
#endif
  if (high > 0 && lane() == 0 && FOLLOWS) *failed = NOT_SETTLED;

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
