// A matrix product as a kernel for tensor cores is written: what the emulator is for.
#pragma once

namespace tdc::test {

// c = a * b with a [m, k], b [k, n], c [m, n], row-major, in fp16 (passed as their bits) with sums
// in fp32. n and k are multiples of 8. Pointers are to device memory, 16-byte aligned.
void gemm(const unsigned short* a, const unsigned short* b, unsigned short* c, int m, int n, int k);

}  // namespace tdc::test
