/* Expectation-maximisation of Kronecker-structured priors, one small problem at a time and many side by side.

   The equations are those of loop.py, kronecker_posterior.py, svd_krosbl.py, sweep.py and pc_krosbl.py, in double
   precision. Tensors of sizes n_1 x ... x n_I have their last axis padded to whole vectors with zeros. Complex
   numbers are planes of real and imaginary parts. */

#define REAL double
#include "dense.h"
#include "eigh.h"
#include "problem.h"
#include "e_step.h"
#include "m_steps.h"

/* Where the posterior's moments go: (problems, N_1 ... N_I), zeros before, and (problems,). */
typedef struct {
  double *mean, *variance, *residual;
} Moments;

static void split(const double *x, size_t count, planes out) {
  for (size_t i = 0; i < count; i++) {
    out.re[i] = out.im ? x[2 * i] : x[i];
    if (out.im) out.im[i] = x[2 * i + 1];
  }
}

/* g at its full length, zero where pruned. */
static void spread(const Factor *f, double *g) {
  memset(g, 0, f->columns * sizeof(real));
  for (int n = 0; n < f->kept; n++) g[f->position[n]] = f->g[n];
}

/* The ratio to its factor's largest below which an entry is lost in the noise; see state.prune. */
static real negligible_share(const Call *call, const Work *w, real noise) {
  real product = 1;
  for (int i = 0; i < call->factors; i++) product *= largest_of(w->factor[i].kept, w->factor[i].g);
  const int counts = !isinf(call->negligible) && noise > call->faint;
  return counts ? call->negligible * noise * reciprocal(product) : INFINITY;
}

static int is_finite(int I, const Work *w) {
  real nothing = 0;
  for (int i = 0; i < I; i++)
    for (int n = 0; n < w->factor[i].kept; n++) nothing += 0 * w->factor[i].fresh[n];
  return nothing == 0;
}

static void iterate(const Call *call, Work *w, int64_t b) {
  const int I = call->factors, width = call->complex_numbers ? 2 : 1, last = call->rows[I - 1];
  size_t rows = 1, M = last;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const size_t entries = (size_t)f->rows * f->columns;
    split(call->matrices[i] + (call->shared[i] ? 0 : b * entries * width), entries, f->A);
    f->kept = f->columns;
    for (int n = 0; n < f->columns; n++) {
      f->g[n] = call->g[i][b * f->columns + n];
      f->s[n] = call->sources[i] ? call->sources[i][b * f->columns + n] : f->g[n];
      f->position[n] = n, f->positive[n] = 1;
    }
    if (i < I - 1) rows *= f->rows, M *= f->rows;
  }
  clear(w->y, rows * padded(last));
  for (size_t r = 0; r < rows; r++)
    split(call->y + (b * rows + r) * last * width, last, at(w->y, r * padded(last)));

  int64_t iteration = 0;
  real lowest = INFINITY;
  call->outcome[b] = UNFINISHED;
  while (iteration < call->max_iterations && call->outcome[b] == UNFINISHED) {
    const real negligible = negligible_share(call, w, call->noise_variance[b]);
    for (int i = 0; i < I; i++) {
      Factor *f = &w->factor[i];
      prune(f, fmin(call->ratios[i], negligible), call->floor);
      if (call->step == BOUND && call->coupled[i]) add_neighbours(f, call->beta, f->s, f->g);
    }
    const int64_t row = b * call->max_iterations + iteration;
    real cost, noise = call->noise_variance[b];
    const int finite = e_step(call, w, &noise, &cost);
    if (finite) m_step(call, w);
    if (!finite || !is_finite(I, w)) {
      call->outcome[b] = NOT_FINITE;
      for (int i = 0; i < I; i++) memset(w->factor[i].g, 0, w->factor[i].kept * sizeof(real));
      break;
    }
    call->noise_variance[b] = noise, lowest = fmin(lowest, cost);
    for (int i = 0; i < I; i++)
      if (!(w->factor[i].g[0] > 0)) w->factor[i].fresh[0] = w->factor[i].s_fresh[0] = 0;
    const real change = distance(I, w, 0, 1);
    if (change <= call->tolerance) call->outcome[b] = cost - lowest > RISE * M ? COST_ROSE : SETTLED;
    for (int i = 0; i < I; i++) {
      const Factor *f = &w->factor[i];
      memcpy(f->g, f->fresh, f->kept * sizeof(real)), memcpy(f->s, f->s_fresh, f->kept * sizeof(real));
      if (call->outcome[b] != UNFINISHED && largest_of(f->kept, f->g) <= 0) call->outcome[b] = PRUNED;
    }
    if (call->cost) {
      call->cost[row] = cost, call->change[row] = change, call->noise_path[row] = call->noise_variance[b];
      for (int i = 0; i < I; i++) spread(&w->factor[i], call->g_path[i] + row * w->factor[i].columns);
    }
    iteration++;
  }
  call->iterations[b] = iteration;
  for (int i = 0; i < I; i++) spread(&w->factor[i], call->g[i] + b * w->factor[i].columns);
}

/* Mean, variance and residual of the posterior under the g that the iterations ended with, zero where g is. */
static void conclude(const Call *call, Work *w, int64_t b, Moments to) {
  const int end = call->factors - 1, width = call->complex_numbers ? 2 : 1;
  const Factor *last = &w->factor[end];
  Call e_step_alone = *call;
  e_step_alone.step = NESTED_SVD, e_step_alone.noise_unknown = 0;
  for (int i = 0; i <= end; i++) prune(&w->factor[i], 0, 0);
  real noise = call->noise_variance[b], cost;
  const int finite = e_step(&e_step_alone, w, &noise, &cost);
  to.residual[b] = finite ? w->residual : NAN;
  size_t rows = 1, N = last->columns;
  for (int i = 0; i < end; i++) rows *= w->factor[i].kept, N *= w->factor[i].columns;
  for (size_t r = 0; r < rows && finite; r++) {
    size_t index = r, place = b * N, step = last->columns;
    for (int i = end - 1; i >= 0; i--) {
      const Factor *f = &w->factor[i];
      place += step * f->position[index % f->kept];
      index /= f->kept, step *= f->columns;
    }
    for (int n = 0; n < last->kept; n++) {
      const size_t from = r * padded(last->kept) + n, whole = place + last->position[n];
      to.variance[whole] = w->variance[from];
      to.mean[width * whole] = w->mean.re[from];
      if (w->mean.im) to.mean[width * whole + 1] = w->mean.im[from];
    }
  }
}

/* Numbers handed out from one piece of memory, in steps of a cache line; `base` NULL only counts them. */
typedef struct {
  real *base;
  size_t used;
} Arena;

static real *take(Arena *arena, size_t count) {
  real *here = arena->base ? arena->base + arena->used : NULL;
  arena->used += (count + 7) / 8 * 8;
  return here;
}

static planes take_planes(Arena *arena, size_t count, int complex_numbers) {
  real *re = take(arena, count);
  return (planes){re, complex_numbers ? take(arena, count) : NULL};
}

static void lay_out(const Call *call, Work *w, Arena *arena) {
  const int I = call->factors, c = call->complex_numbers;
  size_t tensor = 1, scratch = 0, observations = 1, squares = 0;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const int M = f->rows = call->rows[i], N = f->columns = call->columns[i];
    const int K = M < N ? M : N, most = padded((M + 1 > N ? M + 1 : N)), ldM = padded(M), ldN = padded(N);
    tensor *= i == I - 1 ? most : (M + 1 > N ? M + 1 : N);
    observations *= i == I - 1 ? ldM : M;
    const size_t needed = eigen_scratch(K) > (size_t)16 * N + 16 ? eigen_scratch(K) : (size_t)16 * N + 16;
    scratch = needed > scratch ? needed : scratch;
    squares = (size_t)2 * N * ldN > squares ? (size_t)2 * N * ldN : squares;
    f->A = take_planes(arena, (size_t)M * N, c);
    f->g = take(arena, ldN), f->fresh = take(arena, ldN), f->best = take(arena, ldN);
    f->s = take(arena, ldN), f->s_fresh = take(arena, ldN), f->s_best = take(arena, ldN);
    f->inverse = take(arena, most), f->level = take(arena, most), f->p = take(arena, most);
    f->position = (int *)take(arena, N), f->positive = (char *)take(arena, N);
    f->S = take_planes(arena, (size_t)M * ldN, c), f->T = take_planes(arena, (size_t)N * ldM, c);
    f->G = take_planes(arena, (size_t)K * padded(K), c), f->X = take_planes(arena, (size_t)K * padded(K), c);
    f->U = take_planes(arena, (size_t)K * ldM, c), f->W = take_planes(arena, (size_t)K * ldN, c);
    f->U_last = take_planes(arena, (size_t)M * padded(K), c), f->W_first = take_planes(arena, (size_t)N * K, c);
    f->E = take(arena, (size_t)(K + 1) * ldN), f->E_first = take(arena, (size_t)(K + 1) * N);
  }
  w->y = take_planes(arena, observations, c);
  w->one = take_planes(arena, tensor, c), w->two = take_planes(arena, tensor, c);
  w->z_energy = take(arena, tensor), w->P = take(arena, tensor), w->D = take(arena, tensor);
  w->kept = take(arena, tensor), w->L = take(arena, tensor), w->rest = take(arena, 2 * tensor);
  w->gain = take(arena, tensor), w->gain_rest = take(arena, tensor);
  w->square = take(arena, squares > tensor ? squares : tensor), w->scratch = take(arena, scratch);
}

/* Solve every problem of the call; g and noise_variance are overwritten, the posterior's moments filled in. Returns 0,
   or 1 where memory ran out. */
int em_solve(const Call *call, double *mean, double *variance, double *residual) {
  const Moments moments = {mean, variance, residual};
  int failed = 0;
#pragma omp parallel if (call->problems > 1)
  {
    Work w;
    Arena arena = {NULL, 0};
    lay_out(call, &w, &arena);
    void *memory = NULL;
    if (posix_memalign(&memory, 64, arena.used * sizeof(real))) {
#pragma omp atomic write
      failed = 1;
    } else {
      memset(memory, 0, arena.used * sizeof(real));
      arena = (Arena){memory, 0};
      lay_out(call, &w, &arena);
    }
#pragma omp barrier
    if (!failed) {
#pragma omp for schedule(dynamic)
      for (int64_t b = 0; b < call->problems; b++) {
        iterate(call, &w, b);
        conclude(call, &w, b, moments);
      }
    }
    free(memory);
  }
  return failed;
}
