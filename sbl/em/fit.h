/* How observations lie to the eigenvectors of A G A^H, for the noise variance and the cost; see
   kronecker_posterior.py. Include call.h and define real first. */

#define LARGE 1e-6 /* as in kronecker_posterior.py */

typedef struct {
  real residual, weighted, energy; /* ||y - A mean||^2, s2 y^H K^-1 y, and y^H K^-1 y within the range of A G */
  real freedom, log_det, total;
  real eigenvalues; /* how many */
} Fit;

/* A sum of logarithms, few of which are taken. */
typedef struct {
  real sum, product;
} Logarithms;

static void add_log(Logarithms *logs, real x) {
  if (!(x > 1e-100 && x < 1e100)) {
    logs->sum += log(x);
    return;
  }
  logs->product *= x;
  if (logs->product > 1e-100 && logs->product < 1e100) return;
  logs->sum += log(logs->product), logs->product = 1;
}

/* What is left of the energy: as a difference or, where that cancels, as a sum; see kronecker_posterior.py. */
static real left_of(real total, real taken, real sum) {
  return total - taken > LARGE * total ? total - taken : sum;
}

/* The energy outside of the range of A G, in which `inside` lies: none where its eigenvectors span the M observations. */
static real outside_of(real total, real inside, real eigenvalues, real M) {
  return eigenvalues < M ? fmax(total - inside, (real)0) : 0;
}

static real reciprocal(real x) { return x > 0 ? 1 / x : 0; }

/* log det(s2 I + A G A^H) + y^H (s2 I + A G A^H)^-1 y of M observations; over the range of A G alone where s2 = 0. */
static real cost_of(Fit fit, real M, real noise) {
  const real outside = noise > 0 ? (M - fit.eigenvalues) * log(noise) : 0;
  return fit.log_det + outside + (noise > 0 ? fit.weighted * reciprocal(noise) : fit.energy);
}

static real next_noise(const Call *call, Fit fit, real M, real noise) {
  if (call->step != BOUND) return (fit.residual + noise * fit.freedom) / M;
  const real free = fmax(M - fit.freedom, DBL_EPSILON * M);
  return fmax(sqrt(fit.residual * noise / free), DBL_EPSILON * fit.total / M);
}
