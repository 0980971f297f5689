/* The learned iterations of UnfoldedKroSBL on a GPU, a block of threads a problem; the equations are those of
   unfolded.py, in double precision. */

#include "block.cuh"
#include "../nonnegative.h"
#include "kept.cuh"
#include "jacobi.cuh"
#include "e_step.cuh"
#include "m_steps.cuh"

#define LEAST_FREEDOM 1e-6 /* these as in unfolded.py */
#define LEAST_MOMENT 1e-30
#define LEAST_VARIANCE 1e-6

/* An iteration's numbers, of it and of each factor, as unfolded.py lays them out; neighbours follow each factor's. */
enum { VARIANCE_WEIGHT, FIXED_POINT, SHARPNESS, SCALE_GAIN, OF_ITERATION };
enum { EXPONENT, MEMORY, GATE, THRESHOLD, OF_FACTOR };

/* |mean|^2 at L and what y takes away from the prior variances, to the second moment at L. */
struct PutMoment {
  const Layout &at;
  real variance_weight, fixed_point;
  void operator()(int place, real explained) const {
    real prior = 1;
    int index = place;
#pragma unroll 1
    for (int i = I - 1; i >= 0; i--) {
      const int rest = index / factor[i].n;
      prior *= memory[at.g[i] + index - rest * factor[i].n], index = rest;
    }
    const real freedom = fmin(fmax(explained / prior, (real)LEAST_FREEDOM), (real)1);
    real &moment = memory[at.L + place];
    moment = variance_weight * fmax(prior - explained, (real)0) + moment * pow(freedom, -fixed_point);
  }
};

/* The core of what y takes away from the prior variances, at `one`: P / (noise + P), and 0 for what no eigenvector has. */
static void explained_core(const Layout &at) {
  int core = 1;
  EVERY_FACTOR(i) core *= factor[i].shares;
  EACH(item, core) {
    const int place = place_in_core(at, item);
    real_at(at.one + item) = place < 0 ? 0 : real_at(at.P + place) * real_at(at.D + place);
  }
  __syncthreads();
}

/* L's entries along one axis and those of their neighbours around the circle, by `weights` at distances 1, 2, ... */
static void share(const Layout &at, int i, int neighbours, const real *weights) {
  const int n = factor[i].n;
  int after = 1, fibers = 1;
  EVERY_FACTOR(j) after *= j > i ? factor[j].n : 1, fibers *= j == i ? 1 : factor[j].n;
  real *const copy = memory + at.one + threadIdx.x / WARP * n;
  EACH_BY_WARP(fiber, fibers) {
    real *const x = memory + at.L + fiber / after * n * after + fiber % after;
    EACH_IN_WARP(j, n) copy[j] = x[j * after];
    __syncwarp();
    EACH_IN_WARP(j, n) {
      real sum = copy[j];
      for (int d = 1; d <= neighbours; d++) sum += weights[d - 1] * (copy[(j + d) % n] + copy[(j + d * (n - 1)) % n]);
      x[j * after] = sum;
    }
    __syncwarp();
  }
  __syncthreads();
}

/* The largest of L, whose entries become their shares of it, to the power of `sharpness`. */
static real sharpen(const Layout &at, int size, real sharpness) {
  real largest = 0;
  EACH(item, size) largest = fmax(largest, memory[at.L + item]);
  largest = block_max(largest);
  EACH(item, size)
    memory[at.L + item] = pow(fmax(memory[at.L + item] / largest, (real)LEAST_MOMENT), sharpness);
  __syncthreads();
  return largest;
}

static real largest_in_warp(int n, int x) {
  real largest = 0;
  EACH_IN_WARP(j, n) largest = fmax(largest, memory[x + j]);
  return warp_max(largest);
}

/* g to its shares of its largest. */
static void relate(const Layout &at) {
  EACH_BY_WARP(i, I) {
    const real largest = largest_in_warp(factor[i].n, at.g[i]);
    EACH_IN_WARP(j, factor[i].n) memory[at.g[i] + j] /= largest;
  }
  __syncthreads();
}

/* log sigmoid(x) */
static real log_sigmoid(real x) { return fmin(x, (real)0) - log1p(exp(-fabs(x))); }

/* The next g from the M-step's, at `fresh`, and the last one's shares, at g. */
static void renew(const Layout &at, const real *numbers, int width, real scale) {
  EVERY_FACTOR(i) scale *= largest_in_warp(factor[i].n, at.fresh[i]);
  __syncthreads();
  EACH_BY_WARP(i, I) {
    const real *const of = numbers + OF_ITERATION + i * width, least = log((real)LEAST_VARIANCE);
    const real largest = largest_in_warp(factor[i].n, at.fresh[i]);
    EACH_IN_WARP(j, factor[i].n) {
      const real proposed = log(fmax(memory[at.fresh[i] + j] / largest, (real)LEAST_VARIANCE));
      const real last = log(fmax(memory[at.g[i] + j], (real)LEAST_VARIANCE));
      real level = of[EXPONENT] * proposed + of[MEMORY] * last;
      level += of[GATE] * log_sigmoid(level - of[THRESHOLD]);
      memory[at.g[i] + j] = exp(fmax(level, least)) * (i == I - 1 ? scale : 1);
    }
  }
  __syncthreads();
}

/* noise: (problems, iterations), the levels of the E-steps. numbers: (iterations, OF_ITERATION + FACTORS (OF_FACTOR +
   neighbours)). call.g becomes the last iteration's. */
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
em_unfolded(const __grid_constant__ Call call, const real *noise, const real *numbers, int neighbours) {
  const int64_t b = blockIdx.x;
  const int width = OF_FACTOR + neighbours;
  begin(call, b, 1);
  const Layout &at = layout;
  int size = 1;
  EVERY_FACTOR(i) size *= factor[i].n;
#pragma unroll 1
  for (int k = 0; k < call.max_iterations; k++, numbers += OF_ITERATION + I * width) {
    Fit fit;
    const int z = project(call, at, b, noise[b * call.max_iterations + k], &fit);
    if (!z) break;
    apply<EXPAND, number>(at, z, at.one + at.two - z, PutPower{at.L});
    explained_core(at);
    apply<SPREAD, real>(at, at.one, at.two, PutMoment{at, numbers[VARIANCE_WEIGHT], numbers[FIXED_POINT]});
#pragma unroll 1
    for (int i = 0; i < I && neighbours > 0; i++)
      share(at, i, neighbours, numbers + OF_ITERATION + i * width + OF_FACTOR);
    const real largest = sharpen(at, size, numbers[SHARPNESS]);
    relate(at);
    m_step(call, at);
    renew(at, numbers, width, largest * exp(numbers[SCALE_GAIN]));
  }
  EVERY_FACTOR(i) spread(at, i, at.g[i], call.g[i] + b * factor[i].N);
}
