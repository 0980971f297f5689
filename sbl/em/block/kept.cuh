/* Which columns a problem keeps. Include block.cuh and fit.h first. */

static inline int even(int size) { return size + size % 2; }

/* Sizes of a tensor's axes before and after a product with a matrix along each. */
struct Axes {
  int in[I], out[I];
};

/* The largest tensor on the way, the most growing axis going last. */
static inline int before_last(const Axes &axes) {
  int before = 1, least = 0;
#pragma unroll
  for (int i = 0; i < I; i++) {
    int others = axes.in[i];
    before *= axes.in[i];
#pragma unroll
    for (int j = 0; j < I; j++) others *= j == i ? 1 : axes.out[j];
    least = i == 0 ? others : min(least, others);
  }
  return max(before, least);
}

/* Entries behind each axis, all of them, and those behind the first once more. */
static inline int contracted(const int (&sizes)[I]) {
  int behind = 1, sum = 0;
#pragma unroll
  for (int i = I - 1; i >= 0; i--) sum += behind, behind *= i > 0 ? sizes[i] : 1;
  return sum + behind;
}

/* Lay out the state of a problem that keeps factor[i].n columns, or fewer; returns its size in real numbers, which is
   that of solve.state_size. */
static inline int lay_out(const Call &call, Layout &at) {
  const int width = COMPLEX ? 2 : 1;
  Axes moment, mean, data;
  int work = 0, most = 0, most_k = 0, pairs = 0, P = 1, L = 1;
#pragma unroll
  for (int i = 0; i < I; i++) {
    const int rows = call.rows[i], n = factor[i].n, k = min(rows, n);
    mean.in[i] = k, moment.in[i] = k < n ? k + 1 : k, mean.out[i] = moment.out[i] = n;
    data.in[i] = k, data.out[i] = rows;
    work += k * max(rows, n), most = max(most, n), most_k = max(most_k, k), pairs += (k + 1) / 2;
    P *= k, L *= n;
  }
  const int tensors = max(width * max(before_last(data), before_last(mean)), before_last(moment));
  const int one = max(max(tensors, width * work), max(contracted(mean.out) + contracted(mean.in), most * max(2 * most, THREADS / WARP)));
  const int two = max(max(tensors, 8 * pairs), max(max(16 * most + 16, 4 * most + most_k), contracted(mean.out)));
  int used = 0;
  at.L = used, used += even(L);
  at.one = used, used += even(one);
  at.two = used, used += even(two);
  at.P = used, used += even(P);
  at.D = used, used += even(P);
  int R = at.one;
#pragma unroll
  for (int i = 0; i < I; i++) {
    const int rows = call.rows[i], n = mean.out[i], k = mean.in[i];
    int *const vectors[] = {at.g, at.fresh, at.best, at.s, at.s_fresh, at.s_best, at.inverse, at.mapped, at.p, at.position};
#pragma unroll
    for (int v = 0; v < 10; v++) vectors[v][i] = used, used += even(n);
    at.positive[i] = used, used += even((call.columns[i] + 7) / 8);
    at.R[i] = R, R += width * k * max(rows, n);
    at.Q[i] = used, used += even(width * k * k);
    at.B[i] = used, used += even(width * k * max(rows, n));
    at.W[i] = used, used += even(width * k * n);
    at.E[i] = used, used += even(moment.in[i] * n);
  }
  return used;
}

/* Load ||y||^2, and g, and what lies behind it, of `every` column or of those whose g is positive: one, zero, if there is none. */
static __noinline__ void begin(const Call &call, int64_t b, int every) {
  EACH_BY_WARP(i, I) {
    const int N = call.columns[i];
    real kept = 0;
    EACH_IN_WARP(n, N) kept += every || call.g[i][b * N + n] > 0;
    kept = warp_sum(kept);
    if (threadIdx.x % WARP == 0)
      factor[i].M = call.rows[i], factor[i].N = N, factor[i].n = max(1, (int)kept), factor[i].turned = 0;
  }
  __syncthreads();
  if (threadIdx.x == 0) lay_out(call, layout);
  __syncthreads();
  const Layout &at = layout;
  EACH_BY_WARP(i, I) {
    const int N = call.columns[i];
    EACH_IN_WARP(n, N) ((char *)(memory + at.positive[i]))[n] = 1;
    if (threadIdx.x % WARP != 0) continue;
    int kept = 0;
    memory[at.g[i]] = memory[at.s[i]] = 0, integer_at(at.position[i], 0) = 0;
    for (int n = 0; n < N; n++) {
      const real g = call.g[i][b * N + n];
      if (!every && !(g > 0)) continue;
      memory[at.g[i] + kept] = g, memory[at.s[i] + kept] = call.sources[i] ? call.sources[i][b * N + n] : g;
      integer_at(at.position[i], kept++) = n;
    }
  }
  int M = 1;
  EVERY_FACTOR(i) M *= factor[i].M;
  real sum[1] = {0};
  EACH(m, M) sum[0] += power(((const number *)call.y)[b * M + m]);
  block_sums(sum);
  if (threadIdx.x == 0) energy = sum[0];
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

/* The entries at x, of the kept columns, at their full length, zero where pruned. */
static __noinline__ void spread(const Layout &at, int i, int x, double *whole) {
  EACH(n, factor[i].N) whole[n] = 0;
  __syncthreads();
  EACH(n, factor[i].n) whole[integer_at(at.position[i], n)] = memory[x + n];
}
