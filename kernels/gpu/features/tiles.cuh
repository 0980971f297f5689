// Tiles of features in shared memory, and products with them on the tensor cores.
//
// Features are of 16 bits, FLOAT16 or bfloat16, (pictures, height, width, HELD). A tile keeps pixel p in 2 CHANNELS
// bytes, its 16-byte chunks exchanged so that the same chunk of any 8 pixels in a row lies in 8 different groups of
// banks. A product takes at least 16 channels: those that memory does not hold are zero.
// Weights are packed so that a lane reads what a product wants of it in one 16-byte word: see `packed` in Python.
#pragma once
#include "instructions.cuh"

#ifndef HELD
#define HELD CHANNELS
#endif

constexpr int CHUNKS = CHANNELS / 8;   // of a pixel
constexpr int STEPS = CHANNELS / 16;   // of the inner dimension of a product, 16 at a time
constexpr int BLOCKS = CHANNELS / 8;   // of 8 output channels
constexpr int PIXEL = 2 * CHANNELS;    // bytes, in a tile
constexpr int STORED = 2 * HELD;       // bytes, in memory
constexpr int TAP = CHANNELS * PIXEL;  // bytes of the weights of one tap

// Whether memory holds a chunk of a pixel.
constexpr bool held(int chunk) { return HELD == CHANNELS || chunk < HELD / 8; }

constexpr int ceil_of(int a, int b) { return (a + b - 1) / b; }

__device__ __forceinline__ int place(int pixel, int chunk) {
    constexpr int shift = CHUNKS == 8 ? 0 : CHUNKS == 4 ? 1 : 2;  // 8 / CHUNKS pixels in 128 bytes
    return pixel * PIXEL + ((chunk ^ ((pixel >> shift) & (CHUNKS - 1))) << 4);
}

// Where a tile of ROWS_ x COLUMNS_ pixels of a batch of pictures begins.
struct Place {
    int top, left;
    size_t picture;  // its first byte
};

template <int ROWS_, int COLUMNS_>
__device__ __forceinline__ Place place_of(int number, int height, int width) {
    int across = (width + COLUMNS_ - 1) / COLUMNS_, down = (height + ROWS_ - 1) / ROWS_;
    return {number / across % down * ROWS_, number % across * COLUMNS_,
            (size_t)(number / (across * down)) * height * width * STORED};
}

// The pixels from (top, left) on of a picture, rows x columns of them, `pitch` apart; zeros outside.
template <int ROWS_, int COLUMNS_, int PITCH_>
__device__ void fetch_tile(char* tile, const char* picture, int top, int left, int height, int width) {
    for (int i = threadIdx.x; i < ROWS_ * COLUMNS_ * CHUNKS; i += blockDim.x) {
        int chunk = i % CHUNKS, column = i / CHUNKS % COLUMNS_, row = i / (CHUNKS * COLUMNS_);
        int y = top + row, x = left + column;
        bool inside = y >= 0 && y < height && x >= 0 && x < width && held(chunk);
        const char* from = picture + (inside ? (size_t)(y * width + x) * STORED + chunk * 16 : 0);
        copy_ahead(tile + place(row * PITCH_ + column, chunk), from, inside);
    }
}

__device__ __forceinline__ void fetch_bytes(char* to, const char* from, int bytes) {
    for (int i = threadIdx.x * 16; i < bytes; i += blockDim.x * 16) copy_ahead(to + i, from + i, true);
}

// acc[m][j] (16 pixels x 8 channels each) += features x weights of a tap; the 16 pixels of tile m begin at
// first + m * STRIDE, where STRIDE pixels leave the exchange of chunks as it is.
template <int TILES, int STRIDE>
__device__ __forceinline__ void accumulate(float (&acc)[TILES][BLOCKS][4], const char* tile, int first, const char* weights) {
    int lane = threadIdx.x % 32, pixel = first + lane % 16;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        uint4 b[BLOCKS / 2];
#pragma unroll
        for (int j = 0; j < BLOCKS / 2; j++)
            b[j] = reinterpret_cast<const uint4*>(weights)[(step * (BLOCKS / 2) + j) * 32 + lane];
        const char* row = tile + place(pixel, 2 * step + lane / 16);
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            u32 a[4];
            load_matrices(a, row + m * STRIDE * PIXEL);
#pragma unroll
            for (int j = 0; j < BLOCKS / 2; j++) {
                multiply(acc[m][2 * j], a, b[j].x, b[j].y);
                multiply(acc[m][2 * j + 1], a, b[j].z, b[j].w);
            }
        }
    }
}

template <int TILES>
__device__ __forceinline__ void begin(float (&acc)[TILES][BLOCKS][4], const float* bias) {
    int t = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        float first = bias[8 * j + 2 * t], second = bias[8 * j + 2 * t + 1];
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            acc[m][j][0] = acc[m][j][2] = first;
            acc[m][j][1] = acc[m][j][3] = second;
        }
    }
}

// A lane's pairs of channels 8j + 2t, 8j + 2t + 1 of a pixel, j = 0 ... 3, for those of chunk t: its 4 lanes swap.
__device__ __forceinline__ uint4 chunk_of(u32 p0, u32 p1, u32 p2, u32 p3) {
    bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
    u32 a = __shfl_xor_sync(0xffffffffu, odd ? p0 : p1, 1), b = __shfl_xor_sync(0xffffffffu, odd ? p2 : p3, 1);
    u32 a0 = odd ? a : p0, a1 = odd ? p1 : a;  // of chunk t % 2, from lanes 2 (t / 2) and 2 (t / 2) + 1
    u32 b0 = odd ? b : p2, b1 = odd ? p3 : b;  // of chunk 2 + t % 2
    u32 c = __shfl_xor_sync(0xffffffffu, upper ? a0 : b0, 2), d = __shfl_xor_sync(0xffffffffu, upper ? a1 : b1, 2);
    return upper ? make_uint4(c, d, b0, b1) : make_uint4(a0, a1, c, d);
}

// A pixel's features to memory, of which a lane has pairs of channels; every lane of a warp comes here.
__device__ __forceinline__ void store_pixel(char* target, bool kept, const u32 (&pairs)[BLOCKS]) {
    int t = threadIdx.x % 4;
    if (BLOCKS % 4) {
#pragma unroll
        for (int j = 0; j < HELD / 8; j++)
            if (kept) *reinterpret_cast<u32*>(target + 16 * j + 4 * t) = pairs[j];
    } else {
#pragma unroll
        for (int j = 0; j + 3 < BLOCKS; j += 4) {
            uint4 chunk = chunk_of(pairs[j], pairs[j + 1], pairs[j + 2], pairs[j + 3]);
            if (kept) *reinterpret_cast<uint4*>(target + 16 * (j + t)) = chunk;
        }
    }
}
