// A convolutional LSTM's gates with what follows them, of CHANNELS channels; a block stays and keeps the weights.
//
//   f, i, o, j = 3x3 convolution of (z, h');  c = sigmoid(f) c' + sigmoid(i) tanh(j);  h = sigmoid(o) tanh(c)
//   FIRST:  i, o, j = 3x3 convolution of z;   c = sigmoid(i) tanh(j);                  h = sigmoid(o) c
//
// A warp makes two rows of 32 pixels and half of the channels, all their gates side by side in its registers.
#include "tiles.cuh"

constexpr int GATES = FIRST ? 3 : 4, SOURCES = FIRST ? 1 : 2;
constexpr int ROWS = WARPS, COLUMNS = 32, PITCH = COLUMNS + 2, HEIGHT = ROWS + 2;
constexpr int TILE = (HEIGHT * PITCH * PIXEL + 1023) / 1024 * 1024;
constexpr int PAIRS = CHANNELS / 32;               // of 8 channels, of a gate, in half of the channels
constexpr int WIDE = GATES * PAIRS;                // pairs of blocks of 8 columns of a warp's product
constexpr int HALF_STEP = WIDE * 512;              // bytes of weights: half of the columns, 16 inner
constexpr int WEIGHTS = SOURCES * 9 * STEPS * 2 * HALF_STEP;

__device__ __forceinline__ float sigmoid(float x) { return 0.5f * tanh_fast(0.5f * x) + 0.5f; }

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
gates(const char* z, const char* hidden, const char* cell, const char* packed, const float* bias, char* new_hidden,
      char* new_cell, int height, int width, int tiles) {
    extern __shared__ __align__(1024) char memory[];
    char* weights = memory + SOURCES * TILE;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4, side = warp % 2;
    int across = (width + COLUMNS - 1) / COLUMNS, down = (height + ROWS - 1) / ROWS;
    fetch_bytes(weights, packed, WEIGHTS);

    for (int number = blockIdx.x; number < tiles; number += gridDim.x) {
        int top = number / across % down * ROWS, left = number % across * COLUMNS;
        size_t picture = (size_t)(number / (across * down)) * height * width * PIXEL;
        __syncthreads();
        fetch_tile<HEIGHT, PITCH, PITCH>(memory, z + picture, top - 1, left - 1, height, width);
        if (!FIRST) fetch_tile<HEIGHT, PITCH, PITCH>(memory + TILE, hidden + picture, top - 1, left - 1, height, width);
        end_of_copies();
        await_copies<0>();
        __syncthreads();

        float acc[4][GATES][2 * PAIRS][4];
#pragma unroll
        for (int q = 0; q < GATES; q++)
#pragma unroll
            for (int j = 0; j < 2 * PAIRS; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float start = bias[q * CHANNELS + side * (CHANNELS / 2) + 8 * j + 2 * t + e];
#pragma unroll
                    for (int m = 0; m < 4; m++) acc[m][q][j][e] = acc[m][q][j][2 + e] = start;
                }
#pragma unroll 1
        for (int source = 0; source < SOURCES; source++)
#pragma unroll UNROLLED
            for (int tap = 0; tap < 9; tap++) {
                int pixel = (warp / 2 * 2 + tap / 3) * PITCH + tap % 3 + lane % 16;
                const char* words = weights + (source * 9 + tap) * STEPS * 2 * HALF_STEP + side * HALF_STEP + lane * 16;
#pragma unroll
                for (int step = 0; step < STEPS; step++) {
                    u32 a[4][4];
#pragma unroll
                    for (int m = 0; m < 4; m++)
                        load_matrices(a[m], memory + source * TILE + place(pixel + m / 2 * PITCH + m % 2 * 16, 2 * step + lane / 16));
#pragma unroll
                    for (int q = 0; q < GATES; q++)
#pragma unroll
                        for (int j = 0; j < PAIRS; j++) {
                            uint4 b = *reinterpret_cast<const uint4*>(words + step * 2 * HALF_STEP + (q * PAIRS + j) * 512);
#pragma unroll
                            for (int m = 0; m < 4; m++) {
                                multiply(acc[m][q][2 * j], a[m], b.x, b.y);
                                multiply(acc[m][q][2 * j + 1], a[m], b.z, b.w);
                            }
                        }
                }
            }
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int y = top + warp / 2 * 2 + m / 2, x = left + m % 2 * 16 + lane / 4 + 8 * half;
                if (y >= height || x >= width) continue;
                size_t here = picture + ((size_t)y * width + x) * PIXEL + side * CHANNELS + 4 * t;
#pragma unroll
                for (int j = 0; j < 2 * PAIRS; j++) {
                    u32 before = FIRST ? 0 : *reinterpret_cast<const u32*>(cell + here + 16 * j);
                    float c[2], h[2];
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float input = sigmoid(acc[m][GATES - 3][j][2 * half + e]);
                        float output = sigmoid(acc[m][GATES - 2][j][2 * half + e]);
                        c[e] = input * tanh_fast(acc[m][GATES - 1][j][2 * half + e]);
                        if (!FIRST) c[e] += sigmoid(acc[m][0][j][2 * half + e]) * (e ? high(before) : low(before));
                        h[e] = output * (FIRST ? c[e] : tanh_fast(c[e]));
                    }
                    *reinterpret_cast<u32*>(new_cell + here + 16 * j) = pack(c[0], c[1]);
                    *reinterpret_cast<u32*>(new_hidden + here + 16 * j) = pack(h[0], h[1]);
                }
            }
    }
}
