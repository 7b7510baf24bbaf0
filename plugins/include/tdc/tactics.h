// The tactics: every kernel configuration there is, which are legal for a layer on a device, what
// they need, and how to run one. The only interface to the kernels.
//
// A tactic is one positive int, so that it fits TensorRT's custom tactics, the node's `tactics`
// attribute and a JSON file. The configurations are listed in kernels/configs.def, which
// tdc_deploy's analytical model reads too.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tdc/tucker_conv.h"

namespace tdc {

enum class Family {
    kFused = 1,         // the whole chain in one launch; channel last
    kUnfused = 2,       // three launches, T1 and T2 in the workspace; channel last
    kChannelFirst = 3,  // three launches with TDC's core kernel between; channel first, fp32
};
enum class Arithmetic {
    kF16 = 1,   // fp16 in and out, fp32 sums, tensor cores
    kTf32 = 2,  // fp32 in and out, operands rounded to tf32, fp32 sums, tensor cores
    kF32 = 3,   // fp32 throughout
};
// How the blocks of one tile share r_in (the fused family).
enum class Split {
    kNone = 0,
    kCluster = 1,  // partial T2 meet in distributed shared memory; compute capability 9.0
    kTicket = 2,   // partial T2 meet in the workspace; the last block to arrive goes on
};

struct Tactic {
    Family family;
    Arithmetic arithmetic;
    int config;  // the line of the family's and arithmetic's list in kernels/configs.def, from 0
    Split split;
    int parts;  // blocks that share a tile's r_in: 2, 4 or 8; 1 where there is no split
};

// The int has the family in its bits 0-3, the arithmetic in 4-7, the config in 8-15, the split in
// 16-19 and log2(parts) in 20-23.
int encode(const Tactic& tactic);
bool decode(int number, Tactic& tactic);  // false where there is no such tactic

// All there are, in the order of kernels/configs.def: each family's cheapest guess first.
const std::vector<int>& all_tactics();

// Such as "fused f16 8x8 r64 w2x4 c64 s3 cluster4". For a number that is no tactic: "no tactic
// (N)".
std::string describe(int number);

struct Device {
    // 10 * major + minor: the device's, or that of the code that runs on it where that is less.
    int compute_capability;
    std::size_t shared_bytes;  // dynamic shared memory that one block may take
    int multiprocessors;
};
// An error also where this library has no code for the device.
cudaError_t current_device(Device& device);

// Whether the tactic computes layers of these channels, ranks, kernel, strides and dilations, for
// any n, h and w. The pointers, n, h, w, h_out, w_out and pads are not looked at.
bool is_legal(int number, const TuckerConvParams& params, const Device& device);

// Bytes of workspace for these shapes; never less for a larger n, h_out or w_out (and their h, w).
std::size_t workspace_bytes(int number, const TuckerConvParams& params);

// Counters (unsigned, zero) for these shapes; as monotone as workspace_bytes.
std::size_t counter_count(int number, const TuckerConvParams& params);

// Brings the tactic's kernels onto the current device. CUDA does so at a kernel's first launch,
// which allocates and waits: load before a launch that a stream captures. It may take milliseconds
// once, and microseconds again. A number that is no tactic gives cudaErrorInvalidValue.
cudaError_t load(int number);

// Runs the layer: allocates nothing and does not wait. A number that is no tactic, or a null
// workspace where one is needed, gives cudaErrorInvalidValue; a tactic that is not legal on the
// current device gives an error and writes nothing.
cudaError_t launch(int number, const TuckerConvParams& params, cudaStream_t stream);

}  // namespace tdc
