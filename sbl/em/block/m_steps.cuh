/* The M-steps of em.cu; the equations are those of the estimators and of sweep.py. Include e_step.cuh and
   nonnegative.h first. */

/* The Gram matrix of the rows of x (count x inner, its entries step_row and step apart), times scale^2, at G. */
static __noinline__ void gram(int count, int inner, int x, int step_row, int step, real scale, int G) {
  const int SIDE = 3, sides = (count + SIDE - 1) / SIDE;
  EACH_BY_WARP(tile, sides * (sides + 1) / 2) {
    int row = 0, column = tile;
    while (column > row) column -= ++row;
    const int r = SIDE * row, c = SIDE * column;
    real sum[SIDE][SIDE] = {};
    EACH_IN_WARP(k, inner) {
      real left[SIDE], right[SIDE];
#pragma unroll
      for (int t = 0; t < SIDE; t++) {
        left[t] = scale * memory[x + min(r + t, count - 1) * step_row + k * step];
        right[t] = scale * memory[x + min(c + t, count - 1) * step_row + k * step];
      }
#pragma unroll
      for (int a = 0; a < SIDE; a++)
#pragma unroll
        for (int b = 0; b < SIDE; b++) sum[a][b] += left[a] * right[b];
    }
#pragma unroll
    for (int a = 0; a < SIDE; a++)
#pragma unroll
      for (int b = 0; b < SIDE; b++) {
        const real total = warp_sum(sum[a][b]);
        if (threadIdx.x % WARP == 0 && r + a < count && c + b < count)
          memory[G + (r + a) * count + c + b] = memory[G + (c + b) * count + r + a] = total;
      }
  }
  __syncthreads();
}

/* The leading eigenvector u of a semidefinite matrix at G (n x n, overwritten, as is `square`): G <- G^2 / tr(G^2)
   tends to u u^T. See kernels/leading_triplet.py. */
static __noinline__ void leading_vector(int n, int G, int square, int u) {
  for (int s = 0;; s += 4) {
    real sums[2] = {0, 0};
    EACH(i, n) sums[0] += memory[G + i * n + i];
    EACH(i, n * n) sums[1] += memory[G + i] * memory[G + i];
    block_sums(sums);
    const real over = 1 / sums[0];
    if (s >= SQUARINGS || (s > 0 && sums[1] * over * over > 1 - 4 * DBL_EPSILON)) break;
    for (int i = 0; i < 4; i++) {
      const real scale = i == 0 ? over * over : 1;
      EACH(item, n * n) {
        const int r = item / n, c = item - r * n;
        real sum = 0;
        for (int k = 0; k < n; k++) sum += memory[G + k * n + r] * memory[G + k * n + c];
        memory[square + item] = scale * sum;
      }
      __syncthreads();
      const int swap = G;
      G = square, square = swap;
    }
  }
  int pivot = 0;
  for (int i = 1; i < n; i++)
    if (memory[G + i * n + i] > memory[G + pivot * n + pivot]) pivot = i;
  real norm = 0;
  for (int i = 0; i < n; i++) norm += memory[G + pivot * n + i] * memory[G + pivot * n + i];
  EACH(i, n) memory[u + i] = memory[G + pivot * n + i] / sqrt(norm);
  __syncthreads();
}

/* |u| and |sigma v| of the best rank-one approximation of x (n x columns, non-negative). */
static __noinline__ void rank_one(const Layout &at, int n, int columns, int x, int u, int image) {
  real largest = 0;
  EACH(item, n * columns) largest = fmax(largest, memory[x + item]);
  largest = block_max(largest);
  if (!(largest > 0)) {
    EACH(i, n) memory[u + i] = i == 0;
    EACH(c, columns) memory[image + c] = 0;
    __syncthreads();
    return;
  }
  const real scale = fmin(1 / largest, 1.7e308);
  const int tall = n > columns, order = tall ? columns : n, G = at.one, square = G + order * order;
  if (tall) gram(order, n, x, 1, columns, scale, G);
  else gram(order, columns, x, columns, 1, scale, G);
  leading_vector(order, G, square, tall ? image : u);
  if (!tall) {
    EACH(c, columns) {
      real sum = 0;
      for (int i = 0; i < n; i++) sum += memory[u + i] * memory[x + i * columns + c];
      memory[image + c] = fabs(sum);
    }
    __syncthreads();
    EACH(i, n) memory[u + i] = fabs(memory[u + i]);
    __syncthreads();
    return;
  }
  EACH(i, n) {
    real sum = 0;
    for (int c = 0; c < columns; c++) sum += scale * memory[x + i * columns + c] * memory[image + c];
    memory[u + i] = sum;
  }
  __syncthreads();
  real sigma = 0;
  for (int i = 0; i < n; i++) sigma += memory[u + i] * memory[u + i];
  sigma = sqrt(sigma);
  __syncthreads();
  EACH(i, n) memory[u + i] = fabs(memory[u + i] / sigma);
  EACH(c, columns) memory[image + c] = fabs(memory[image + c]) * sigma / scale;
  __syncthreads();
}

/* By the best rank-one approximation of L or, for roots, of its square root, whose factors are squared. */
static __noinline__ void nested_svd(const Layout &at, int roots) {
  int columns = 1, x = at.L, image = at.two;
#pragma unroll 1
  for (int i = 1; i < I; i++) columns *= factor[i].n;
  EACH(item, roots ? factor[0].n * columns : 0) memory[x + item] = sqrt(memory[x + item]);
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < I - 1; i++) {
    rank_one(at, factor[i].n, columns, x, at.fresh[i], image);
    x = image, image += columns;
    columns /= factor[i + 1].n;
  }
  EACH(n, factor[I - 1].n) memory[at.fresh[I - 1] + n] = memory[x + n];
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < I && roots; i++)
    EACH(n, factor[i].n) memory[at.fresh[i] + n] *= memory[at.fresh[i] + n];
  __syncthreads();
}

/* What a sweep contracts: 0, L along 1 / g; 1, the gain by its core P D along the g that its shares E map. */
struct Contraction {
  int sizes[MOST_FACTORS], weights[MOST_FACTORS]; /* entries behind each factor, and where their weights lie */
  int rest;                                       /* where what earlier factors leave lies */
};
static __shared__ Contraction contraction[2];

static inline int vector_of(const Layout &at, int tensor, int i) { return tensor ? at.mapped[i] : at.inverse[i]; }

/* Lay out the contractions of the sweeps of one M-step in the space `one`. */
static void plan(const Layout &at) {
  if (threadIdx.x == 0)
    for (int tensor = 0, begin = at.one; tensor < 2; tensor++) {
      Contraction &c = contraction[tensor];
      int size = 1;
#pragma unroll 1
      for (int i = I - 1; i >= 0; i--) {
        c.sizes[i] = size, c.weights[i] = begin;
        begin += size, size *= tensor ? factor[i].k : factor[i].n;
      }
      c.rest = begin, begin += c.sizes[0];
    }
  __syncthreads();
}

/* v_{i+1} kron ... kron v_I for every i. */
template <int TENSORS>
static __noinline__ void weigh(const Layout &at) {
#pragma unroll 1
  for (int tensor = 0; tensor < TENSORS; tensor++)
    EVERY_FACTOR(i)
  EACH(c, contraction[tensor].sizes[i]) {
    real weight = 1;
    int index = c;
#pragma unroll 1
    for (int j = i + 1; j < I; j++) {
      const int size = contraction[tensor].sizes[j], here = index / size;
      weight *= memory[vector_of(at, tensor, j) + here];
      index -= here * size;
    }
    memory[contraction[tensor].weights[i] + c] = weight;
  }
  __syncthreads();
}

/* Sums of T (n_i x ... x n_I) over all axes but the first, each along its vector, at `out`, those of the core, at
   `core`, behind them. */
template <int TENSORS>
static __noinline__ void contract_behind(int i, int T, int core, int out) {
  const int n = factor[i].n;
  EACH_BY_WARP(row, n + (TENSORS > 1 ? factor[i].k : 0)) {
    const int tensor = row >= n, size = contraction[tensor].sizes[i];
    const int x = tensor ? core + (row - n) * size : T + row * size, weights = contraction[tensor].weights[i];
    real sum = 0;
#pragma unroll 4
    for (int c = threadIdx.x % WARP; c < size; c += WARP) sum += memory[x + c] * memory[weights + c];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) memory[out + row] = sum;
  }
  __syncthreads();
}

/* The sums of T, and of the core, over their first axis along that one's vector, each as the contraction's rest. */
template <int TENSORS>
static __noinline__ void contract_first(const Layout &at, int i, int T, int core) {
  const int size = contraction[0].sizes[i];
  EACH(item, size + (TENSORS > 1 ? contraction[1].sizes[i] : 0)) {
    const int tensor = item >= size, step = contraction[tensor].sizes[i], c = tensor ? item - size : item;
    const int x = (tensor ? core : T) + c, v = vector_of(at, tensor, i), n = tensor ? factor[i].k : factor[i].n;
    real sum = 0;
#pragma unroll 4
    for (int r = 0; r < n; r++) sum += memory[x + r * step] * memory[v + r];
    memory[contraction[tensor].rest + c] = sum;
  }
  __syncthreads();
}

/* Entry n of C x with C tridiagonal on the kept entries of factor i: 1, and beta beside it. */
static inline real with_neighbours(const Layout &at, int i, real beta, int x, int n) {
  const int here = integer_at(at.position[i], n);
  const int left = n > 0 && integer_at(at.position[i], n - 1) == here - 1;
  const int right = n + 1 < factor[i].n && integer_at(at.position[i], n + 1) == here + 1;
  return memory[x + n] + (left ? beta * memory[x + n - 1] : 0) + (right ? beta * memory[x + n + 1] : 0);
}

/* E_i g of the vector at x, by one warp. */
static inline void map(const Layout &at, int i, int x) {
  const Factor &f = factor[i];
  EACH_IN_WARP(j, f.k) {
    real sum = 0;
    for (int n = 0; n < f.n; n++) sum += memory[at.E[i] + j * f.n + n] * memory[x + n];
    memory[at.mapped[i] + j] = sum;
  }
}

/* The update of one factor that lowers the bound, from its contractions, by one warp. */
static __noinline__ void lower(const Call &call, const Layout &at, int i, int a, int core) {
  const Factor &f = factor[i];
  const int coupled = call.coupled[i], b = core + f.k, pulled = b + f.n;
  real most = 0;
  EACH_IN_WARP(n, f.n) {
    real sum = 0;
    for (int j = 0; j < f.k; j++) sum += memory[at.E[i] + j * f.n + n] * memory[core + j];
    memory[b + n] = sum;
    if (coupled) memory[pulled + n] = memory[a + n] * memory[at.inverse[i] + n] * memory[at.inverse[i] + n];
  }
  __syncwarp();
  EACH_IN_WARP(n, f.n) {
    const real down = coupled ? with_neighbours(at, i, call.beta, pulled, n) : memory[a + n];
    const real up = coupled ? with_neighbours(at, i, call.beta, b, n) : memory[b + n];
    const real moved = sqrt(down * reciprocal(up)) * (coupled ? memory[at.s_fresh[i] + n] : 1);
    memory[at.s_best[i] + n] = moved, most = fmax(most, moved);
  }
  most = warp_max(most);
  EACH_IN_WARP(n, f.n) {
    real &s = memory[at.s_best[i] + n];
    s = memory[at.inverse[i] + n] > 0 ? fmax(s, DBL_EPSILON * DBL_EPSILON * most) : 0;
  }
  __syncwarp();
  EACH_IN_WARP(n, f.n) {
    const real g = coupled ? with_neighbours(at, i, call.beta, at.s_best[i], n) : memory[at.s_best[i] + n];
    memory[at.best[i] + n] = g, memory[at.inverse[i] + n] = reciprocal(g);
  }
  __syncwarp();
  map(at, i, at.best[i]);
}

/* One pass over the factors that lowers the bound, from fresh and s_fresh to best and s_best; see sweep.py. */
static void bound_pass(const Call &call, const Layout &at) {
  EACH_BY_WARP(i, I) {
    EACH_IN_WARP(n, factor[i].n) memory[at.inverse[i] + n] = reciprocal(memory[at.fresh[i] + n]);
    map(at, i, at.fresh[i]);
  }
  __syncthreads();
  weigh<2>(at);
  int down = at.L, up = at.P;
  EVERY_FACTOR(i) {
    contract_behind<2>(i, down, up, at.two);
    if (threadIdx.x < WARP) lower(call, at, i, at.two, at.two + factor[i].n);
    __syncthreads();
    if (i == I - 1) break;
    contract_first<2>(at, i, down, up);
    down = contraction[0].rest, up = contraction[1].rest;
  }
}

/* One pass over the factors from fresh to best, each with the newest others; see sweep.py. */
static void pass(const Call &call, const Layout &at) {
  real counts = 1;
  EVERY_FACTOR(i) {
    counts *= memory[at.g[i]] > 0 ? factor[i].n : 0;
    EACH(n, factor[i].n) memory[at.inverse[i] + n] = reciprocal(memory[at.fresh[i] + n]);
  }
  __syncthreads();
  weigh<1>(at);
  int rest = at.L;
  EVERY_FACTOR(i) {
    const int n = factor[i].n, empty = !(memory[at.g[i]] > 0);
    const real weight = empty ? 0 : n / fmax(counts, (real)1);
    contract_behind<1>(i, rest, 0, at.best[i]);
    EACH(c, n) memory[at.best[i] + c] *= weight;
    __syncthreads();
    if (STEP == ALTERNATING && call.coupled[i] && threadIdx.x == 0)
      couple(&call, n, &integer_at(at.position[i], 0), (char *)(memory + at.positive[i]), empty,
             memory + at.best[i], memory + at.two);
    __syncthreads();
    EACH(c, n) memory[at.inverse[i] + c] = reciprocal(memory[at.best[i] + c]);
    __syncthreads();
    if (i == I - 1) break;
    contract_first<1>(at, i, rest, 0);
    rest = contraction[0].rest;
  }
}

/* Unit norm for the sources, which are g where nothing is coupled, of all factors but the last, which carries it. */
static __noinline__ void normalise(const Layout &at, int of_sources) {
  real scale = 1;
  EVERY_FACTOR(i) {
    const int x = of_sources ? at.s_best[i] : at.best[i];
    real square = 0;
    if (i < I - 1) {
      EACH_IN_WARP(n, factor[i].n) square += memory[x + n] * memory[x + n];
      square = warp_sum(square);
    }
    const real norm = sqrt(square), by = i < I - 1 ? reciprocal(norm) : scale;
    __syncthreads();
    EACH(n, factor[i].n) memory[at.best[i] + n] *= by, memory[at.s_best[i] + n] *= by;
    scale *= norm;
  }
  __syncthreads();
}

/* ||kron(new) - kron(old)||, divided by ||kron(old)|| if relative, from g or fresh to fresh or best. */
static __noinline__ real distance(const Layout &at, int of_sweep, int relative) {
  real moved = 1, mixed = 1, scale = 1;
  EVERY_FACTOR(i) {
    const int u = of_sweep ? at.best[i] : at.fresh[i], v = of_sweep ? at.fresh[i] : at.g[i];
    real uu = 0, uv = 0, vv = 0;
    EACH_IN_WARP(n, factor[i].n) {
      const real a = memory[u + n], b = memory[v + n];
      uu += a * a, uv += a * b, vv += b * b;
    }
    moved *= warp_sum(uu), mixed *= warp_sum(uv), scale *= warp_sum(vv);
  }
  const real square = (moved + scale - 2 * mixed) / (relative ? scale : 1);
  return square > 0 && isfinite(square) ? sqrt(square) : 0;
}

/* x and what lies behind it from one place to another, of every factor. */
static __noinline__ void take(const int *from, const int *s_from, const int *to, const int *s_to) {
  __syncthreads();
  EVERY_FACTOR(i)
    EACH(n, factor[i].n) memory[to[i] + n] = memory[from[i] + n], memory[s_to[i] + n] = memory[s_from[i] + n];
  __syncthreads();
}

static __noinline__ void m_step(const Call &call, const Layout &at) {
  if (STEP == NESTED_SVD || STEP == ROOT_SVD) {
    nested_svd(at, STEP == ROOT_SVD);
    return;
  }
  take(at.g, at.s, at.fresh, at.s_fresh);
  plan(at);
  for (int sweep = 0; sweep < call.sweeps; sweep++) {
    if (STEP == BOUND) bound_pass(call, at);
    else pass(call, at);
    if (STEP != ONE_SWEEP) {
      normalise(at, STEP == BOUND);
      const real moved = distance(at, 1, call.relative);
      if (!(moved <= call.divergence)) return;
      take(at.best, at.s_best, at.fresh, at.s_fresh);
      if (moved < call.inner_tolerance) return;
    } else {
      take(at.best, at.s_best, at.fresh, at.s_fresh);
      return;
    }
  }
}
