/* Expectation-maximisation of Kronecker-structured priors on a GPU: a block of threads a problem, whose state stays in
   shared memory from the first iteration to the last.

   The loop is that of em.c, whose equations are those of loop.py, in double precision. Eigenvectors come from Jacobi
   rotations that begin at those of the last iteration. */

#include "../call.h"

typedef double real;
#ifndef DBL_EPSILON
#define DBL_EPSILON 2.220446049250313e-16
#endif
#ifndef INFINITY
#define INFINITY __longlong_as_double(0x7ff0000000000000LL)
#endif

#include "../fit.h"
#include "../nonnegative.h"
#include "block.cuh"
#include "jacobi.cuh"
#include "e_step.cuh"
#include "m_steps.cuh"

#define RISE 1e-6 /* as in loop.py */

/* Keep the entries of g that are positive, at least `floor` and `ratio` of the largest, or of what is lost in the
   noise if that is less; one, zero, if there is none. See state.prune. */
static __noinline__ void prune(const Call &call, const Layout &at, real noise) {
  real product = 1;
#pragma unroll 1
  const int counts = !isinf(call.negligible) && noise > call.faint;
  for (int i = 0; i < I && counts; i++) {
    real largest = 0;
    EACH_IN_WARP(n, factor[i].n) largest = fmax(largest, memory[at.g[i] + n]);
    product *= warp_max(largest);
  }
  const real lost = counts ? call.negligible * noise * reciprocal(product) : INFINITY;
  __syncthreads();
  EACH_BY_WARP(i, I) {
    Factor &f = factor[i];
    real largest = 0, dropped = 0;
    EACH_IN_WARP(n, f.n) largest = fmax(largest, memory[at.g[i] + n]);
    const real limit = fmax(fmin(call.ratios[i], lost) * warp_max(largest), call.floor);
    EACH_IN_WARP(n, f.n) dropped += !(memory[at.g[i] + n] > 0 && memory[at.g[i] + n] >= limit);
    dropped = warp_sum(dropped);
    if (dropped == 0 || threadIdx.x % WARP != 0) continue;
    int kept = 0;
    for (int n = 0; n < f.n; n++)
      if (memory[at.g[i] + n] > 0 && memory[at.g[i] + n] >= limit) {
        memory[at.g[i] + kept] = memory[at.g[i] + n], memory[at.s[i] + kept] = memory[at.s[i] + n];
        integer_at(at.position[i], kept++) = integer_at(at.position[i], n);
      }
    if (kept == 0) memory[at.s[i]] = memory[at.g[i]] = 0, kept = 1;
    f.n = kept;
  }
  __syncthreads();
}

/* g at its full length, zero where pruned. */
static __noinline__ void spread(const Layout &at, int i, double *g) {
  EACH(n, factor[i].N) g[n] = 0;
  __syncthreads();
  EACH(n, factor[i].n) g[integer_at(at.position[i], n)] = memory[at.g[i] + n];
}

static __noinline__ void begin(const Call &call, const Layout &at, int64_t b) {
  EVERY_FACTOR(i) {
    const int N = call.columns[i];
    if (threadIdx.x == 0) factor[i].M = call.rows[i], factor[i].N = factor[i].n = N, factor[i].turned = 0;
    EACH(n, N) {
      const real g = call.g[i][b * N + n];
      memory[at.g[i] + n] = g, memory[at.s[i] + n] = call.sources[i] ? call.sources[i][b * N + n] : g;
      integer_at(at.position[i], n) = n, ((char *)(memory + at.positive[i]))[n] = 1;
    }
  }
  __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
em_solve(const __grid_constant__ Call call, const __grid_constant__ Layout at) {
  const int64_t b = blockIdx.x;
  begin(call, at, b);
  int M = 1;
  EVERY_FACTOR(i) M *= factor[i].M;
  int64_t iteration = 0;
  int outcome = UNFINISHED;
  real lowest = INFINITY, noise = call.noise_variance[b];
  while (iteration < call.max_iterations && outcome == UNFINISHED) {
    prune(call, at, noise);
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
      EVERY_FACTOR(i) spread(at, i, call.g_path[i] + row * factor[i].N);
    }
    iteration++;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    call.noise_variance[b] = noise;
    call.iterations[b] = iteration, call.outcome[b] = outcome;
  }
  EVERY_FACTOR(i) spread(at, i, call.g[i] + b * factor[i].N);
}
