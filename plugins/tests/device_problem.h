// A problem in the device's memory, as tactics of one family and arithmetic want it.
#pragma once

#include <vector>

#include "device_array.h"
#include "problem.h"

namespace tdc::test {

// What a launch wrote to Y.
struct Output {
    std::vector<double> values;  // channel last, as Bounds
    bool zero_padding;           // the lanes above M, which only fp16 has, are zeros
};

class DeviceProblem {
  public:
    DeviceProblem(const Problem& problem, Family family);

    // Without workspace and counters. Y is the array below.
    TuckerConvParams params() const;
    Output output() const;

    DeviceArray y;

  private:
    const Problem& problem_;
    Family family_;
    DeviceArray x_, residual_, first_, first_bias_, core_, core_bias_, last_, bias_;
};

}  // namespace tdc::test
