// Keeps one GPU busy until it is killed: a load for tests/real-gpu/check.sh.
#include <cstdio>

__global__ void burn(float *out) {
    float x = threadIdx.x;
    for (int i = 0; i < 1 << 18; i++) x = x * 1.0000001f + 0.5f;
    out[blockIdx.x * blockDim.x + threadIdx.x] = x;
}

int main() {
    float *out = nullptr;
    if (cudaMalloc(&out, sizeof(float) * 1024 * 256) != cudaSuccess) {
        fprintf(stderr, "no GPU can be used\n");
        return 1;
    }
    for (;;) {
        burn<<<1024, 256>>>(out);
        if (cudaDeviceSynchronize() != cudaSuccess) return 1;
    }
}
