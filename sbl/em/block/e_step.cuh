/* The E-step of em.cu; the equations are those of kronecker_posterior.py. Include jacobi.cuh and fit.h first. */

/* B = Q R. */
static __noinline__ void turn_rows(const Layout &at) {
  EVERY_FACTOR(i) {
    const Factor &f = factor[i];
    EACH(item, f.k * f.length) {
      number sum = {};
      const int j = item / f.length, c = item - j * f.length;
      for (int r = 0; r < f.k; r++)
        add_product(sum, number_at(at.Q[i], j * f.k + r), number_at(at.R[i], r * f.length + c));
      number_at(at.B[i], item) = sum;
    }
  }
  __syncthreads();
}

/* Of each factor, with S = A diag(g)^1/2: R = S or, where no more columns than rows are kept, `full`, S^H; Q, which
   turns R into B = Q R with orthogonal rows; eigenvalues p = |B|^2, 0 where negligible; U^H = Q, or B where full;
   W^T; and the shares E of the eigenvectors, which for a bound's gain are divided by g^2. 0 where not finite. */
static int decompose(const Call &call, const Layout &at, int64_t b) {
  const int bound = STEP == BOUND;
  if (threadIdx.x == 0)
    EVERY_FACTOR(i) {
      Factor &f = factor[i];
      const int full = f.n <= f.M, k = full ? f.n : f.M;
      f.turned = f.turned && f.full == full && f.k == k;
      f.full = full, f.k = k, f.length = full ? f.M : f.n, f.shares = full || bound ? k : k + 1;
    }
  __syncthreads();
  EVERY_FACTOR(i) {
    const Factor &f = factor[i];
    const number *const A = (const number *)call.matrices[i] + (call.shared[i] ? 0 : b * f.M * f.N);
    EACH(item, f.M * f.n) {
      const int m = item / f.n, n = item - m * f.n;
      const number entry = times(sqrt(real_at(at.g[i] + n)), A[m * f.N + integer_at(at.position[i], n)]);
      number_at(at.R[i], f.full ? n * f.M + m : item) = f.full ? conjugate(entry) : entry;
    }
    EACH(item, f.turned ? 0 : f.k * f.k) number_at(at.Q[i], item) = number{real(item % (f.k + 1) == 0)};
  }
  __syncthreads();
  turn_rows(at);
  EVERY_FACTOR(i) {
    const Factor &f = factor[i];
    EACH(item, f.k * f.k) {
      const int r = item / f.k, c = item - r * f.k;
      number sum = {};
      for (int l = 0; l < f.length; l++)
        add_product(sum, number_at(at.B[i], r * f.length + l), conjugate(number_at(at.B[i], c * f.length + l)));
      number_at(at.W[i], item) = sum;
    }
  }
  __syncthreads();
  EACH_BY_WARP(i, I) {
    real trace = 0;
    EACH_IN_WARP(j, factor[i].k) trace += real_part(number_at(at.W[i], j * (factor[i].k + 1)));
    trace = warp_sum(trace);
    if (threadIdx.x % WARP == 0) factor[i].scale = reciprocal(trace), factor[i].turned = 1;
  }
  __syncthreads();
  if (!diagonalise(at)) return 0;
  turn_rows(at);

  real nothing[1] = {0};
  EVERY_FACTOR(i) {
    const Factor &f = factor[i];
    EACH_BY_WARP(j, f.k) {
      real sum = 0;
      EACH_IN_WARP(c, f.length) sum += power(number_at(at.B[i], j * f.length + c));
      sum = warp_sum(sum);
      real_at(at.p[i] + j) = sum, nothing[0] += 0 * sum;
    }
  }
  block_sums(nothing);
  if (nothing[0] != 0) return 0;
  EACH_BY_WARP(i, I) {
    const Factor &f = factor[i];
    real largest = 0;
    EACH_IN_WARP(j, f.k) largest = fmax(largest, real_at(at.p[i] + j));
    largest = warp_max(largest) * DBL_EPSILON * (f.M > f.n ? f.M : f.n);
    EACH_IN_WARP(j, f.k) if (real_at(at.p[i] + j) <= largest) real_at(at.p[i] + j) = 0;
  }
  __syncthreads();
  EVERY_FACTOR(i) {
    const Factor &f = factor[i];
    EACH(n, f.n) {
      const real g = real_at(at.g[i] + n), amplitude = sqrt(g), over = reciprocal(g);
      real left = g;
      for (int j = 0; j < f.k; j++) {
        const number w = times(amplitude, conjugate(f.full ? number_at(at.Q[i], j * f.k + n)
                                                           : number_at(at.B[i], j * f.length + n)));
        const real share = f.full ? power(w) : power(w) * reciprocal(real_at(at.p[i] + j));
        number_at(at.W[i], j * f.n + n) = w;
        left -= share;
        real_at(at.E[i] + j * f.n + n) = bound ? share * over * over : share;
      }
      if (f.shares > f.k) real_at(at.E[i] + f.k * f.n + n) = fmax(left, (real)0);
    }
  }
  __syncthreads();
  return 1;
}

/* P, D = 1 / (s2 + P), how y lies to the eigenvectors, and z, U^H y divided by s2 + P, in its place. */
static Fit fit_of(const Call &call, const Layout &at, int z, int M, int size, real total,
                  real noise) {
  real residual = 0, taken = 0, weighted = 0, inside = 0, freedom = 0, energy = 0, eigenvalues = 0;
  Logarithms logs = {0, 1};
  EACH(item, size) {
    real P = 1, inverse = 1;
    int index = item;
#pragma unroll 1
    for (int i = I - 1; i >= 0; i--) {
      const int rest = index / factor[i].k;
      const real p = real_at(at.p[i] + index - rest * factor[i].k);
      P *= p, inverse *= factor[i].full ? reciprocal(p) : 1;
      index = rest;
    }
    const real D = P != 0 ? 1 / (noise + P) : 0;
    number &along_z = number_at(z, item);
    if (P != 0) {
      const real along = power(along_z) * inverse, left = noise * D;
      residual += along * left * left, taken += along * (1 - left * left);
      weighted += along * left, inside += along;
      freedom += P * D, energy += along * D, eigenvalues++;
      add_log(&logs, noise + P);
    }
    real_at(at.P + item) = P, real_at(at.D + item) = D;
    along_z = times(D, along_z);
  }
  real sums[] = {residual, taken, weighted, inside, freedom, energy, eigenvalues, logs.sum + log(logs.product)};
  block_sums(sums);
  const real outside = outside_of(total, sums[3], sums[6], M);
  Fit fit;
  fit.residual = left_of(total, sums[1], sums[0] + outside);
  fit.weighted = left_of(total, sums[3] - sums[2], sums[2] + outside);
  fit.freedom = sums[4], fit.energy = sums[5], fit.eigenvalues = sums[6], fit.log_det = sums[7], fit.total = total;
  return fit;
}

/* z, U^H y divided by noise + P, and where it lies; 0 for its place where not finite. */
static int project(const Call &call, const Layout &at, int64_t b, real noise, Fit *fit) {
  if (!decompose(call, at, b)) return 0;
  int M = 1, size = 1;
  EVERY_FACTOR(i) M *= factor[i].M, size *= factor[i].k;
  const int z = apply<PROJECT, number>(at, (const number *)call.y + b * M, at.one, at.two);
  *fit = fit_of(call, at, z, M, size, energy, noise);
  return z;
}

/* Where entry `item` of a tensor of the sizes of the shares lies among the eigenvalues P; -1 for what no eigenvector
   has, and where P is zero. */
static inline int place_in_core(const Layout &at, int item) {
  int place = 0, step = 1, inside = 1;
#pragma unroll 1
  for (int i = I - 1; i >= 0; i--) {
    const int rest = item / factor[i].shares, j = item - rest * factor[i].shares;
    inside = inside && j < factor[i].k;
    place += j * step, step *= factor[i].k, item = rest;
  }
  return inside && real_at(at.P + place) != 0 ? place : -1;
}

/* The core of the variance, at `one`: noise / (noise + P), and 1 for what no eigenvector has. */
static void variance_core(const Layout &at, real noise) {
  int core = 1;
  EVERY_FACTOR(i) core *= factor[i].shares;
  EACH(item, core) {
    const int place = place_in_core(at, item);
    real_at(at.one + item) = place < 0 ? 1 : noise * real_at(at.D + place);
  }
  __syncthreads();
}

/* The second moment L = variance + |mean|^2 at L, or |mean|^2 there and P D at P for a bound, the next noise variance
   into s2 if it is unknown, and the cost; 0 where not finite. */
static int e_step(const Call &call, const Layout &at, int64_t b, real *s2, real *cost) {
  const real noise = *s2;
  Fit fit;
  const int z = project(call, at, b, noise, &fit);
  if (!z) return 0;
  int M = 1, size = 1, L_size = 1;
  EVERY_FACTOR(i) M *= factor[i].M, size *= factor[i].k, L_size *= factor[i].n;
  *cost = cost_of(fit, M, noise);
  if (call.noise_unknown) *s2 = next_noise(&call, fit, M, noise);
  __syncthreads();
  apply<EXPAND, number>(at, z, at.one + at.two - z, PutPower{at.L});
  if (STEP != BOUND) {
    variance_core(at, noise);
    apply<SPREAD, real>(at, at.one, at.two, Add{at.L});
  }
  real nothing[1] = {0};
  EACH(item, L_size) nothing[0] += 0 * real_at(at.L + item);
  EACH(item, STEP == BOUND ? size : 0) {
    real_at(at.P + item) *= real_at(at.D + item);
    nothing[0] += 0 * real_at(at.P + item);
  }
  block_sums(nothing);
  return nothing[0] == 0; /* not a number where an entry is not finite */
}
