// The kernels of kernels/gpu/features, block by block on a CPU, for tests/kernels/test_features.py.
#include "warps_on_host.h"
#include SOURCE

template <typename Kernel>
static void run_grid(int x, int y, int z, int threads, Kernel kernel) {
    gridDim = {x, y, z};
    blockDim = {threads, 1, 1};
    for (int k = 0; k < z; k++)
        for (int j = 0; j < y; j++)
            for (int i = 0; i < x; i++) {
                blockIdx = {i, j, k};
                run_block(threads, kernel);
            }
}

#ifdef LAYERS
extern "C" void run(int x, int y, int z, int threads, const char* features, const Planes* given, const char* packed,
                    const float* biases, char* result, const Planes* added, float* plane, float* pooled, int height, int width) {
    run_grid(x, y, z, threads, [=] { chain(features, *given, packed, biases, result, *added, plane, pooled, height, width); });
}
#elif defined FIRST
extern "C" void run(int x, int y, int z, int threads, const char* in, const char* hidden, const char* cell, const char* packed,
                    const float* bias, char* new_hidden, char* new_cell, int height, int width, int tiles) {
    run_grid(x, y, z, threads, [=] { gates(in, hidden, cell, packed, bias, new_hidden, new_cell, height, width, tiles); });
}
#else
extern "C" void run(int x, int y, int z, int threads, const char* features, const char* weights, const char* centre,
                    const float* shift, const float* theta, float slope, char* result, int height, int width) {
    run_grid(x, y, z, threads, [=] { window(features, weights, centre, shift, theta, slope, result, height, width); });
}
extern "C" void run_gate(int pictures, const float* pooled, int tiles, float scale, const float* A, const float* a,
                         const float* B, const float* b, int squeezed, float* theta) {
    run_grid(pictures, 1, 1, 256, [=] { gate(pooled, tiles, scale, A, a, B, b, squeezed, theta); });
}
#endif
