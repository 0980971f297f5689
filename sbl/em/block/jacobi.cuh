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

/* A pair of rows of a factor, and what is to be turned: a column of Q or another pair's rows. */
struct Place {
  int i, pair, other, first; /* first: the number of the factor's first pair */
};

/* Of a factor, in which all its rows meet. */
static inline int rounds_of(Place place) { return (factor[place.i].k + 1) / 2 * 2 - 1; }

/* Piece `item` of `width` pieces a pair, factor after factor. */
template <int WIDTH>
static inline Place place_of(int item) {
  Place place = {0, 0, 0, 0};
#pragma unroll 1
  for (;; place.i++) {
    const int k = factor[place.i].k, pairs = (k + 1) / 2, width = WIDTH == 1 ? 1 : WIDTH == 2 ? pairs : k;
    if (item < pairs * width) {
      place.pair = item / width, place.other = item - place.pair * width;
      return place;
    }
    item -= pairs * width, place.first += pairs;
  }
}

/* The rotation of a pair in round r of its factor that makes its entry of the Hermitian H zero; returns whether its
   rows are still apart. The angle need not be accurate, the rotation must be unitary. */
static inline int find_turn(const Layout &at, Place place, int r) {
  const int k = factor[place.i].k, H = at.W[place.i], circle = rounds_of(place), t = place.pair;
  const real scale = factor[place.i].scale;
  const int one = t == 0 ? circle : r + t < circle ? r + t : r + t - circle;
  const int two = t == 0 ? r : r < t ? r - t + circle : r - t;
  Turn &turn = turn_at(at, place.first + t);
  const int p = min(one, two), q = max(one, two);
  turn.p = p, turn.q = q, turn.tangent = 0, turn.cosine = 1, turn.sine = number{}, turn.phase = number{1};
  if (q >= k) return 0;
  const real uu = scale * real_part(number_at(H, p * k + p)), vv = scale * real_part(number_at(H, q * k + q));
  const number mixed = times(scale, number_at(H, p * k + q));
  const real square = power(mixed);
  if (!(square > ROTATED)) return 0;
  const float apart = vv - uu, twice = 4 * (float)square, across = twice * rsqrtf(twice);
  const float far = apart * apart + twice;
  const real tangent = copysignf(__fdividef(across, fabsf(apart) + far * rsqrtf(far)), apart);
  const real over = rsqrt(square), cosine = rsqrt(1 + tangent * tangent);
  turn.tangent = tangent, turn.cosine = cosine;
  turn.phase = times(over, mixed), turn.sine = times(cosine * tangent, turn.phase);
  return square > SETTLES * uu * vv;
}

/* Two numbers by the rotation of their rows. */
static inline void rotate(const Turn &turn, number &u, number &v) {
  number first = times(turn.cosine, u), second = times(turn.cosine * turn.tangent, u);
  add_product(first, times(-1, turn.sine), v);
  add_product(second, times(turn.cosine, turn.phase), v);
  u = first, v = second;
}

/* A pair's rows in one column of Q. */
static inline void turn_column(const Layout &at, Place place) {
  const int k = factor[place.i].k, Q = at.Q[place.i];
  const Turn &turn = turn_at(at, place.first + place.pair);
  if (turn.tangent != 0)
    rotate(turn, number_at(Q, turn.p * k + place.other), number_at(Q, turn.q * k + place.other));
}

/* A pair's rows of H where another pair's columns cross them, by both turns. */
static inline void turn_crossing(const Layout &at, Place place) {
  const int k = factor[place.i].k, H = at.W[place.i];
  const Turn &a = turn_at(at, place.first + place.pair), &b = turn_at(at, place.first + place.other);
  if (a.tangent == 0 && b.tangent == 0) return;
  const int first = a.q < k, second = b.q < k;
  number none = {}, pp = number_at(H, a.p * k + b.p), pq = second ? number_at(H, a.p * k + b.q) : none;
  number qp = first ? number_at(H, a.q * k + b.p) : none, qq = first && second ? number_at(H, a.q * k + b.q) : none;
  rotate(a, pp, qp), rotate(a, pq, qq);
  pp = conjugate(pp), pq = conjugate(pq), qp = conjugate(qp), qq = conjugate(qq);
  rotate(b, pp, pq), rotate(b, qp, qq);
  number_at(H, a.p * k + b.p) = conjugate(pp);
  if (second) number_at(H, a.p * k + b.q) = conjugate(pq);
  if (first) number_at(H, a.q * k + b.p) = conjugate(qp);
  if (first && second) number_at(H, a.q * k + b.q) = conjugate(qq);
}

/* Diagonalise every factor's H, Hermitian (k x k) and in W's place, by rotations that Q gathers; 0 where they do not
   settle. What a thread takes first is the same in every round. */
static int diagonalise(const Layout &at) {
  int most = 2, pairs = 0, crossings = 0, columns = 0;
  EVERY_FACTOR(i) {
    const int k = factor[i].k, half = (k + 1) / 2;
    most = max(most, 2 * half), pairs += half, crossings += half * half, columns += half * k;
  }
  const int begin = threadIdx.x, over = begin - crossings;
  const Place pair = begin < pairs ? place_of<1>(begin) : Place{};
  const Place crossing = begin < crossings ? place_of<2>(begin) : Place{};
  const Place column = over >= 0 && over < columns ? place_of<3>(over) : Place{};
  const int circle = rounds_of(pair);
#pragma unroll 1
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    real moving = 0;
    int own = 0; /* round % circle */
#pragma unroll 1
    for (int round = 0; round < most - 1; round++) {
      EACH(item, pairs) {
        const Place place = item == begin ? pair : place_of<1>(item);
        moving += find_turn(at, place, item == begin ? own : round % rounds_of(place));
      }
      own = own + 1 < circle ? own + 1 : 0;
      __syncthreads();
      EACH(item, crossings + columns) {
        if (item < crossings) turn_crossing(at, item == begin ? crossing : place_of<2>(item));
        else turn_column(at, item == begin ? column : place_of<3>(item - crossings));
      }
      __syncthreads();
    }
    if (!(block_max(moving) > 0)) return 1;
  }
  return 0;
}
