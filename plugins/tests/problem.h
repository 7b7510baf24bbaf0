// A layer with random operands, and what its output may be: the operator of tdc/tucker_conv.h in
// float64.
#pragma once

#include <vector>

#include "tdc/tactics.h"

namespace tdc::test {

struct Case {
    const char* name;
    int n, h, w, c, m, r_in, r_out, kernel_h, kernel_w, stride_h, stride_w;
    int top, left, bottom, right, dilation_h, dilation_w;
    bool residual;
    float first_slope, core_slope, slope;
    bool every_schedule = false;  // else it runs under two

    int h_out() const { return out(h, top + bottom, kernel_h, stride_h, dilation_h); }
    int w_out() const { return out(w, left + right, kernel_w, stride_w, dilation_w); }

  private:
    static int out(int in, int padding, int kernel, int stride, int dilation) {
        return (in + padding - dilation * (kernel - 1) - 1) / stride + 1;
    }
};

// The layers that every tactic's tests are drawn from.
const std::vector<Case>& cases();

// The parameters of a layer, without pointers.
TuckerConvParams shapes_of(const Case& layer);

// What a kernel may give for each element of Y, both ends included.
struct Bounds {
    std::vector<double> low, high;
};

struct Problem {
    // Draws operands that the arithmetic's storage type (fp16 or fp32) holds exactly, of sizes that
    // keep T1, T2 and Y near 1.
    Problem(const Case& layer, Arithmetic arithmetic);

    // Y of a kernel that computes as tdc::Arithmetic says. Operands and intermediates are rounded
    // as the arithmetic rounds them; sums are exact, with a bound on what fp32 sums may differ by:
    //
    //   - A sum of k terms, taken in any order, is off by at most k u Σ|term| (N. Higham, "Accuracy
    //     and Stability of Numerical Algorithms", section 4.2), u = 2^-23 since tensor cores may
    //     truncate where IEEE sums round by 2^-24. Three terms more for the bias, the residual and
    //     the activation's product.
    //   - An interval goes through an activation and through a rounding by its ends, since both are
    //     monotonic: far from a tie, an error of the sum leaves no trace.
    //   - Errors of T1 (T2) reach the next sum times the sizes of its weights.
    //
    // This holds for every order of summation, and is still far below what one dropped channel, one
    // wrong pixel of the halo or one missing bias do (problem_test.cpp).
    Bounds bounds() const;

    Case layer;
    Arithmetic arithmetic;
    // Channel last, weights as in TuckerConvParams.
    std::vector<double> x, residual, first, first_bias, core, core_bias, last, bias;
};

}  // namespace tdc::test
