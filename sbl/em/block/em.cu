/* Expectation-maximisation of Kronecker-structured priors on a GPU: a block of threads a problem, whose state stays in
   shared memory from the first iteration to the last.

   The loop is that of em.c, whose equations are those of loop.py, in double precision. Eigenvectors come from Jacobi
   rotations that begin at those of the last iteration. A problem that has lost most of its columns leaves, to be
   continued by another launch with smaller blocks, of which more fit. */

#include "block.cuh"
#include "../nonnegative.h"
#include "kept.cuh"
#include "jacobi.cuh"
#include "e_step.cuh"
#include "m_steps.cuh"

#define RISE 1e-6 /* as in loop.py */

/* From where call.g, call.iterations, call.noise_variance and `costs`, the lowest so far, are, to the end or until the
   state takes no more than `room` real numbers. */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
em_solve(const __grid_constant__ Call call, double *costs, int room) {
  const int64_t b = blockIdx.x;
  int64_t iteration = call.iterations[b];
  if (call.outcome[b] != UNFINISHED || iteration >= call.max_iterations) return;
  begin(call, b, 0);
  const Layout &at = layout;
  int M = 1;
  EVERY_FACTOR(i) M *= factor[i].M;
  int outcome = UNFINISHED;
  real lowest = costs[b], noise = call.noise_variance[b];
  while (iteration < call.max_iterations && outcome == UNFINISHED) {
    prune(call, at, noise);
    Layout smaller;
    if (lay_out(call, smaller) <= room) break;
    EVERY_FACTOR(i)
      if (STEP == BOUND && call.coupled[i])
        EACH(n, factor[i].n) memory[at.g[i] + n] = with_neighbours(at, i, call.beta, at.s[i], n);
    __syncthreads();
    real cost = 0, next = noise;
    int finite = e_step(call, at, b, &next, &cost);
    if (finite) {
      m_step(call, at);
      real nothing[1] = {0};
      EVERY_FACTOR(i) EACH(n, factor[i].n) nothing[0] += 0 * memory[at.fresh[i] + n];
      block_sums(nothing);
      finite = nothing[0] == 0;
    }
    if (!finite) {
      outcome = NOT_FINITE;
      EVERY_FACTOR(i) EACH(n, factor[i].n) memory[at.g[i] + n] = 0;
      break;
    }
    noise = next, lowest = fmin(lowest, cost);
    __syncthreads();
    if (threadIdx.x == 0)
      EVERY_FACTOR(i)
        if (!(memory[at.g[i]] > 0)) memory[at.fresh[i]] = memory[at.s_fresh[i]] = 0;
    __syncthreads();
    const real change = distance(at, 0, 1);
    if (change <= call.tolerance) outcome = cost - lowest > RISE * M ? COST_ROSE : SETTLED;
    take(at.fresh, at.s_fresh, at.g, at.s);
#pragma unroll 1
    for (int i = 0; i < I && outcome != UNFINISHED; i++) {
      real largest = 0;
      for (int n = 0; n < factor[i].n; n++) largest = fmax(largest, memory[at.g[i] + n]);
      if (largest <= 0) outcome = PRUNED;
    }
    if (call.cost) {
      const int64_t row = b * call.max_iterations + iteration;
      if (threadIdx.x == 0) call.cost[row] = cost, call.change[row] = change, call.noise_path[row] = noise;
      EVERY_FACTOR(i) spread(at, i, at.g[i], call.g_path[i] + row * factor[i].N);
    }
    iteration++;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    call.noise_variance[b] = noise, costs[b] = lowest;
    call.iterations[b] = iteration, call.outcome[b] = outcome;
  }
  EVERY_FACTOR(i) {
    spread(at, i, at.g[i], call.g[i] + b * factor[i].N);
    if (call.sources[i]) spread(at, i, at.s[i], call.sources[i] + b * factor[i].N);
  }
}
