// The contrast prior's window: a 17x17 convolution of CHANNELS channels beside a gated centre, rectified.
//
//   y = leaky(shift + theta(picture) * centre z + sum over the window of weights * z),  leaky(v) = max(v, SLOPE v)
//
// A block makes ROWS x 32 pixels: the features that they need stay in shared memory, the weights pass through it
// a row of the window at a time, of 64 channels a tap, the next ones on their way while these are used.
#include "tiles.cuh"

constexpr int COLUMNS = 32, WINDOW = 17, MARGIN = WINDOW / 2;
constexpr int PITCH = COLUMNS + 2 * MARGIN, HEIGHT = ROWS + 2 * MARGIN;  // 48: a row leaves the exchange as it is
constexpr int TILE = HEIGHT * PITCH * PIXEL;
constexpr int AT_ONCE = CHANNELS > 32 ? 1 : WINDOW;  // taps
constexpr int WEIGHTS = AT_ONCE * TAP;
constexpr int TILES = ROWS * (COLUMNS / 16) / WARPS;  // of 16 pixels a warp: half a row each, in pairs

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
window(const char* features, const char* weights, const char* centre, const float* shift, const float* theta,
       float slope, char* result, int height, int width) {
    SHARED_MEMORY(memory);
    char* tile = memory;
    char* taps = memory + TILE;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    int top = blockIdx.y * ROWS, left = blockIdx.x * COLUMNS;
    size_t picture = (size_t)blockIdx.z * height * width * STORED;

    fetch_tile<HEIGHT, PITCH, PITCH>(tile, features + picture, top - MARGIN, left - MARGIN, height, width);
    fetch_bytes(taps, weights, WEIGHTS);
    end_of_copies();
    await_copies<0>();
    __syncthreads();

    // Tile m of a warp: 16 pixels from column 16 * (m % 2) of row TILES / 2 * warp + m / 2.
    float acc[TILES / 2][2][BLOCKS][4] = {};
    int first = TILES / 2 * warp * PITCH;
#pragma unroll
    for (int m = 0; m < TILES / 2; m++)
        accumulate<2, 16>(acc[m], tile, first + (m + MARGIN) * PITCH + MARGIN, centre);
#pragma unroll
    for (int j = 0; j < BLOCKS; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int channel = 8 * j + 2 * t + e;
            float gate = theta[blockIdx.z * CHANNELS + channel], constant = shift[channel];
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float& value = acc[m / 2][m % 2][j][2 * half + e];
                    value = gate * value + constant;
                }
        }

    constexpr int turns = WINDOW * WINDOW / AT_ONCE;
    for (int turn = 0; turn < turns; turn++) {
        const char* here = taps + turn % 2 * WEIGHTS;
        if (turn + 1 < turns) fetch_bytes(taps + (turn + 1) % 2 * WEIGHTS, weights + (turn + 1) * WEIGHTS, WEIGHTS);
        end_of_copies();
        int start = first + turn * AT_ONCE / WINDOW * PITCH + turn * AT_ONCE % WINDOW + lane % 16;
#pragma unroll UNROLLED
        for (int tap = 0; tap < AT_ONCE; tap++) {
            int pixel = start + tap;
            const uint4* words = reinterpret_cast<const uint4*>(here + tap * TAP) + lane;
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                uint4 b[BLOCKS / 2];
#pragma unroll
                for (int j = 0; j < BLOCKS / 2; j++) b[j] = words[(step * (BLOCKS / 2) + j) * 32];
                const char* source = tile + place(pixel, 2 * step + lane / 16);
#pragma unroll
                for (int m = 0; m < TILES; m++) {
                    u32 a[4];
                    load_matrices(a, source + (m / 2 * PITCH + m % 2 * 16) * PIXEL);
#pragma unroll
                    for (int j = 0; j < BLOCKS / 2; j++) {
                        multiply(acc[m / 2][m % 2][2 * j], a, b[j].x, b[j].y);
                        multiply(acc[m / 2][m % 2][2 * j + 1], a, b[j].z, b[j].w);
                    }
                }
            }
        }
        await_copies<0>();
        __syncthreads();
    }

#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int y = top + TILES / 2 * warp + m / 2, x = left + 16 * (m % 2) + lane / 4 + 8 * half;
            bool kept = y < height && x < width;
            char* target = result + picture + (kept ? ((size_t)y * width + x) * STORED : 0);
            u32 pairs[BLOCKS];
#pragma unroll
            for (int j = 0; j < BLOCKS; j++) {
                float a = acc[m / 2][m % 2][j][2 * half], b = acc[m / 2][m % 2][j][2 * half + 1];
                pairs[j] = pack(fmaxf(a, slope * a), fmaxf(b, slope * b));
            }
            store_pixel(target, kept, pairs);
        }
}

// theta = sigmoid(B relu(A mean + a) + b), one block a picture, from the sums of its tiles.
extern "C" __global__ void __launch_bounds__(256)
gate(const float* pooled, int tiles, float scale, const float* A, const float* a, const float* B, const float* b,
     int squeezed, float* theta) {
    __shared__ float parts[8][CHANNELS], mean[CHANNELS], hidden[CHANNELS];
    int part = threadIdx.x / CHANNELS, channel = threadIdx.x % CHANNELS, count = 256 / CHANNELS;
    if (part < 8) {
        float sum = 0;
        int step = count < 8 ? count : 8;
        for (int i = part; i < tiles; i += step) sum += pooled[((size_t)blockIdx.x * tiles + i) * CHANNELS + channel];
        parts[part][channel] = sum;
    }
    __syncthreads();
    if (threadIdx.x < CHANNELS) {
        float sum = 0;
        for (int i = 0; i < (count < 8 ? count : 8); i++) sum += parts[i][channel];
        mean[channel] = sum * scale;
    }
    __syncthreads();
    if (threadIdx.x < squeezed) {
        float sum = a[threadIdx.x];
        for (int c = 0; c < CHANNELS; c++) sum += A[threadIdx.x * CHANNELS + c] * mean[c];
        hidden[threadIdx.x] = rectified(sum);
    }
    __syncthreads();
    if (threadIdx.x < CHANNELS) {
        float sum = b[channel];
        for (int c = 0; c < squeezed; c++) sum += B[channel * squeezed + c] * hidden[c];
        theta[blockIdx.x * CHANNELS + channel] = 1 / (1 + __expf(-sum));
    }
}
