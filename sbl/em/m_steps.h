/* The M-steps of em.c: nested singular vectors, sweeps of alternating minimisation, coupled factors, bounds; the
   equations are those of the estimators and of sweep.py. Include e_step.h first. */

/* The leading eigenvector of a semidefinite matrix G (n x n, of trace 1, overwritten): G <- G^2 / tr(G^2) tends to
   u u^T. See kernels/leading_triplet.py. */
static void leading_vector(int n, real *G, real *square, real *u) {
  const int ld = padded(n);
  for (int s = 0; s < SQUARINGS; s += 4) {
    for (int i = 0; i < 4; i++) {
      product_set(n, n, ld, G, ld, G, ld, square, ld);
      real *swap = G;
      G = square, square = swap;
    }
    real trace = 0, purity = 0;
    for (int i = 0; i < n; i++) trace += G[i * ld + i];
    for (int i = 0; i < n * ld; i++) G[i] /= trace, purity += G[i] * G[i];
    if (purity > 1 - 4 * DBL_EPSILON) break;
  }
  int pivot = 0;
  for (int i = 1; i < n; i++)
    if (G[i * ld + i] > G[pivot * ld + pivot]) pivot = i;
  real norm = 0;
  for (int i = 0; i < n; i++) norm += G[i * ld + pivot] * G[i * ld + pivot];
  norm = sqrt(norm);
  for (int i = 0; i < n; i++) u[i] = G[i * ld + pivot] / norm;
}

/* |u| and, in place of its first row, |sigma v| of the best rank-one approximation of x (n x columns, ld apart,
   non-negative). */
static void rank_one(int n, int columns, int ld, real *x, real *u, Work *w) {
  real largest = 0;
  for (size_t i = 0; i < (size_t)n * ld; i++) largest = fmax(largest, x[i]);
  for (int i = 0; i < n; i++) u[i] = i == 0;
  if (!(largest > 0)) {
    memset(x, 0, columns * sizeof(real));
    return;
  }
  const int tall = n > columns, order = tall ? columns : n, ldG = padded(order);
  real *G = w->square, *square = G + (size_t)order * ldG, *image = w->rest + (size_t)n * ld;
  for (size_t i = 0; i < (size_t)n * ld; i++) x[i] /= largest;
  if (tall) {
    for (int r = 0; r < columns; r++)
      for (int c = 0; c < ldG; c++) G[r * ldG + c] = 0;
    for (int i = 0; i < n; i++)
      for (int r = 0; r < columns; r++)
        for (int c = 0; c < columns; c++) G[r * ldG + c] += x[i * ld + r] * x[i * ld + c];
  } else {
    for (int r = 0; r < n; r++) {
      for (int c = 0; c <= r; c++) {
        vec sum = {0};
        for (int i = 0; i < ld; i += LANES) sum += *(vec *)(x + r * ld + i) * *(vec *)(x + c * ld + i);
        G[r * ldG + c] = G[c * ldG + r] = sum_of(sum);
      }
      for (int c = n; c < ldG; c++) G[r * ldG + c] = 0;
    }
  }
  real trace = 0;
  for (int i = 0; i < order; i++) trace += G[i * ldG + i];
  for (int i = 0; i < order * ldG; i++) G[i] /= trace;
  if (tall) {
    real sigma = 0;
    leading_vector(order, G, square, image);
    for (int i = 0; i < n; i++) {
      u[i] = 0;
      for (int c = 0; c < columns; c++) u[i] += x[i * ld + c] * image[c];
      sigma += u[i] * u[i];
    }
    sigma = sqrt(sigma);
    for (int i = 0; i < n; i++) u[i] = fabs(u[i] / sigma);
    for (int c = 0; c < columns; c++) x[c] = fabs(image[c]) * sigma * largest;
    return;
  }
  leading_vector(order, G, square, u);
  for (int c = 0; c < ld; c += LANES) {
    vec sum = {0};
    for (int i = 0; i < n; i++) sum += u[i] * *(vec *)(x + i * ld + c);
    *(vec *)(x + c) = sum * largest;
  }
  for (int c = 0; c < ld; c++) x[c] = fabs(x[c]);
  for (int i = 0; i < n; i++) u[i] = fabs(u[i]);
}

/* By the best rank-one approximation of L or, for roots, of its square root, whose factors are squared. */
static void nested_svd(int I, Work *w, int roots) {
  size_t columns = padded(w->factor[I - 1].kept);
  for (int i = 1; i < I - 1; i++) columns *= w->factor[i].kept;
  const size_t size = (I > 1 ? w->factor[0].kept : 1) * columns;
  for (size_t n = 0; n < size; n++) w->rest[n] = roots ? sqrt(w->L[n]) : w->L[n];
  for (int i = 0; i < I - 1; i++) {
    const int dense = i == I - 2 ? w->factor[I - 1].kept : (int)columns;
    rank_one(w->factor[i].kept, dense, columns, w->rest, w->factor[i].fresh, w);
    if (i + 1 < I - 1) columns /= w->factor[i + 1].kept;
  }
  memcpy(w->factor[I - 1].fresh, w->rest, w->factor[I - 1].kept * sizeof(real));
  for (int i = 0; i < I && roots; i++)
    for (int n = 0; n < w->factor[i].kept; n++) w->factor[i].fresh[n] *= w->factor[i].fresh[n];
}

/* Sums of T (n_i x ... x n_I) over all axes but the first, each weighed with a factor's 1 / g or g; T or w->square. */
static const real *contract_behind(int I, Work *w, int i, const real *T, int inverse) {
  if (i == I - 1) return T;
  const int ld = padded(w->factor[I - 1].kept);
  const real *last = inverse ? w->factor[I - 1].inverse : w->factor[I - 1].level;
  size_t rows = 1;
  for (int j = i; j < I - 1; j++) rows *= w->factor[j].kept;
  for (size_t r = 0; r < rows; r++) {
    vec sum = {0};
    for (int c = 0; c < ld; c += LANES) sum += *(const vec *)(T + r * ld + c) * *(const vec *)(last + c);
    w->square[r] = sum_of(sum);
  }
  for (int j = I - 2; j > i; j--) {
    const Factor *other = &w->factor[j];
    const real *weights = inverse ? other->inverse : other->level;
    rows /= other->kept;
    for (size_t r = 0; r < rows; r++) {
      real sum = 0;
      for (int n = 0; n < other->kept; n++) sum += w->square[r * other->kept + n] * weights[n];
      w->square[r] = sum;
    }
  }
  return w->square;
}

/* The sum of T (n_i x ... x n_I) over its first axis, weighed with f->best or its inverse, into out, which may be T. */
static void contract_first(int I, Work *w, int i, const real *T, int inverse, real *out) {
  const Factor *f = &w->factor[i];
  size_t after = padded(w->factor[I - 1].kept);
  for (int j = i + 1; j < I - 1; j++) after *= w->factor[j].kept;
  for (size_t c = 0; c < after; c += LANES) {
    vec sum = {0};
    for (int n = 0; n < f->kept; n++) {
      const real weight = inverse ? reciprocal(f->best[n]) : f->best[n];
      sum += weight * *(const vec *)(T + n * after + c);
    }
    *(vec *)(out + c) = sum;
  }
}

/* C x with C tridiagonal on the kept entries: 1, and beta beside it where they are neighbours. */
static void add_neighbours(const Factor *f, real beta, const real *x, real *out) {
  for (int n = 0; n < f->kept; n++) {
    const int left = n > 0 && f->position[n] == f->position[n - 1] + 1;
    const int right = n + 1 < f->kept && f->position[n + 1] == f->position[n] + 1;
    out[n] = x[n] + (left ? beta * x[n - 1] : 0) + (right ? beta * x[n + 1] : 0);
  }
}

/* One pass over the factors that lowers the bound, from f->fresh and f->s_fresh to f->best and f->s_best; see
   sweep.py. */
static void bound_pass(const Call *call, Work *w) {
  const int I = call->factors;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    for (int n = 0; n < padded(f->kept); n++) {
      f->level[n] = n < f->kept ? f->fresh[n] : 0;
      f->inverse[n] = reciprocal(f->level[n]);
    }
  }
  const real *down = w->L, *up = w->gain;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const int n_kept = f->kept, coupled = call->coupled[i];
    real *a = w->scratch, *b = a + n_kept, *pulled = b + n_kept, *pushed = pulled + n_kept, most = 0;
    memcpy(a, contract_behind(I, w, i, down, 1), n_kept * sizeof(real));
    memcpy(b, contract_behind(I, w, i, up, 0), n_kept * sizeof(real));
    if (coupled) {
      for (int n = 0; n < n_kept; n++) a[n] *= f->inverse[n] * f->inverse[n];
      add_neighbours(f, call->beta, a, pulled), add_neighbours(f, call->beta, b, pushed);
    }
    for (int n = 0; n < n_kept; n++) {
      const real ratio = coupled ? pulled[n] * reciprocal(pushed[n]) : a[n] * reciprocal(b[n]);
      f->s_best[n] = sqrt(ratio) * (coupled ? f->s_fresh[n] : 1);
      most = fmax(most, f->s_best[n]);
    }
    for (int n = 0; n < n_kept; n++)
      f->s_best[n] = f->level[n] > 0 ? fmax(f->s_best[n], DBL_EPSILON * DBL_EPSILON * most) : 0;
    if (coupled) add_neighbours(f, call->beta, f->s_best, f->best);
    else memcpy(f->best, f->s_best, n_kept * sizeof(real));
    if (i == I - 1) break;
    contract_first(I, w, i, down, 1, w->rest), contract_first(I, w, i, up, 0, w->gain_rest);
    down = w->rest, up = w->gain_rest;
  }
}

/* One pass over the factors from f->g to f->best, each with the newest others; see sweep.py. */
static void pass(const Call *call, Work *w) {
  const int I = call->factors;
  real counts = 1;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    counts *= f->g[0] > 0 ? f->kept : 0;
    for (int n = 0; n < f->kept; n++) f->inverse[n] = reciprocal(f->fresh[n]);
    for (int n = f->kept; n < padded(f->kept); n++) f->inverse[n] = 0;
  }
  const real *rest = w->L;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const real *summed = contract_behind(I, w, i, rest, 1);
    const real weight = f->g[0] > 0 ? f->kept / fmax(counts, 1) : 0;
    for (int n = 0; n < f->kept; n++) f->best[n] = summed[n] * weight;
    if (call->step == ALTERNATING && call->coupled[i])
      couple(call, f->kept, f->position, f->positive, !(f->g[0] > 0), f->best, w->scratch);
    if (i == I - 1) break;
    contract_first(I, w, i, rest, 1, w->rest);
    rest = w->rest;
  }
}

/* Unit norm for the sources, which are g where nothing is coupled, of all factors but the last, which carries it. */
static void normalise(int I, Work *w, int of_sources) {
  real scale = 1;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    const real *x = of_sources ? f->s_best : f->best;
    real square = 0;
    for (int n = 0; n < f->kept && i < I - 1; n++) square += x[n] * x[n];
    const real norm = sqrt(square), by = i < I - 1 ? reciprocal(norm) : scale;
    for (int n = 0; n < f->kept; n++) f->best[n] *= by, f->s_best[n] *= by;
    scale *= norm;
  }
}

/* ||kron(new) - kron(old)||, divided by ||kron(old)|| if relative, from f->g or f->fresh to f->fresh or f->best. */
static real distance(int I, const Work *w, int of_sweep, int relative) {
  real moved = 1, mixed = 1, scale = 1;
  for (int i = 0; i < I; i++) {
    const Factor *f = &w->factor[i];
    const real *u = of_sweep ? f->best : f->fresh, *v = of_sweep ? f->fresh : f->g;
    real uu = 0, uv = 0, vv = 0;
    for (int n = 0; n < f->kept; n++) uu += u[n] * u[n], uv += u[n] * v[n], vv += v[n] * v[n];
    moved *= uu, mixed *= uv, scale *= vv;
  }
  const real square = (moved + scale - 2 * mixed) / (relative ? scale : 1);
  return square > 0 && isfinite(square) ? sqrt(square) : 0;
}

static void take_sweep(int I, Work *w) {
  for (int i = 0; i < I; i++) {
    const Factor *f = &w->factor[i];
    memcpy(f->fresh, f->best, f->kept * sizeof(real)), memcpy(f->s_fresh, f->s_best, f->kept * sizeof(real));
  }
}

static void m_step(const Call *call, Work *w) {
  const int I = call->factors;
  if (call->step == NESTED_SVD || call->step == ROOT_SVD) {
    nested_svd(I, w, call->step == ROOT_SVD);
    return;
  }
  for (int i = 0; i < I; i++) {
    const Factor *f = &w->factor[i];
    memcpy(f->fresh, f->g, f->kept * sizeof(real)), memcpy(f->s_fresh, f->s, f->kept * sizeof(real));
  }
  if (call->step == ONE_SWEEP) {
    pass(call, w);
    take_sweep(I, w);
    return;
  }
  for (int sweep = 0; sweep < call->sweeps; sweep++) {
    if (call->step == BOUND) bound_pass(call, w);
    else pass(call, w);
    normalise(I, w, call->step == BOUND);
    const real moved = distance(I, w, 1, call->relative);
    if (!(moved <= call->divergence)) return;
    take_sweep(I, w);
    if (moved < call->inner_tolerance) return;
  }
}
