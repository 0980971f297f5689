/* The E-step of em.c: eigendecompositions of the factors, the second moment, the noise variance and the cost; the
   equations are those of kronecker_posterior.py. Include problem.h and eigh.h first. */

/* p from the images of the eigenvectors, rows of so many entries; 0 where it is rounding. */
static void sum_eigenvalues(Factor *f, planes image, int entries, int ld) {
  real largest = 0;
  for (int j = 0; j < f->order; j++) {
    real sum = 0;
    for (int c = 0; c < entries; c++) {
      const real re = image.re[j * ld + c], im = f->A.im ? image.im[j * ld + c] : 0;
      sum += re * re + im * im;
    }
    f->p[j] = sum, largest = fmax(largest, sum);
  }
  const real negligible = largest * DBL_EPSILON * (f->rows > f->kept ? f->rows : f->kept);
  for (int j = 0; j < f->order; j++) f->p[j] = f->p[j] <= negligible ? 0 : f->p[j];
}

/* Eigenvalues p and, as rows, U^H and W^T of a factor, and the shares E of its eigenvectors, which for a bound's gain
   are divided by g^2; 0 where not finite. */
static int decompose(Factor *f, int last, int gain, real *scratch) {
  const int M = f->rows, n = f->kept, ldM = padded(M), ldn = padded(n);
  const int full = f->full = n <= M, k = f->order = full ? n : M, ldk = padded(k);
  f->shares = full || gain ? k : k + 1;
  clear(f->S, (size_t)M * ldn), clear(f->T, (size_t)n * ldM);
  for (int c = 0; c < n; c++) {
    const real amplitude = sqrt(f->g[c]);
    for (int r = 0; r < M; r++) {
      f->S.re[r * ldn + c] = f->T.re[c * ldM + r] = amplitude * f->A.re[r * f->columns + f->position[c]];
      if (f->A.im) f->S.im[r * ldn + c] = f->T.im[c * ldM + r] = amplitude * f->A.im[r * f->columns + f->position[c]];
    }
  }
  if (full)
    multiply_conjugate(n, M, ldn, f->T, ldM, f->S, ldn, f->G, ldn);
  else
    multiply_conjugate(M, n, ldM, f->S, ldn, f->T, ldM, f->G, ldM); /* the conjugate of S S^H */
  const planes X = full ? f->X : f->U;
  if (!hermitian_eigen(k, f->G, f->p, X, scratch)) return 0;

  if (full) {
    multiply(k, n, ldM, X, ldk, f->T, ldM, f->U, ldM);
    for (size_t i = 0; f->A.im && i < (size_t)k * ldM; i++) f->U.im[i] = -f->U.im[i];
    memcpy(f->W.re, X.re, (size_t)k * ldn * sizeof(real));
    if (f->A.im) memcpy(f->W.im, X.im, (size_t)k * ldn * sizeof(real));
  } else {
    multiply(k, M, ldn, X, ldk, f->S, ldn, f->W, ldn);
    for (size_t i = 0; f->A.im && i < (size_t)k * ldn; i++) f->W.im[i] = -f->W.im[i];
  }
  sum_eigenvalues(f, full ? f->U : f->W, full ? M : n, full ? ldM : ldn);

  for (int c = 0; c < n; c++) {
    const real amplitude = sqrt(f->g[c]);
    real left = f->g[c];
    for (int j = 0; j < k; j++) {
      f->W.re[j * ldn + c] *= amplitude;
      real energy = f->W.re[j * ldn + c] * f->W.re[j * ldn + c];
      if (f->A.im) {
        f->W.im[j * ldn + c] *= amplitude;
        energy += f->W.im[j * ldn + c] * f->W.im[j * ldn + c];
      }
      f->E[j * ldn + c] = full ? energy : energy * reciprocal(f->p[j]);
      left -= f->E[j * ldn + c];
      if (gain) f->E[j * ldn + c] *= reciprocal(f->g[c]) * reciprocal(f->g[c]);
    }
    if (!full && !gain) f->E[k * ldn + c] = fmax(left, 0);
  }
  for (int j = 0; j < f->shares; j++)
    for (int c = n; c < ldn; c++) f->E[j * ldn + c] = 0;
  if (last) {
    clear(f->U_last, (size_t)M * ldk);
    transpose_planes(k, M, f->U, ldM, f->U_last, ldk);
  } else {
    transpose_planes(k, n, f->W, ldn, f->W_first, k);
    transpose(f->shares, n, f->E, ldn, f->E_first, f->shares);
  }
  return 1;
}

static Fit fit_of(const Call *call, Work *w, const int *order, size_t size, size_t y_size, planes z, real M, real noise) {
  real *inverse[MOST_FACTORS], inside = 0, residual = 0, taken = 0, weighted = 0;
  Fit fit = {0};
  Logarithms logs = {0, 1};
  for (int i = 0; i < call->factors; i++) {
    Factor *f = &w->factor[i];
    inverse[i] = f->inverse;
    for (int j = 0; j < f->order; j++) inverse[i][j] = f->full ? reciprocal(f->p[j]) : 1;
  }
  kron(call->factors, order, inverse, w->z_energy);
  for (size_t i = 0; i < size; i++) {
    if (w->P[i] == 0) continue;
    const real along = (z.re[i] * z.re[i] + (z.im ? z.im[i] * z.im[i] : 0)) * w->z_energy[i];
    const real left = noise * w->D[i];
    residual += along * left * left, taken += along * (1 - left * left);
    weighted += along * left, inside += along;
    fit.freedom += w->P[i] * w->D[i], fit.energy += along * w->D[i], fit.eigenvalues++;
    add_log(&logs, noise + w->P[i]);
  }
  for (size_t i = 0; i < y_size; i++)
    fit.total += w->y.re[i] * w->y.re[i] + (w->y.im ? w->y.im[i] * w->y.im[i] : 0);
  const real outside = outside_of(fit.total, inside, fit.eigenvalues, M);
  fit.residual = left_of(fit.total, taken, residual + outside);
  fit.weighted = left_of(fit.total, inside - weighted, weighted + outside);
  fit.log_det = logs.sum + log(logs.product);
  return fit;
}

/* The second moment L = variance + |mean|^2 into w->L, or |mean|^2 and the gain for a bound, the next noise variance
   into s2 if it is unknown, and the cost; 0 where not finite. w->variance is the gain for a bound. */
static int e_step(const Call *call, Work *w, real *s2, real *cost) {
  const int I = call->factors, end = I - 1, bound = call->step == BOUND;
  int rows[MOST_FACTORS], kept[MOST_FACTORS], order[MOST_FACTORS], shares[MOST_FACTORS];
  int ld_U[MOST_FACTORS], ld_W[MOST_FACTORS], ld_E[MOST_FACTORS];
  planes U[MOST_FACTORS], W[MOST_FACTORS], E[MOST_FACTORS];
  real *p[MOST_FACTORS];
  size_t M = 1, order_rows = 1, y_size = 1;
  for (int i = 0; i < I; i++) {
    Factor *f = &w->factor[i];
    if (!decompose(f, i == end, bound, w->scratch)) return 0;
    rows[i] = f->rows, kept[i] = f->kept, order[i] = f->order, shares[i] = f->shares, p[i] = f->p;
    U[i] = i == end ? f->U_last : f->U, ld_U[i] = padded(i == end ? f->order : f->rows);
    W[i] = i == end ? f->W : f->W_first, ld_W[i] = i == end ? padded(f->kept) : f->order;
    E[i] = (planes){i == end ? f->E : f->E_first, NULL}, ld_E[i] = i == end ? padded(f->kept) : f->shares;
    M *= f->rows;
    y_size *= i == end ? padded(f->rows) : f->rows;
    if (i < end) order_rows *= f->order;
  }
  const int complex_numbers = w->y.im != NULL, ldk = padded(order[end]), ld_kept = padded(shares[end]);
  const size_t size = kron(I, order, p, w->P);
  memcpy(w->one.re, w->y.re, y_size * sizeof(real));
  if (complex_numbers) memcpy(w->one.im, w->y.im, y_size * sizeof(real));
  planes z = apply(I, order, rows, U, ld_U, w->one, w->two);
  planes spare = z.re == w->one.re ? w->two : w->one;

  const real noise = *s2;
  for (size_t i = 0; i < size; i++) w->D[i] = w->P[i] != 0 ? 1 / (noise + w->P[i]) : 0;
  const Fit fit = fit_of(call, w, order, size, y_size, z, M, noise);
  *cost = cost_of(fit, M, noise);
  if (call->noise_unknown) *s2 = next_noise(call, fit, M, noise);
  for (size_t i = 0; i < size; i++) {
    z.re[i] *= w->D[i];
    if (complex_numbers) z.im[i] *= w->D[i];
  }
  planes mean = apply(I, kept, order, W, ld_W, z, spare);

  size_t shares_rows = 1, L_size = padded(kept[end]);
  for (int i = 0; i < end; i++) shares_rows *= shares[i], L_size *= kept[i];
  for (size_t i = 0; i < shares_rows * ld_kept; i++) w->kept[i] = bound ? w->P[i] * w->D[i] : 1;
  for (size_t r = 0; r < order_rows && !bound; r++) {
    size_t index = r, place = 0, stride = 1;
    for (int i = end - 1; i >= 0; i--) {
      place += index % order[i] * stride;
      index /= order[i], stride *= shares[i];
    }
    for (int c = 0; c < order[end]; c++)
      w->kept[place * ld_kept + c] = w->P[r * ldk + c] != 0 ? noise * w->D[r * ldk + c] : 1;
  }
  const planes spread = apply(I, kept, shares, E, ld_E, (planes){w->kept, NULL}, (planes){w->gain, NULL});
  if (bound && spread.re != w->gain) memcpy(w->gain, spread.re, L_size * sizeof(real));
  real nothing = 0;
  for (size_t i = 0; i < L_size; i++) {
    const real power = mean.re[i] * mean.re[i] + (complex_numbers ? mean.im[i] * mean.im[i] : 0);
    nothing += 0 * spread.re[i];
    w->L[i] = bound ? power : spread.re[i] + power;
    nothing += 0 * w->L[i];
  }
  w->mean = mean, w->variance = spread.re, w->residual = fit.residual;
  return nothing == 0; /* not a number where an entry is not finite */
}
