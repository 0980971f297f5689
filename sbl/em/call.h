/* What the EM loops in C and in CUDA C are called with. */

#ifdef __CUDACC_RTC__
typedef long long int64_t;
#else
#include <stdint.h>
#endif

enum { MOST_FACTORS = 8, FULL_EXCHANGES = 3, SQUARINGS = 56 };
enum step { NESTED_SVD, ONE_SWEEP, ALTERNATING, BOUND, ROOT_SVD };
enum outcome { SETTLED, UNFINISHED, COST_ROSE, PRUNED, NOT_FINITE }; /* as estimate.Ended */

/* What all problems of a call share; the fields are those of compiled.Call. */
typedef struct {
  int64_t problems, factors, complex_numbers, noise_unknown;
  int64_t rows[MOST_FACTORS], columns[MOST_FACTORS], shared[MOST_FACTORS], coupled[MOST_FACTORS];
  const double *matrices[MOST_FACTORS];
  const double *y;
  double *noise_variance;
  double *g[MOST_FACTORS];
  double *sources[MOST_FACTORS]; /* NULL where nothing lies behind g */
  double ratios[MOST_FACTORS];
  double negligible, faint, floor, tolerance;
  int64_t max_iterations;
  int64_t step, sweeps, relative;
  double inner_tolerance, divergence, beta, offset;
  int64_t *iterations, *outcome;
  double *cost, *change, *noise_path, *g_path[MOST_FACTORS]; /* a row an iteration; NULL where not asked for */
} Call;
