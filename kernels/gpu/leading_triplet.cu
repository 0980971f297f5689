/* The leading left singular vector u and A^H u of small wide matrices, a block for each.

   G = A A^H is gathered on chip and squared again and again, G <- G^2 / tr(G^2), which leaves u u^H: after k squarings
   the second eigenvalue counts (l_2 / l_1)^(2^k), and every squaring widens the gap, so that rounding enters mostly at
   the first. It ends when tr(G^2) is 1 at tr(G) = 1; among equal leading eigenvalues any vector will do. The column of
   u u^H at its largest diagonal entry is u with that entry positive.
   Source: Golub and Van Loan, Matrix Computations, section 7.3.1 (power iteration, with its exponents doubled). */

#include "dense.cuh"

enum { CHUNK = 32, WIDTH = CHUNK + 1 };

__device__ inline real trace_of(int m, const number *G, int ld, real *scratch) {
  real sum = 0;
  for (int i = thread(); i < m; i += THREADS) sum += re(G[i * (ld + 1)]);
  return block_sum(sum, scratch);
}

/* The inner product of two rows of `count` numbers, which lie next to one another. */
__device__ inline number inner(int count, const number *x, const number *y) {
  number sum = of(0, 0);
#pragma unroll 4
  for (int k = 0; k < count; k++) sum = plus_times(sum, x[k], conj(y[k]));
  return sum;
}

/* matrices (batch, m, n), scaled near one, to u (batch, m) and A^H u (batch, n). */
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
    leading_vector_kernel(const number *matrices, number *u_out, number *image, int squarings, int m, int n) {
  extern __shared__ __align__(16) char shared[];
  const size_t place = blockIdx.x;
  const int ld = m | 1;
  room chip = {shared};
  number *G = chip.take<number>(m * ld), *next = chip.take<number>(m * ld), *part = chip.take<number>(m * WIDTH);
  number *u = chip.take<number>(m);
  real *scratch = chip.take<real>(2 * WARPS);

  const number *A = matrices + place * m * n;
  for (int item = thread(); item < m * m; item += THREADS) G[item / m * ld + item % m] = of(0, 0);
  for (int first = 0; first < n; first += CHUNK) {
    const int count = n - first < CHUNK ? n - first : CHUNK;
    FOR_ENTRIES(i, m, k, count) part[i * WIDTH + k] = A[(size_t)i * n + first + k];
    sync();
    for (int item = thread(); item < m * m; item += THREADS) {
      const int i = item / m, j = item - i * m;
      const number sum = inner(count, part + i * WIDTH, part + j * WIDTH), before = G[i * ld + j];
      G[i * ld + j] = of(re(before) + re(sum), im(before) + im(sum));
    }
    sync();
  }

  real trace = trace_of(m, G, ld, scratch);
  for (int s = 0; s < squarings && trace < 1 - 4 * limits::eps || s == 0; s++) {
    const real inverse = trace > 0 ? 1 / trace : 0;
    for (int item = thread(); item < m * m; item += THREADS) {
      const int i = item / m, j = item - i * m;
      next[i * ld + j] = times(inverse * inverse, inner(m, G + i * ld, G + j * ld));
    }
    sync();
    number *const last = G;
    G = next, next = last;
    trace = trace_of(m, G, ld, scratch);
  }

  int pivot = 0;
  for (int i = 1; i < m; i++)
    if (re(G[i * (ld + 1)]) > re(G[pivot * (ld + 1)])) pivot = i;
  real length = 0;
  for (int i = thread(); i < m; i += THREADS) length += square(G[i * ld + pivot]);
  length = block_sum(length, scratch);
  const real inverse = length > 0 ? 1 / sqrt(length) : 0;
  for (int i = thread(); i < m; i += THREADS) u_out[place * m + i] = u[i] = times(inverse, G[i * ld + pivot]);
  sync();
  for (int k = thread(); k < n; k += THREADS) {
    number sum = of(0, 0);
    for (int i = 0; i < m; i++) sum = plus_times(sum, u[i], conj(A[(size_t)i * n + k]));
    image[place * n + k] = sum;
  }
}
