/* Which columns a problem keeps. Include block.cuh and fit.h first. */

/* g, and what lies behind it, of every column. */
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

/* Keep the entries of g that are positive, at least `floor` and `ratio` of the largest, or of what is lost in the
   noise if that is less; one, zero, if there is none. See state.prune. */
static __noinline__ void prune(const Call &call, const Layout &at, real noise) {
  const int counts = !isinf(call.negligible) && noise > call.faint;
  real product = 1;
#pragma unroll 1
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
