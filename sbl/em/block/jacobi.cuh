/* Eigenvectors of all factors' Gram matrices at once, by Jacobi rotations. Include block.cuh first.

   Source: Golub and Van Loan, Matrix Computations, section 8.5; pairs meet as in a round robin: Brent and Luk 1985. */

enum { SWEEPS = 40 };
#define ROTATED 1e-32 /* |entry|^2, to the square of the trace, of what is zero to rounding */
#define SETTLES 1e-16 /* |cosine|^2 of two rows that one more rotation leaves orthogonal: convergence is quadratic */

/* Rows p and q become cosine p - sine q and sine' p + cosine' q, with sine' = |sine| and cosine' = cosine phase. */
struct Turn {
  number sine, phase;
  real cosine, tangent;
  int p, q; /* q is the order where p meets none */
};

static inline Turn &turn_at(const Layout &at, int t) { return ((Turn *)(memory + at.two))[t]; }

/* The rotation of pair t in a round that makes the entry (p, q) of the Hermitian H (k x k) zero; returns whether its
   rows are still apart. The angle need not be accurate, the rotation must be unitary. */
static inline int find_turn(int k, real scale, int H, int round, int t, Turn &turn) {
  const int circle = (k + 1) / 2 * 2 - 1, r = round % circle;
  const int one = t == 0 ? circle : (r + t) % circle, two = t == 0 ? r : (r - t + circle) % circle;
  const int p = turn.p = min(one, two), q = turn.q = max(one, two);
  turn.tangent = 0, turn.cosine = 1, turn.sine = number{}, turn.phase = number{1};
  if (q >= k) return 0;
  const real uu = scale * real_part(number_at(H, p * k + p)), vv = scale * real_part(number_at(H, q * k + q));
  const number mixed = times(scale, number_at(H, p * k + q));
  const real square = power(mixed);
  if (!(square > ROTATED)) return 0;
  const real over = rsqrt(square), apart = 0.5 * (vv - uu) * over;
  const float far = fabsf((float)apart);
  turn.tangent = copysignf(far > 1e6f ? 0.5f / far : 1 / (far + sqrtf(1 + far * far)), (float)apart);
  turn.cosine = rsqrt(1 + turn.tangent * turn.tangent);
  turn.phase = times(over, mixed), turn.sine = times(turn.cosine * turn.tangent, turn.phase);
  return square > SETTLES * uu * vv;
}

/* Two numbers by the rotation of their rows. */
static inline void rotate(const Turn &turn, number &u, number &v) {
  number first = times(turn.cosine, u), second = times(turn.cosine * turn.tangent, u);
  add_product(first, times(-1, turn.sine), v);
  add_product(second, times(turn.cosine, turn.phase), v);
  u = first, v = second;
}

/* Rotate the rows and columns of every factor's H by its pairs' turns, and the rows of Q. */
static __noinline__ void take_turns(const Layout &at) {
  int begin = 0, from = 0;
  EVERY_FACTOR(i) {
    const int k = factor[i].k, pairs = (k + 1) / 2, H = at.W[i], Q = at.Q[i];
    EACH_FROM(from, item, pairs * (pairs + k)) {
      const int one = item / (pairs + k), other = item - one * (pairs + k);
      const Turn &a = turn_at(at, begin + one);
      if (other >= pairs) {
        const int c = other - pairs;
        if (a.tangent != 0) rotate(a, number_at(Q, a.p * k + c), number_at(Q, a.q * k + c));
        continue;
      }
      const Turn &b = turn_at(at, begin + other);
      if (a.tangent == 0 && b.tangent == 0) continue;
      const int first = a.q < k, second = b.q < k;
      number none = {}, pp = number_at(H, a.p * k + b.p), pq = second ? number_at(H, a.p * k + b.q) : none;
      number qp = first ? number_at(H, a.q * k + b.p) : none;
      number qq = first && second ? number_at(H, a.q * k + b.q) : none;
      rotate(a, pp, qp), rotate(a, pq, qq);
      pp = conjugate(pp), pq = conjugate(pq), qp = conjugate(qp), qq = conjugate(qq);
      rotate(b, pp, pq), rotate(b, qp, qq);
      number_at(H, a.p * k + b.p) = conjugate(pp);
      if (second) number_at(H, a.p * k + b.q) = conjugate(pq);
      if (first) number_at(H, a.q * k + b.p) = conjugate(qp);
      if (first && second) number_at(H, a.q * k + b.q) = conjugate(qq);
    }
    begin += pairs, from += pairs * (pairs + k);
  }
}

/* Diagonalise every factor's H, Hermitian (k x k) and in W's place, by rotations that Q gathers; 0 where they do not
   settle. */
static int diagonalise(const Layout &at) {
  int most = 2;
  EVERY_FACTOR(i) most = max(most, (factor[i].k + 1) / 2 * 2);
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    real moving = 0;
    for (int round = 0; round < most - 1; round++) {
      int begin = 0;
      EVERY_FACTOR(i) {
        const int pairs = (factor[i].k + 1) / 2;
        EACH_FROM(begin, t, pairs)
          moving += find_turn(factor[i].k, factor[i].scale, at.W[i], round, t, turn_at(at, begin + t));
        begin += pairs;
      }
      __syncthreads();
      take_turns(at);
      __syncthreads();
    }
    if (!(block_max(moving) > 0)) return 1;
  }
  return 0;
}
