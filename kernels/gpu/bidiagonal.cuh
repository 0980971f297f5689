/* Implicit QR steps on real upper bidiagonal forms, each by one thread: a diagonal d and an edge e, of entries STRIDE
   numbers apart. Source: Golub and Van Loan, Matrix Computations, section 8.6.3; Demmel and Kahan, "Accurate
   singular values of bidiagonal matrices", 1990 (the step without shift, which a vanishing diagonal entry wants). */

#include "dense.cuh"

/* Rows of a form that a step works on; none where low is high. All behind high is settled. */
struct part {
  int low, high;
  real least; /* of the diagonal entries, by modulus */
};

/* The smaller singular value of ((f, g), (0, h)). */
__device__ inline real smaller_value(real f, real g, real h) {
  f = fabs(f), g = fabs(g), h = fabs(h);
  const real least = fmin(f, h), most = fmax(f, h);
  if (least == 0) return 0;
  const real sum = 1 + quotient(least, most), difference = quotient(most - least, most);
  if (g < most) {
    const real ratio = quotient(g, most), squared = ratio * ratio;
    return quotient(least * 2, root(sum * sum + squared) + root(difference * difference + squared));
  }
  const real ratio = quotient(most, g), high = sum * ratio, low = difference * ratio;
  return 2 * quotient(least, root(1 + high * high) + root(1 + low * low)) * ratio;
}

/* Whether there is a part to work on: what the last step left of its own, or the next one above. */
template <int STRIDE>
__device__ inline bool find_part(const real *d, const real *e, real negligible, part *rows) {
  if (rows->low < rows->high) return true;
  int high = rows->high, low;
  while (high > 0 && fabs(e[(high - 1) * STRIDE]) <= negligible) high--;
  real least = fabs(d[high * STRIDE]);
  for (low = high; low > 0 && fabs(e[(low - 1) * STRIDE]) > negligible; low--)
    least = fmin(least, fabs(d[(low - 1) * STRIDE]));
  *rows = {low, high, least};
  return high > 0;
}

/* A step on a part, and what of it the next one works on: the rows behind the last edge that is negligible now. There is
   room for an edge before the first. keep(i, right, left): told of the rotations of columns i and i + 1, one by one. */
template <int STRIDE, typename Keep>
__device__ inline void step(real *d, real *e, real negligible, part *rows, Keep keep) {
  const int first = rows->low, last = rows->high;
  real here = d[first * STRIDE], edge = e[first * STRIDE], f = here, g = edge;
  if (rows->least > negligible) {
    const real shift = smaller_value(d[(last - 1) * STRIDE], e[(last - 1) * STRIDE], d[last * STRIDE]);
    const real ratio = quotient(shift, here);
    if (ratio * ratio > limits::eps) f = (fabs(here) - shift) * ((here < 0 ? -1 : 1) + ratio);
  }
  int low = first;
  real least = limits::largest;
  const real above = e[(first - 1) * STRIDE];
  for (int i = first; i < last; i++) {
    const real next = d[(i + 1) * STRIDE], next_edge = e[(i + 1) * STRIDE];
    rotation right, left;
    const real before = rotate(f, g, &right);
    e[(i - 1) * STRIDE] = before;
    const bool apart = fabs(before) <= negligible;
    low = apart ? i : low;
    f = right.c * here + right.s * edge;
    edge = right.c * edge - right.s * here;
    g = right.s * next;
    here = right.c * next;
    const real settled = rotate(f, g, &left);
    d[i * STRIDE] = settled;
    least = fmin(apart ? limits::largest : least, fabs(settled));
    f = left.c * edge + left.s * here;
    here = left.c * here - left.s * edge;
    g = left.s * next_edge;
    edge = left.c * next_edge;
    keep(i, right, left);
  }
  e[(first - 1) * STRIDE] = above;
  e[(last - 1) * STRIDE] = f;
  d[last * STRIDE] = here;
  const bool settled = fabs(f) <= negligible;
  *rows = {low, last - settled, settled ? least : fmin(least, fabs(here))};
}
