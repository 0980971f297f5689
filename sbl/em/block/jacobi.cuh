/* Eigenvectors of all factors' Gram matrices at once, by one-sided Jacobi rotations. Include block.cuh first.

   Source: Hestenes, "Inversion of matrices by biorthogonalization and related results", 1958; pairs meet as in a
   round robin: Brent and Luk 1985. */

enum { SWEEPS = 40 };
#define ROTATED 1e-30   /* |cosine|^2 of two rows that are orthogonal to rounding */
#define SETTLES 1e-16   /* that of rows which one more rotation leaves so: convergence is quadratic */
#define NEGLIGIBLE 1e-30 /* |row|^2 to the largest of rows that turn no other */

/* Rotate rows p and q (of `length`) of B, and those (of k) of Q, so that B's are orthogonal; one warp. Returns how
   far they were from it, |cosine|^2. */
static inline real rotate(const Factor &f, int B, int Q, int p, int q) {
  number *const u = (number *)(memory + B) + p * f.length, *const v = (number *)(memory + B) + q * f.length;
  real uu = 0, vv = 0, re = 0, im = 0;
  EACH_IN_WARP(c, f.length) {
    const number a = u[c], b = v[c];
    const number mixed = times(a, conjugate(b));
    uu += power(a), vv += power(b);
#if COMPLEX
    re += mixed.re, im += mixed.im;
#else
    re += mixed;
#endif
  }
  uu = warp_sum(uu) * f.scale, vv = warp_sum(vv) * f.scale, re = warp_sum(re) * f.scale;
#if COMPLEX
  im = warp_sum(im) * f.scale;
#endif
  const real square = re * re + im * im, both = uu * vv;
  if (!(square > ROTATED * both) || fmin(uu, vv) < NEGLIGIBLE) return 0;
  const real over = rsqrt(square), apart = 0.5 * (vv - uu) * over;
  /* The angle need not be accurate, the rotation must be unitary. */
  const float far = fabsf((float)apart);
  const float angle = copysignf(far > 1e6f ? 0.5f / far : 1 / (far + sqrtf(1 + far * far)), (float)apart);
  const real tangent = angle, cosine = rsqrt(1 + tangent * tangent), sine = cosine * tangent;
#if COMPLEX
  const number phase = {re * over, im * over};
#else
  const number phase = re * over;
#endif
  number *const x = (number *)(memory + Q) + p * f.k, *const y = (number *)(memory + Q) + q * f.k;
  EACH_IN_WARP(c, f.length + f.k) {
    number &first = c < f.length ? u[c] : x[c - f.length], &second = c < f.length ? v[c] : y[c - f.length];
    const number a = first, b = times(phase, second);
    number turned = times(cosine, a);
    add(turned, times(-sine, b));
    first = turned;
    turned = times(sine, a);
    add(turned, times(cosine, b));
    second = turned;
  }
  return square / both;
}

/* Make the rows of every factor's B orthogonal by rotations that Q gathers; 0 where they do not settle. */
static int orthogonalise(int I, const Layout &at) {
  int total = 0, most = 2;
  for (int i = 0; i < I; i++) {
    const int pairs = (factor[i].k + 1) / 2;
    total += pairs, most = most > 2 * pairs ? most : 2 * pairs;
  }
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    real worst = 0;
    for (int round = 0; round < most - 1; round++) {
      EACH_BY_WARP(item, total) {
        int i = 0, t = item;
        while (t >= (factor[i].k + 1) / 2) t -= (factor[i++].k + 1) / 2;
        const int k = factor[i].k, circle = (k + 1) / 2 * 2 - 1, r = round % circle;
        const int one = t == 0 ? circle : (r + t) % circle, two = t == 0 ? r : (r - t + circle) % circle;
        const int p = one < two ? one : two, q = one < two ? two : one;
        if (q < k) worst = fmax(worst, rotate(factor[i], at.B[i], at.Q[i], p, q));
      }
      __syncthreads();
    }
    worst = block_max(worst);
    if (worst <= SETTLES) return 1;
  }
  return 0;
}
