/* eigh.cu, svd.cu, small_svd.cu and leading_triplet.cu on a CPU; DECOMPOSITION is the one that is included. */

#include "block_on_host.h"
#include <tuple>

#include DECOMPOSITION

/* As cuLaunchKernel: the addresses of the arguments. */
template <typename... A, size_t... I>
static void launch(void (*kernel)(A...), int blocks, int threads, void **at, std::index_sequence<I...>) {
  static void (*function)(A...);
  static std::tuple<A...> given;
  function = kernel, given = {*(A *)at[I]...};
  run_blocks(blocks, threads, [] { std::apply(function, given); });
}
template <typename... A>
static void launch(void (*kernel)(A...), int blocks, int threads, void **at) {
  launch(kernel, blocks, threads, at, std::index_sequence_for<A...>());
}

#define LAUNCH(kernel) \
  extern "C" void launch_##kernel(int blocks, int threads, void **at) { launch(kernel, blocks, threads, at); }
#ifdef EIGH
LAUNCH(eigh_kernel)
#elif defined LEADING_TRIPLET
LAUNCH(leading_vector_kernel)
#elif defined SMALL_SVD
LAUNCH(bidiagonalise)
LAUNCH(diagonalise)
LAUNCH(turn)
#else
LAUNCH(svd_kernel)
#endif
