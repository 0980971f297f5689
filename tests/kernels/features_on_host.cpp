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

#define RUN(...) extern "C" void run(int x, int y, int z, int threads, __VA_ARGS__)
#if defined KERNEL_chain
RUN(const char* features, const Planes* given, const char* packed, const float* biases, char* result, const Planes* added,
    float* plane, float* pooled, char* middle, int height, int width) {
    run_grid(x, y, z, threads, [=] {
        chain(features, *given, packed, biases, result, *added, plane, pooled, middle, height, width);
    });
}
#elif defined KERNEL_gates
RUN(const char* in, const char* hidden, const char* cell, const char* packed, const float* bias, float scale,
    char* new_hidden, char* new_cell, int height, int width, int tiles) {
    run_grid(x, y, z, threads, [=] { gates(in, hidden, cell, packed, bias, scale, new_hidden, new_cell, height, width, tiles); });
}
#elif defined KERNEL_window
RUN(const char* features, const char* weights, const char* centre, const float* shift, const float* theta, float slope,
    char* result, int height, int width) {
    run_grid(x, y, z, threads, [=] { window(features, weights, centre, shift, theta, slope, result, height, width); });
}
#elif defined KERNEL_gate
RUN(const float* pooled, int tiles, float scale, const float* A, const float* a, const float* B, const float* b,
    int squeezed, float* theta) {
    run_grid(x, y, z, threads, [=] { gate(pooled, tiles, scale, A, a, B, b, squeezed, theta); });
}
#elif defined KERNEL_conv_backward
RUN(const char* grad, const char* input, const float* weight, const char* plus, int rectified, char* result, float* parts,
    int height, int width, int tiles) {
    run_grid(x, y, z, threads, [=] {
        conv_backward(grad, input, weight, plus, rectified, result, parts, height, width, tiles);
    });
}
#elif defined KERNEL_sum_parts
RUN(const float* parts, int count, float* of_weight, float* of_bias) {
    run_grid(x, y, z, threads, [=] { sum_parts(parts, count, of_weight, of_bias); });
}
#elif defined KERNEL_pack_weights
RUN(const float* first, const float* second, u32* packed) {
    run_grid(x, y, z, threads, [=] { pack_weights(first, second, packed); });
}
#endif
