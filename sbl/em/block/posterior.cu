/* The posterior of x under given prior variances, a block of threads a problem; the equations are those of
   kronecker_posterior.py, in double precision. */

#include "block.cuh"
#include "kept.cuh"
#include "jacobi.cuh"
#include "e_step.cuh"

/* The kept columns' tensor to that of all columns, in device memory. */
template <typename T>
struct PutInWhole {
  const Layout &at;
  T *whole;
  void operator()(int index, T value) const {
    int64_t place = 0, step = 1;
#pragma unroll 1
    for (int i = I - 1; i >= 0; i--) {
      const int rest = index / factor[i].n;
      place += step * integer_at(at.position[i], index - rest * factor[i].n);
      step *= factor[i].N, index = rest;
    }
    whole[place] = value;
  }
};

/* mean, variance: (problems, N_1 ... N_I), zero where g is; residual: ||y - A mean||^2, not a number where an
   eigendecomposition is not finite. */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
em_posterior(const __grid_constant__ Call call, number *mean, real *variance, real *residual) {
  const int64_t b = blockIdx.x;
  const real noise = call.noise_variance[b];
  begin(call, b, 0);
  const Layout &at = layout;
  int64_t N = 1;
  EVERY_FACTOR(i) N *= factor[i].N;
  Fit fit;
  const int z = project(call, at, b, noise, &fit);
  if (threadIdx.x == 0) residual[b] = z ? fit.residual : 0 * INFINITY;
  if (!z) return;
  __syncthreads();
  apply<EXPAND, number>(at, z, at.one + at.two - z, PutInWhole<number>{at, mean + b * N});
  variance_core(at, noise);
  apply<SPREAD, real>(at, at.one, at.two, PutInWhole<real>{at, variance + b * N});
}
