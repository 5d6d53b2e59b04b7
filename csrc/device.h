// For functions of both the host and the device, where nvcc compiles them.
#pragma once

#if defined(__CUDACC__)
#define NF_HOST_DEVICE __host__ __device__
#else
#define NF_HOST_DEVICE
#endif
