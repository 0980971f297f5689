/* One problem for each M-step of em.cu, by seven threads under ThreadSanitizer. */

#include "em_on_host.cpp"

#include <cstdio>
#include <cstring>

static const int WIDTH = COMPLEX ? 2 : 1, MOST_ITERATIONS = 6;
static const int ROWS[FACTORS] = {4, 3, 7}, COLUMNS[FACTORS] = {6, 5, 4};

static double between(double least, double most) { return least + (most - least) * rand() / RAND_MAX; }

/* Iterations of a problem; published: with unknown noise and without pruning against it. */
static long solve(int step, int published) {
  std::vector<double> A[FACTORS], g[FACTORS], paths[FACTORS], y(4 * 3 * 7 * WIDTH), path[3];
  double noise = 0.5, lowest = INFINITY;
  int64_t iterations = 0, outcome = UNFINISHED;
  Call call = {};
  for (int i = 0; i < FACTORS; i++) {
    A[i].resize(ROWS[i] * COLUMNS[i] * WIDTH), g[i].assign(COLUMNS[i], 1.0);
    paths[i].resize(MOST_ITERATIONS * COLUMNS[i]);
    for (double &entry : A[i]) entry = between(-1, 1);
    call.rows[i] = ROWS[i], call.columns[i] = COLUMNS[i], call.shared[i] = 1, call.coupled[i] = i != 1;
    call.matrices[i] = A[i].data(), call.g[i] = g[i].data(), call.g_path[i] = paths[i].data();
    call.ratios[i] = 0.2;
  }
  for (double &entry : y) entry = between(-10, 10);
  for (auto &part : path) part.resize(MOST_ITERATIONS);
  call.problems = 1, call.factors = FACTORS, call.complex_numbers = COMPLEX, call.noise_unknown = published;
  call.y = y.data(), call.noise_variance = &noise, call.step = step, call.sweeps = 4, call.relative = 1;
  call.negligible = published ? INFINITY : 5.0, call.faint = 1e-12, call.tolerance = 1e-9, call.max_iterations = MOST_ITERATIONS;
  call.inner_tolerance = 1e-4, call.divergence = 1e3, call.beta = 0.8, call.offset = 1e-5;
  call.iterations = &iterations, call.outcome = &outcome;
  call.cost = path[0].data(), call.change = path[1].data(), call.noise_path = path[2].data();
  for (int room : {500, 0}) em_solve_on_host(&call, 7, sizeof memory, &lowest, room);
  return iterations;
}

int main() {
  for (int step = NESTED_SVD; step <= ROOT_SVD; step++)
    for (int published = 0; published < 2; published++) printf("%ld\n", solve(step, published));
}
